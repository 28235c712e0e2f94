"""A tokenizer as a frozen teacher: every token of the input gets its code (BEiT)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.systems.system import Restore
from maskjax.systems.tokenizers import VQTokenizer
from maskjax.tokens import TokenGrid, unpatchify


@dataclasses.dataclass(frozen=True)
class CodeTeacher:
    """Gives the codes of an image that a tokenizer sees as the student sees it: whole, augmented.

    Attributes:
      tokenizer: of an earlier run; one code for each token of the student.
    """

    tokenizer: VQTokenizer

    def check(self, student: TokenGrid) -> None:
        """Raises a UserError if there is not one code for every token of the student."""
        codes = self.tokenizer.grid(student)
        if codes.shape != student.shape:
            here, there = ("x".join(map(str, g.shape)) for g in (codes, student))
            raise UserError(
                f"The tokenizer gives {here} codes and the student has {there} tokens, but a code "
                "is needed for every token: change the student's patch_size, or the levels of the "
                "tokenizer."
            )

    def init(self, rng: jax.Array, student: TokenGrid) -> Any:
        """Returns random weights, which `load` replaces."""
        return self.tokenizer.init(rng, student)

    def load(self, params: Any, restore: Restore) -> Any:
        """Returns the weights of the tokenizer's run.

        Raises:
          UserError: no run is named, it does not exist, or its networks are other ones.
        """
        return self.tokenizer.load(params, restore)

    def __call__(
        self, params: Any, out: Mapping[str, Any], student: TokenGrid, mask: Mask | None
    ) -> dict[str, Any]:
        """Returns `codes`, int32 [B, N].

        Args:
          params: of the tokenizer.
          out: with `patches` [B, N, P], normalised as the images that the tokenizer learned from.
          student: geometry of the student's tokens.
          mask: has no influence: the tokenizer sees everything.
        """
        del mask
        view = unpatchify(out["patches"].astype(jnp.float32), student)
        codes = self.tokenizer.encode(params, view, student)
        return {"codes": jax.lax.stop_gradient(codes)}
