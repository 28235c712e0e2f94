"""How the tokens of each modality become vectors: patches, words, maps of classes.

Beside the layer itself, an embedder knows everything about tokens of its kind: their geometry, how
a batch is cut into them, and which of them are padding.
"""

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.data import ClassMap, Input, Text
from maskjax.errors import UserError
from maskjax.models.layers import Dense, xavier
from maskjax.tokens import TokenGrid, patchify


class PatchEmbedding(nn.Module):
    """Patches of continuous values (images, depth, near infrared, ...), by one linear layer.

    Attributes:
      patch_size: extent of a patch along each axis of the input.
    """

    patch_size: tuple[int, ...] = (16, 16)

    categories = None  # the values are continuous

    def grid(self, each: Input, size: tuple[int, ...] | None = None) -> TokenGrid:
        """Returns the geometry of the tokens of an input (of another `size`)."""
        return TokenGrid.of(size or each.size, self.patch_size, each.channels)

    def fitted(self, each: Input) -> "PatchEmbedding":
        """Returns itself."""
        del each
        return self

    def check(self, name: str, each: Input) -> None:
        """Refuses text."""
        if each.view == "text":
            raise UserError(
                f"The input '{name}' is text, which has no patches: embed it by "
                "models.WordEmbedding."
            )

    def tokenise(self, each: Input, values: jax.Array, grid: TokenGrid) -> jax.Array:
        """Returns the normalised patches of a batch's array, float32 [B, N, P]."""
        return patchify(each.normalise(values), grid)

    def valid(self, each: Input, tokens: jax.Array) -> jax.Array | None:
        """No patch is padding."""
        del each, tokens

    @nn.compact
    def __call__(self, tokens: jax.Array, width: int, dtype: Any) -> jax.Array:
        """float [B, N, P] -> [B, N, width]."""
        return Dense(width, kernel_init=xavier, dtype=dtype, name="proj")(tokens)


class WordEmbedding(nn.Module):
    """Words or pieces of words by their ids.

    Attributes:
      vocabulary: how many ids there are, padding included; None: as many as the tokenizer of the
        input has (a system sets it).
    """

    vocabulary: int | None = None

    @property
    def categories(self) -> int | None:
        """How many numbers a place can have."""
        return self.vocabulary

    def fitted(self, each: Text) -> "WordEmbedding":
        """Returns the embedder with the vocabulary of the input."""
        return self.clone(vocabulary=each.vocabulary_size) if self.vocabulary is None else self

    def grid(self, each: Input, size: tuple[int, ...] | None = None) -> TokenGrid:
        """Returns the geometry: as many tokens as the text has places."""
        return TokenGrid.of(size or each.size, (1,), 1)

    def check(self, name: str, each: Input) -> None:
        """Refuses what is no text, and text with another number of ids."""
        if each.view != "text":
            raise UserError(
                f"The input '{name}' is no text but a data.{type(each).__name__}: "
                "models.WordEmbedding needs a data.Text with a tokenizer."
            )
        size = cast(Text, each).vocabulary_size
        if self.vocabulary not in (None, size):
            raise UserError(
                f"The tokenizer of the input '{name}' has {size} ids but "
                f"system.encoder.embedders.{name}.vocabulary is {self.vocabulary}: set it to "
                f"{size}, or to None."
            )

    def tokenise(self, each: Input, values: jax.Array, grid: TokenGrid) -> jax.Array:
        """int32 [B, L], unchanged."""
        del each, grid
        return values

    def valid(self, each: Text, tokens: jax.Array) -> jax.Array:
        """Returns bool [B, L], False at paddings."""
        return tokens != each.pad

    @nn.compact
    def __call__(self, tokens: jax.Array, width: int, dtype: Any) -> jax.Array:
        """int32 [B, L] -> [B, L, width]."""
        table = self.param("table", nn.initializers.normal(1.0), (self.vocabulary, width))
        return table[tokens].astype(dtype)


class ClassEmbedding(nn.Module):
    """Patches of a map of class numbers: a vector per class, then one linear layer (MultiMAE).

    Attributes:
      patch_size: extent of a patch in pixels of the map.
      classes: number of classes; None: as many as the input has (a system sets it).
      class_width: of the vector of a class.
    """

    patch_size: tuple[int, ...] = (4, 4)
    classes: int | None = None
    class_width: int = 64

    @property
    def categories(self) -> int | None:
        """How many numbers a place can have."""
        return self.classes

    def fitted(self, each: ClassMap) -> "ClassEmbedding":
        """Returns the embedder with the classes of the input."""
        return self.clone(classes=each.classes) if self.classes is None else self

    def grid(self, each: Input, size: tuple[int, ...] | None = None) -> TokenGrid:
        """Returns the geometry of the tokens of an input (of another `size`)."""
        return TokenGrid.of(size or each.size, self.patch_size, 1)

    def check(self, name: str, each: Input) -> None:
        """Refuses what is no map of as many classes."""
        if not hasattr(each, "classes"):
            raise UserError(
                f"The input '{name}' is no map of classes but a data.{type(each).__name__}: "
                "models.ClassEmbedding needs a data.ClassMap."
            )
        if self.classes not in (None, each.classes):
            raise UserError(
                f"The input '{name}' has {each.classes} classes but "
                f"system.encoder.embedders.{name}.classes is {self.classes}: set it to "
                f"{each.classes}, or to None."
            )

    def tokenise(self, each: Input, values: jax.Array, grid: TokenGrid) -> jax.Array:
        """Integers [B, H, W] or [B, H, W, 1] -> int32 [B, N, P], the classes in every patch."""
        del each
        return patchify(values.astype(jnp.int32).reshape(*values.shape[:3], 1), grid)

    def valid(self, each: Input, tokens: jax.Array) -> jax.Array | None:
        """No patch is padding."""
        del each, tokens

    @nn.compact
    def __call__(self, tokens: jax.Array, width: int, dtype: Any) -> jax.Array:
        """int32 [B, N, P] -> [B, N, width]."""
        init = nn.initializers.truncated_normal(0.02)
        table = self.param("table", init, (self.classes, self.class_width))
        pixels = table[tokens].astype(dtype).reshape(*tokens.shape[:2], -1)
        return Dense(width, kernel_init=xavier, dtype=dtype, name="proj")(pixels)
