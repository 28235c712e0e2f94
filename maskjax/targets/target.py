"""What every target is."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax

from maskjax.tokens import TokenGrid


class Target(Protocol):
    """What is predicted at every token, computed from the outputs of a system so far.

    `out` has `patches` [B, N, P] in the model's units, `pixels` [B, N, P] in [0, 1], `teachers` and
    whatever else a system computes before its targets. A target that a picture can show also has
    `invert(prediction, out) -> [B, N, P]`, in the units of `out["patches"]`, and
    `uses_target_statistics`: whether `invert` reads the true patches, so that a picture shows more
    than was predicted.
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
