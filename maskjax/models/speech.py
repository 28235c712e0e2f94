"""The encoder of masked speech (wav2vec 2.0: Baevski et al., 2020; HuBERT: Hsu et al., 2021)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models.layers import Dense, convolve_groups, gelu, layer_norm, xavier
from maskjax.models.post_norm import PostNormBlock
from maskjax.models.precision import compute_dtype
from maskjax.models.stack import Stack, dropout
from maskjax.models.transformer import Transformer
from maskjax.tokens import TokenGrid

# (kernel, stride) of the seven layers over the waveform: 320 samples a frame, 400 in sight.
WAVEFORM_LAYERS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))


class WaveformFrontEnd(nn.Module):
    """Seven convolutions from samples to frames (wav2vec 2.0, "default" mode).

    No biases; the first layer's output is normalised per channel over time. So that N x 320 samples
    give N frames, 40 zeros are put before and after the waveform (the original has none and
    loses the last frame).

    Attributes:
      width: channels of every layer.
      dtype: of the computation.
    """

    width: int = 512
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, samples: jax.Array) -> jax.Array:
        """[B, 320 N] -> [B, N, width]."""
        x = jnp.pad(samples, ((0, 0), (40, 40)))[:, :, None]
        for i, (kernel, stride) in enumerate(WAVEFORM_LAYERS):
            x = nn.Conv(
                self.width,
                (kernel,),
                (stride,),
                padding="VALID",
                use_bias=False,
                kernel_init=nn.initializers.he_normal(),
                dtype=self.dtype,
                name=f"conv{i}",
            )(x)
            if i == 0:
                groups = self.width
                x = nn.GroupNorm(groups, epsilon=1e-5, dtype=self.dtype, name="norm0")(x)
            x = gelu(x)
        return x


class ConvolutionalPositions(nn.Module):
    """Positions from a grouped convolution over time with weight normalisation and GELU.

    Relative and without a length of their own (Mohamed et al., 2019; wav2vec 2.0, section 2).
    Weight normalisation has one factor per place of the kernel, as in the original.

    Attributes:
      kernel: number of frames in sight; N frames stay N, the later half of an even kernel is one
        frame shorter.
      groups: of channels.
      dtype: of the computation.
    """

    kernel: int = 128
    groups: int = 16
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, N, D] -> [B, N, D]."""
        d = x.shape[-1]
        if d % self.groups:
            raise UserError(f"A width of {d} is not divisible by {self.groups} position groups.")
        shape = (self.kernel, d // self.groups, d)
        start = nn.initializers.normal((4.0 / (self.kernel * d)) ** 0.5)
        direction = self.param("direction", start, shape)
        norm = jnp.sqrt((direction**2).sum(axis=(1, 2)))
        # The factors start at the norms, so that the kernel starts as it was drawn.
        scale = self.param("scale", lambda _: norm)
        kernel = direction * (scale / norm)[:, None, None]
        y = convolve_groups(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            window_strides=(1,),
            padding=[(self.kernel // 2, (self.kernel - 1) // 2)],
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=self.groups,
        )
        bias = self.param("bias", nn.initializers.zeros, (d,))
        return gelu(y + bias.astype(self.dtype)[None, None, :])


class SpeechEncoder(nn.Module):
    """Transformer over frames, with one learned vector in the place of hidden frames.

    Attributes:
      patch_size: (frames,) of a log-mel spectrogram that make a token, or (320,) samples of a
        waveform.
      front: "linear": a token is its frames side by side, embedded linearly; "waveform": seven
        convolutions over the samples.
      front_width: channels of the convolutions.
      front_gradient: factor of the gradient into the convolutions.
      width: D.
      depth: number of blocks.
      heads: attention heads.
      mlp_ratio: hidden width of the MLP relative to D.
      norm: "post" (the Base model) or "pre" (Large and X-Large).
      position_kernel: frames that the position embedding sees.
      position_groups: its groups of channels.
      dropout: of the embedded frames and of all branches, in training; "post" only.
      layer_drop: probability of leaving out a block in training; "post" only.
      scan: loop over the blocks instead of unrolling them.
      remat: what the backward pass recomputes, see `REMAT_POLICIES`.
      dtype: of the computation, see `compute_dtype`.
    """

    patch_size: tuple[int, ...] = (2,)
    front: str = "linear"
    front_width: int = 512
    front_gradient: float = 0.1
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    norm: str = "post"
    position_kernel: int = 128
    position_groups: int = 16
    dropout: float = 0.0
    layer_drop: float = 0.0
    scan: bool = False
    remat: str = "none"
    dtype: str = "auto"

    @nn.compact
    def __call__(
        self,
        patches: jax.Array,
        grid: TokenGrid,
        mask: Mask | None = None,
        trained: TokenGrid | None = None,
    ) -> dict[str, Any]:
        """Encodes all frames; the hidden ones are replaced before anything mixes them.

        Args:
          patches: float [B, N, P] in order of time.
          grid: their geometry; one axis.
          mask: which frames are hidden; None: none.
          trained: not used: positions are relative.

        Returns:
          A dict of intermediates, all in order of time:
          `features` [B, N, E] of the front end, before its norm (the patches, if it is linear);
          `embedded` [B, N, D] after masking, with positions; `blocks[i]` [B, N, D]; `tokens` and
          `patches` [B, N, D], the output; `mean` [B, D] over time.
        """
        del trained
        self._check(grid)
        dtype = compute_dtype(self.dtype)
        features = patches.astype(dtype)
        if self.front == "waveform":
            samples = patches.reshape(patches.shape[0], -1)
            features = WaveformFrontEnd(self.front_width, dtype, name="front")(samples)
            features = _scale_gradient(features, self.front_gradient)
        x = features
        if self.front == "waveform":
            x = layer_norm(dtype, "front_norm", 1e-5)(x)
        x = Dense(self.width, kernel_init=xavier, dtype=dtype, name="embed")(x)
        rngs = [None] * 3
        if self.dropout + self.layer_drop > 0 and self.has_rng("dropout"):
            rngs = jax.random.split(self.make_rng("dropout"), 3)
        x = dropout(x, self.dropout, rngs[0])
        fill = self.param("mask_token", nn.initializers.uniform(1.0), (self.width,)).astype(dtype)
        if mask is not None:
            x = jnp.where(mask.is_masked[:, :, None], fill[None, None, :], x)
        x = x + ConvolutionalPositions(
            self.position_kernel, self.position_groups, dtype, name="positions"
        )(x)
        if self.norm == "post":
            x = layer_norm(dtype, "norm", 1e-5)(x)
        embedded = x
        x, blocks = self._stack(dtype)(dropout(x, self.dropout, rngs[1]), rng=rngs[2])
        if self.norm == "pre":
            x = layer_norm(dtype, "norm", 1e-5)(x)
        return {
            "features": features,
            "embedded": embedded,
            "blocks": blocks,
            "tokens": x,
            "patches": x,
            "mean": x.astype(jnp.float32).mean(axis=1),
        }

    def _stack(self, dtype: jnp.dtype) -> nn.Module:
        if self.norm == "post":
            block = PostNormBlock(
                self.heads, self.mlp_ratio, 1e-5, self.dropout, dtype=self.dtype, parent=None
            )
            return Stack((block,), self.depth, self.scan, self.remat, self.layer_drop, name="stack")
        return Transformer(
            self.depth,
            self.heads,
            self.mlp_ratio,
            self.scan,
            self.remat,
            dtype,
            epsilon=1e-5,
            name="stack",
        )

    def _check(self, grid: TokenGrid) -> None:
        if self.front not in ("linear", "waveform"):
            raise UserError(f"front of a speech encoder: 'linear' or 'waveform', not {self.front}.")
        if self.norm not in ("post", "pre"):
            raise UserError(f"norm of a speech encoder is 'post' or 'pre', not '{self.norm}'.")
        if self.norm == "pre" and self.dropout + self.layer_drop > 0:
            raise UserError("A speech encoder drops only with norm='post': set dropout to 0.")
        if len(grid.shape) != 1:
            raise UserError(
                f"A speech encoder wants tokens along time alone, not {len(grid.shape)} axes: set "
                "axes=1 of data.LogMel, or use data.Waveform."
            )
        stride = 1
        for _, step in WAVEFORM_LAYERS:
            stride *= step
        if self.front == "waveform" and (grid.patch != (stride,) or grid.channels != 1):
            raise UserError(
                f"The waveform front end makes a token of {stride} samples: set "
                f"system.encoder.patch_size=({stride},) and use data.Waveform."
            )


def _scale_gradient(x: jax.Array, factor: float) -> jax.Array:
    """Returns x, with a gradient that is `factor` times as large."""
    return factor * x + jax.lax.stop_gradient((1.0 - factor) * x)
