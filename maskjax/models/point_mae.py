"""Networks of Point-MAE (Pang et al., ECCV 2022): groups of points as tokens."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.masking import Mask
from maskjax.models.batch_norm import BatchNorm
from maskjax.models.layers import Dense, gelu, layer_norm, torch_default, truncated_normal
from maskjax.models.precision import compute_dtype
from maskjax.models.transformer import Transformer
from maskjax.tokens import take_tokens


def _key(module: nn.Module) -> jax.Array | None:
    """The key of stochastic depth, if there is one."""
    return module.make_rng("dropout") if module.has_rng("dropout") else None


def _largest(x: jax.Array) -> jax.Array:
    """Returns the maximum over the tokens, float32: [B, N, D] -> [B, D].

    Its gradient goes to one of equals, as PyTorch's. That of `jnp.max` is divided by the number of
    equals, which it finds by comparing values: if XLA has computed them twice, with different
    rounding, there are none, and the gradient is not finite.
    """
    x = x.astype(jnp.float32)
    places = jnp.argmax(jax.lax.stop_gradient(x), axis=1)[:, None]
    return jnp.take_along_axis(x, places, axis=1)[:, 0]


class MiniPointNet(nn.Module):
    """Embeds a group of points, whatever their order (PointNet: Qi et al., 2017).

    Two stages of a per-point MLP and a maximum over the group; the second sees each point beside
    the maximum of the first.

    Attributes:
      width: D of the result.
      hidden: widths of the first stage (hidden, result) and of the second (hidden).
      dtype: of the computation.
    """

    width: int
    hidden: tuple[int, int, int] = (128, 256, 512)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, neighbours: jax.Array) -> jax.Array:
        """[B, G, S, 3], coordinates relative to the centre -> [B, G, D]."""

        def dense(width: int, name: str) -> nn.Dense:
            return Dense(width, kernel_init=truncated_normal(), dtype=self.dtype, name=name)

        x = dense(self.hidden[0], "first_up")(neighbours.astype(self.dtype))
        x = nn.relu(BatchNorm(dtype=self.dtype, name="first_norm")(x))
        x = dense(self.hidden[1], "first_down")(x)
        overall = jnp.broadcast_to(x.max(axis=2, keepdims=True), x.shape)
        x = dense(self.hidden[2], "second_up")(jnp.concatenate([overall, x], axis=-1))
        x = nn.relu(BatchNorm(dtype=self.dtype, name="second_norm")(x))
        return dense(self.width, "second_down")(x).max(axis=2)


class CentrePositions(nn.Module):
    """Position embedding of a point in space: an MLP on its coordinates."""

    width: int
    hidden: int = 128
    kernel_init: nn.initializers.Initializer = torch_default
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, centres: jax.Array) -> jax.Array:
        """[B, N, 3] -> [B, N, D]."""
        x = Dense(self.hidden, kernel_init=self.kernel_init, dtype=self.dtype, name="up")(centres)
        x = gelu(x)
        return Dense(self.width, kernel_init=self.kernel_init, dtype=self.dtype, name="down")(x)


class PointEncoder(nn.Module):
    """Embeds all groups and encodes the visible ones; positions are added before EVERY block.

    All groups, also the masked ones, go through the embedding, so its batch statistics see them,
    as in the reference.

    Attributes:
      width: D.
      depth: number of blocks.
      heads: attention heads.
      mlp_ratio: hidden width of the MLP relative to D.
      embed_hidden: see `MiniPointNet`.
      drop_path: rate of stochastic depth of the last block, if `dropout` keys are given.
      scan: loop over the blocks instead of unrolling them.
      remat: what the backward pass recomputes, see `REMAT_POLICIES`.
      dtype: of the computation, see `compute_dtype`.
    """

    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    embed_hidden: tuple[int, int, int] = (128, 256, 512)
    drop_path: float = 0.1
    scan: bool = False
    remat: str = "none"
    dtype: str = "auto"

    @nn.compact
    def __call__(
        self,
        neighbours: jax.Array,
        centres: jax.Array,
        mask: Mask | None = None,
        first: jax.Array | None = None,
    ) -> dict[str, Any]:
        """Encodes the groups that a mask leaves visible.

        Args:
          neighbours: float [B, G, S, 3], relative to the centres.
          centres: float [B, G, 3].
          mask: which groups to see, in which order; None: all.
          first: a class token and its position [2, D], None: there is none.

        Returns:
          A dict, K = G without a mask: `embedded` [B, G, D] of all groups, without positions;
          `blocks[i]`, `tokens` and `patches` [B, K, D], the last two after the final norm;
          `mean` and `max` [B, D] over the patches, and `pooled` [B, 2 D], both. With a class token
          blocks and `tokens` are [B, 1 + K, D], `cls` is the first of these, and `pooled` has it
          instead of the mean.
        """
        dtype = compute_dtype(self.dtype)
        embed = MiniPointNet(self.width, self.embed_hidden, dtype, name="embed")
        embedded = embed(neighbours)
        x = embedded
        if mask is not None:
            x, centres = take_tokens(x, mask.keep), take_tokens(centres, mask.keep)
        positions = CentrePositions(
            self.width, kernel_init=truncated_normal(), dtype=dtype, name="positions"
        )
        stack = Transformer(
            self.depth,
            self.heads,
            self.mlp_ratio,
            self.scan,
            self.remat,
            dtype,
            bias="none",
            epsilon=1e-5,
            drop_path=self.drop_path,
            init_kernel="normal",
            name="stack",
        )
        places = positions(centres)
        if first is not None:
            token, place = (
                jnp.broadcast_to(each.astype(dtype), (x.shape[0], 1, self.width)) for each in first
            )
            x, places = (jnp.concatenate(pair, axis=1) for pair in ((token, x), (place, places)))
        x, blocks = stack(x, positions=places, rng=_key(self))
        tokens = layer_norm(dtype, "norm", 1e-5)(x)
        patches = tokens if first is None else tokens[:, 1:]
        mean, largest = patches.astype(jnp.float32).mean(axis=1), _largest(patches)
        overall = mean if first is None else tokens[:, 0].astype(jnp.float32)
        return {
            "embedded": embedded,
            "blocks": blocks,
            "tokens": tokens,
            "patches": patches,
            "mean": mean,
            "max": largest,
            "pooled": jnp.concatenate([overall, largest], axis=1),
        } | ({} if first is None else {"cls": tokens[:, 0]})


class PointDecoder(nn.Module):
    """Transformer over visible tokens and one mask token per hidden group; predicts their points.

    Only here are the places of the hidden groups told, by the positions of the mask tokens.

    Attributes: as in `PointEncoder`.
    """

    width: int = 384
    depth: int = 4
    heads: int = 6
    mlp_ratio: float = 4.0
    drop_path: float = 0.1
    scan: bool = False
    remat: str = "none"
    dtype: str = "auto"

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        centres: jax.Array,
        mask: Mask,
        group_size: int,
    ) -> dict[str, Any]:
        """Predicts the points of the masked groups.

        Args:
          tokens: [B, K, D], the encoder's output, in the mask's order; the width is the encoder's.
          centres: float [B, G, 3] of all groups.
          mask: which groups the tokens belong to.
          group_size: S, points to predict for each group.

        Returns:
          `blocks[i]` [B, K + M, D] in the order (keep, drop); `tokens` [B, M, D], the masked ones
          after the final norm; `prediction` float32 [B, M, S, 3] relative to the centres, in the
          order of `mask.drop`.
        """
        dtype = compute_dtype(self.dtype)
        k, m = mask.keep.shape[1], mask.drop.shape[1]
        x = tokens.astype(dtype)
        if x.shape[-1] != self.width:
            # The reference has one width for both; another one needs a projection.
            x = Dense(self.width, kernel_init=torch_default, dtype=dtype, name="embed")(x)
        fill = self.param("mask_token", truncated_normal(), (self.width,)).astype(dtype)
        hidden = jnp.broadcast_to(fill[None, None, :], (x.shape[0], m, self.width))
        order = jnp.concatenate([mask.keep, mask.drop], axis=1)
        positions = CentrePositions(self.width, dtype=dtype, name="positions")
        stack = Transformer(
            self.depth,
            self.heads,
            self.mlp_ratio,
            self.scan,
            self.remat,
            dtype,
            bias="none",
            epsilon=1e-5,
            drop_path=self.drop_path,
            name="stack",
        )
        x, blocks = stack(
            jnp.concatenate([x, hidden], axis=1),
            positions=positions(take_tokens(centres, order)),
            rng=_key(self),
        )
        tokens = layer_norm(dtype, "norm", 1e-5)(x[:, k:])
        head = Dense(3 * group_size, kernel_init=torch_default, dtype=dtype, name="head")
        prediction = head(tokens).astype(jnp.float32).reshape(*tokens.shape[:2], group_size, 3)
        return {"blocks": blocks, "tokens": tokens, "prediction": prediction}
