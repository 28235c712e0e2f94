"""The decoder of SimMIM and BEiT: a linear layer on the tokens of an encoder that saw them all."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models.layers import KERNEL_INITS, Dense, chosen
from maskjax.models.precision import compute_dtype
from maskjax.tokens import TokenGrid

ORDERS = ("patch", "channel_slowest")


class LinearHead(nn.Module):
    """Predicts every position from the encoder's token there (Xie et al., 2022, section 3.3).

    The encoder must have tokens at all positions, hidden ones too (`ViT(mask_token=True)`).

    Attributes:
      order: how the layer's outputs lie within a patch: "patch" is the order of the targets,
        channel fastest; "channel_slowest" is that of a 1 x 1 convolution followed by PixelShuffle,
        as in SimMIM's code: (channel, row, column). Only exchanged weights depend on it.
      init_kernel: a name of `layers.KERNEL_INITS`.
      dtype: of the computation, see `compute_dtype`.
    """

    order: str = "patch"
    init_kernel: str = "xavier"
    dtype: str = "auto"

    @nn.compact
    def __call__(
        self, tokens: jax.Array, grid: TokenGrid, mask: Mask, outputs: int
    ) -> dict[str, Any]:
        """Predicts `outputs` values for every position.

        Args:
          tokens: [B, N, E] in raster order, or [B, 1 + N, E] with a class token first.
          grid: geometry of all N positions.
          mask: has no influence.
          outputs: values per token.

        Returns:
          `prediction`, float32 [B, N, outputs] in raster order, masked or not.

        Raises:
          UserError: the encoder left tokens out, or the order is none of `ORDERS`.
        """
        del mask
        n = grid.num_tokens
        if tokens.shape[1] < n:
            raise UserError(
                "A linear head predicts from the token of each position, but the encoder left "
                f"{n - tokens.shape[1]} of {n} out: set system.encoder.mask_token=True."
            )
        if self.order not in ORDERS:
            raise UserError(f"order must be one of {', '.join(ORDERS)}, not '{self.order}'.")
        kernel = chosen(KERNEL_INITS, self.init_kernel, "init_kernel")
        dense = Dense(outputs, kernel_init=kernel, dtype=compute_dtype(self.dtype), name="linear")
        x = dense(tokens[:, -n:]).astype(jnp.float32)
        if self.order == "channel_slowest":
            pixels = math.prod(grid.patch)
            if outputs % pixels:
                raise UserError(
                    f"order='channel_slowest' is for pixels, but the target has {outputs} values "
                    f"for a patch of {pixels} pixels: set system.decoder.order=patch."
                )
            x = x.reshape(*x.shape[:2], outputs // pixels, pixels).swapaxes(2, 3)
            x = x.reshape(*x.shape[:2], outputs)
        return {"prediction": x}
