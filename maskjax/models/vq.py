"""A convolutional autoencoder with a discrete bottleneck (VQ-VAE: van den Oord et al., 2017).

The networks follow VQGAN (Esser et al., 2021): residual blocks with group norm and SiLU, without
its attention. The codebook is a moving average of what is assigned to each code.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.models.layers import Dense
from maskjax.models.precision import compute_dtype
from maskjax.parallel.sharding import constrain_batch
from maskjax.tokens import TokenGrid, patchify, unpatchify


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm x))))), with a linear shortcut where the width changes."""

    width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, C] -> [B, h, w, width]."""
        y = x = constrain_batch(x)
        for i in (1, 2):
            y = nn.silu(_group_norm(y.shape[-1], self.dtype, f"norm{i}")(y))
            y = nn.Conv(self.width, (3, 3), dtype=self.dtype, name=f"conv{i}")(y)
        if x.shape[-1] != self.width:
            x = Dense(self.width, use_bias=False, dtype=self.dtype, name="shortcut")(x)
        return constrain_batch(x + y)


class VQEncoder(nn.Module):
    """Images to one vector per token, before quantisation.

    Attributes:
      width: channels of the first level.
      multipliers: channels of every level, as multiples of `width`; each level but the last halves
        height and width.
      blocks: residual blocks of every level.
      latent_width: D, of the vectors.
      stem: pixels of a side that become channels before the first convolution; 1: none.
      dtype: of the computation, see `compute_dtype`.
    """

    width: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks: int = 2
    latent_width: int = 256
    stem: int = 1
    dtype: str = "auto"

    @property
    def patch_size(self) -> tuple[int, int]:
        """Pixels that a token stands for; those that it sees are more."""
        side = self.stem * 2 ** (len(self.multipliers) - 1)
        return side, side

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """float [B, H, W, C] -> float32 [B, N, D], tokens in raster order."""
        dtype = compute_dtype(self.dtype)
        b, height, width, channels = images.shape
        grid = TokenGrid.of((height, width), (self.stem, self.stem), channels)
        x = patchify(images, grid).reshape(b, *grid.shape, grid.values_per_token)
        x = nn.Conv(self.width, (3, 3), dtype=dtype, name="first")(x)
        for level, multiplier in enumerate(self.multipliers):
            if level:
                x = nn.Conv(x.shape[-1], (3, 3), strides=(2, 2), dtype=dtype, name=f"down{level}")(
                    x
                )
            for i in range(self.blocks):
                x = ResidualBlock(self.width * multiplier, dtype, name=f"block{level}_{i}")(x)
        x = nn.silu(_group_norm(x.shape[-1], dtype, "norm")(x))
        x = Dense(self.latent_width, dtype=dtype, name="last")(x)
        return x.astype(jnp.float32).reshape(b, -1, self.latent_width)


class VQDecoder(nn.Module):
    """Vectors of codes to images, the mirror image of `VQEncoder`; attributes as there."""

    width: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks: int = 2
    stem: int = 1
    dtype: str = "auto"

    @nn.compact
    def __call__(self, latents: jax.Array, grid: TokenGrid) -> jax.Array:
        """[B, N, D] in raster order -> float32 [B, *grid.size, C], where C = `grid.channels`."""
        dtype = compute_dtype(self.dtype)
        x = latents.astype(dtype).reshape(latents.shape[0], *grid.shape, -1)
        x = nn.Conv(self.width * self.multipliers[-1], (3, 3), dtype=dtype, name="first")(x)
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            for i in range(self.blocks):
                x = ResidualBlock(self.width * multiplier, dtype, name=f"block{level}_{i}")(x)
            if level:
                x = x.repeat(2, axis=1).repeat(2, axis=2)
                x = nn.Conv(x.shape[-1], (3, 3), dtype=dtype, name=f"up{level}")(x)
        x = nn.silu(_group_norm(x.shape[-1], dtype, "norm")(x))
        x = nn.Conv(self.stem**2 * grid.channels, (3, 3), dtype=dtype, name="last")(x)
        x = x.astype(jnp.float32).reshape(x.shape[0], -1, x.shape[-1])
        return unpatchify(x, TokenGrid.of(grid.size, (self.stem, self.stem), grid.channels))


def nearest_code(latents: jax.Array, table: jax.Array) -> jax.Array:
    """Returns the code whose vector is nearest: float [B, N, D] and [V, D] -> int32 [B, N]."""
    # Accelerators would round the factors to bfloat16, and neighbouring codes would change places.
    products = jnp.einsum("bnd,vd->bnv", latents, table, precision=jax.lax.Precision.HIGHEST)
    # The square of the latent is the same for every code.
    distances = (table**2).sum(axis=-1)[None, None, :] - 2 * products
    return jnp.argmin(distances, axis=-1).astype(jnp.int32)


def straight_through(latents: jax.Array, quantised: jax.Array) -> jax.Array:
    """Returns `quantised`, with the gradient of the identity with respect to `latents`."""
    return latents + jax.lax.stop_gradient(quantised - latents)


@dataclasses.dataclass(frozen=True)
class Codebook:
    """Vectors that follow the means of what is assigned to them (van den Oord et al., 2017, A.1).

    Codes that fall out of use are put on random latents of the batch (Dhariwal et al., 2020,
    Jukebox), all of them in the first step.

    Attributes:
      size: V, the number of codes.
      decay: of the moving averages.
      restart: a code is out of use when it is assigned to fewer latents than this share of what it
        would get if all were used equally; 0: codes are never put elsewhere.
    """

    size: int = 1024
    decay: float = 0.99
    restart: float = 0.03

    def __post_init__(self) -> None:
        if self.size < 2:
            raise UserError(f"A codebook of {self.size} codes says nothing: give at least two.")
        if not 0 <= self.decay < 1:
            raise UserError(f"The decay of a codebook is {self.decay}: it has to be in [0, 1).")

    def init(self, rng: jax.Array, width: int) -> dict[str, jax.Array]:
        """Returns `table` [V, D], `sums` [V, D] and `counts` [V], the averages behind it."""
        table = jax.random.normal(rng, (self.size, width)) / math.sqrt(width)
        # With no restarts the first vectors have to weigh something.
        counts = jnp.full((self.size,), 0.0 if self.restart else 1.0)
        return {"table": table, "sums": table * counts[:, None], "counts": counts}

    def update(
        self, state: dict[str, jax.Array], latents: jax.Array, codes: jax.Array, rng: Any
    ) -> dict[str, jax.Array]:
        """Returns the state after a batch.

        Args:
          state: as `init` returns it.
          latents: float32 [B, N, D].
          codes: int32 [B, N], the nearest.
          rng: a key.
        """
        flat = jax.lax.stop_gradient(latents).reshape(-1, latents.shape[-1])
        assigned = codes.reshape(-1)
        counts = jnp.zeros((self.size,)).at[assigned].add(1.0)
        sums = jnp.zeros_like(state["sums"]).at[assigned].add(flat)
        counts = self.decay * state["counts"] + (1 - self.decay) * counts
        sums = self.decay * state["sums"] + (1 - self.decay) * sums
        if self.restart:
            equal = flat.shape[0] / self.size
            unused = counts < self.restart * equal
            chosen = flat[jax.random.randint(rng, (self.size,), 0, flat.shape[0])]
            counts = jnp.where(unused, equal, counts)
            sums = jnp.where(unused[:, None], chosen * equal, sums)
        return {"table": sums / counts[:, None], "sums": sums, "counts": counts}


def _group_norm(channels: int, dtype: jnp.dtype, name: str) -> nn.GroupNorm:
    """Group norm of 32 groups, or of the most that divide a narrower layer."""
    return nn.GroupNorm(math.gcd(32, channels), epsilon=1e-6, dtype=dtype, name=name)
