"""Features of a teacher as the target (e.g. Liu et al., 2024, dBOT; Gao et al., 2023, MR-MAE)."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.paths import get_path
from maskjax.tokens import TokenGrid


def _layer_norm(x: jax.Array) -> jax.Array:
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-5)


def _standardise(x: jax.Array) -> jax.Array:
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True, ddof=1)
    return (x - mean) / jnp.sqrt(variance + 1e-6)


def _l2(x: jax.Array) -> jax.Array:
    square = (x**2).sum(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


# How the D values of a token are normalised before they are compared. "layer_norm": the biased
# variance and 1e-5, without affine parameters; "standardise": the unbiased one and 1e-6 (dBOT);
# "l2": to unit length, which is at least 1e-12 (DMAE).
NORMALISERS: dict[str | None, Callable[[jax.Array], jax.Array]] = {
    None: lambda x: x,
    "layer_norm": _layer_norm,
    "standardise": _standardise,
    "l2": _l2,
}


def check_normaliser(name: str | None) -> None:
    """Raises a UserError if there is no such normalisation of features."""
    if name not in NORMALISERS:
        known = ", ".join(repr(n) for n in NORMALISERS if n)
        raise UserError(f"normalise is None or one of {known}, not '{name}'.")


@dataclasses.dataclass(frozen=True)
class Features:
    """What a network made of the input, at every token. There is no way back to pixels.

    Attributes:
      path: of the features in the outputs, e.g. "teachers.teacher.blocks.-1", [B, N, D], or
        [B, 1 + N, D] with the class token first.
      width: D; as many values a token does the decoder predict.
      normalise: each token's values: None, "layer_norm", "standardise" or "l2", see `NORMALISERS`.
      class_token: whether the class token stays, if the features have one; the target then has
        1 + N tokens.
    """

    path: str
    width: int
    normalise: str | None = None
    class_token: bool = False

    def __post_init__(self) -> None:
        check_normaliser(self.normalise)

    def check(self, grid: TokenGrid) -> None:
        """Any grid will do; whether the path exists is seen in the first pass."""

    def size(self, grid: TokenGrid) -> int:
        """Returns D."""
        del grid
        return self.width

    def __call__(self, out: Mapping[str, Any], grid: TokenGrid) -> jax.Array:
        """Returns float32 [B, N, D], or [B, 1 + N, D] with the class token.

        Raises:
          UserError: no such path, another width, or another number of tokens than the grid has.
        """
        x = jax.lax.stop_gradient(get_path(out, self.path)).astype(jnp.float32)
        n = grid.num_tokens
        if x.ndim != 3 or x.shape[1] not in (n, n + 1):
            raise UserError(
                f"'{self.path}' has the shape {x.shape}, but a target needs [B, N, D] with "
                f"N = {n} tokens: choose features of every token of the whole input."
            )
        if x.shape[2] != self.width:
            raise UserError(
                f"'{self.path}' is {x.shape[2]} wide, the target says {self.width}: set the "
                f"target's width to {x.shape[2]}."
            )
        if self.class_token and x.shape[1] == n:
            raise UserError(
                f"'{self.path}' has no class token: set class_token of the target to False, or "
                "choose features that have one."
            )
        if x.shape[1] == n + 1 and not self.class_token:
            x = x[:, 1:]
        return NORMALISERS[self.normalise](x)
