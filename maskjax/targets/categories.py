"""Numbers of a finite set as the target: words of a text, classes of a map."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.tokens import TokenGrid


@dataclasses.dataclass(frozen=True)
class Categories:
    """The number at every place of a token, for a cross-entropy; the decoder predicts logits.

    Attributes:
      count: how many numbers there are: ids of a vocabulary, classes of a map. None: as many as
        the input has (a system sets it).
    """

    count: int | None = None

    # `invert` returns what the model alone has guessed.
    uses_target_statistics = False

    def check(self, grid: TokenGrid) -> None:
        """Refuses a choice of one."""
        del grid
        if self.count is None or self.count < 2:
            raise UserError(f"targets.Categories needs a count of at least 2, not {self.count}.")

    def size(self, grid: TokenGrid) -> int:
        """Returns the logits per token: `count` for each of its places."""
        assert self.count is not None  # a system has set it
        return grid.values_per_token * self.count

    def __call__(self, out: Mapping[str, Any], grid: TokenGrid) -> jax.Array:
        """Returns int32 [B, N, P], from `out["patches"]` [B, N] or [B, N, P]."""
        numbers = out["patches"].astype(jnp.int32)
        return numbers.reshape(*numbers.shape[:2], grid.values_per_token)

    def invert(self, prediction: jax.Array, out: Mapping[str, Any]) -> jax.Array:
        """Returns the likeliest numbers, int32 [B, N, P], of logits [B, N, P count]."""
        del out
        logits = prediction.reshape(*prediction.shape[:2], -1, self.count)
        return logits.argmax(axis=-1).astype(jnp.int32)
