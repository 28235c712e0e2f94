"""What every target is."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeGuard

import jax

from maskjax.tokens import TokenGrid


class Target(Protocol):
    """What is predicted at every token, computed from the outputs of a system so far.

    `out` has `patches` [B, N, P] in the model's units, `pixels` [B, N, P] in [0, 1], `teachers` and
    whatever else a system computes before its targets.
    """

    def check(self, grid: TokenGrid) -> None:
        """Raises a UserError if the tokens have no such target."""
        ...

    def size(self, grid: TokenGrid) -> int:
        """Returns the number of values that a prediction needs at each token."""
        ...

    def __call__(self, out: Mapping[str, Any], grid: TokenGrid) -> jax.Array:
        """Returns the target of every token, [B, N, size] or int [B, N]; not differentiated."""
        ...


class PictureTarget(Target, Protocol):
    """A target that a picture can show.

    Attributes:
      uses_target_statistics: whether `invert` reads the true patches, so that a picture shows more
        than was predicted.
    """

    uses_target_statistics: bool

    def invert(self, prediction: jax.Array, out: Mapping[str, Any]) -> jax.Array:
        """Returns what was predicted in the units of `out["patches"]`, [B, N, P]."""
        ...


def shows_pictures(target: Target) -> TypeGuard[PictureTarget]:
    """Returns whether a picture can show the target."""
    return hasattr(target, "invert")
