"""Text as an input: sentences to ids of one length."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from maskjax.data.unvaried import Unvaried
from maskjax.data.vocabulary import BYTES, CLS, MASK, PAD, SEP, Vocabulary, load_vocabulary
from maskjax.errors import UserError

CROPS = ("start", "random")
_RAW_FEATURES = 8192  # words of larger vocabularies share features of the baseline


@dataclasses.dataclass(frozen=True)
class Text(Unvaried):
    """Ids int32 [length]: [CLS], the text, [SEP], and padding behind. Records give strings.

    A record may also give several strings that say the same (captions of a picture): training
    takes one at random, evaluation the first. The tokenizer is read when it is first needed, once
    in each process; the input itself holds only its name.

    Attributes:
      length: L, ids of an example, special tokens included.
      tokenizer: path of a JSON file of the library `tokenizers`, e.g. one that
        `python -m maskjax.tokenizer` wrote, or "bytes".
      crop: what is read of a longer text: its "start", or in training a "random" stretch.
      pad_token: name of the padding in the tokenizer.
      cls_token: what stands before the text; None: nothing.
      sep_token: what stands behind it; None: nothing.
      mask_token: what replaces masked tokens; None: nothing can.
      optional: whether records may lack it.

    Raises:
      UserError: a length too small, an unknown crop, or no such tokenizer.
    """

    length: int = 128
    tokenizer: str = BYTES
    crop: str = "start"
    pad_token: str = PAD
    cls_token: str | None = CLS
    sep_token: str | None = SEP
    mask_token: str | None = MASK
    optional: bool = False

    view = "text"
    dtype = np.dtype(np.int32)

    def __post_init__(self) -> None:
        if self.length <= self._ends:
            raise UserError(
                f"The length of a text is {self.length}: it has to be more than {self._ends}, "
                "the tokens at its ends."
            )
        if self.crop not in CROPS:
            raise UserError(f"crop must be one of {', '.join(CROPS)}, not '{self.crop}'.")
        for name in filter(None, (self.pad_token, *self._special)):
            self.vocabulary.id(name)

    @property
    def size(self) -> tuple[int, ...]:
        """(length,)."""
        return (self.length,)

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer and its tables."""
        return load_vocabulary(self.tokenizer)

    @property
    def vocabulary_size(self) -> int:
        """V, the number of ids."""
        return len(self.vocabulary)

    @property
    def pad(self) -> int:
        """Id of padding."""
        return self.vocabulary.id(self.pad_token)

    @property
    def mask(self) -> int:
        """Id that replaces masked tokens.

        Raises:
          UserError: `mask_token` is None.
        """
        if self.mask_token is None:
            raise UserError("Masking text needs a token to mask with: set mask_token of the input.")
        return self.vocabulary.id(self.mask_token)

    @property
    def special(self) -> tuple[int, ...]:
        """Ids of padding and of the tokens at the ends, which are never masked nor words."""
        return tuple(self.vocabulary.id(t) for t in (self.pad_token, *self._special[:2]) if t)

    def read(
        self, value: str | bytes | Iterable[str], rng: np.random.Generator | None
    ) -> np.ndarray:
        """A string, or several of which one is taken -> int32 [length]."""
        if not isinstance(value, str | bytes):
            several = list(value)
            value = several[0 if rng is None else rng.integers(len(several))]
        text = value.decode() if isinstance(value, bytes) else str(value)
        ids = self.vocabulary.encode(text)
        room = self.length - self._ends
        first = 0
        if self.crop == "random" and rng is not None and len(ids) > room:
            first = int(rng.integers(len(ids) - room + 1))
        before, behind = ([self.vocabulary.id(t)] if t else [] for t in self._special[:2])
        ids = before + ids[first : first + room] + behind
        out = np.full(self.length, self.pad, np.int32)
        out[: len(ids)] = ids
        return out

    def batch(self, texts: Iterable[str]) -> np.ndarray:
        """Returns the ids of some texts, int32 [B, length], as `encode` of a loaded run takes."""
        return np.stack([self.read(text, None) for text in texts])

    def decode(self, ids: np.ndarray) -> str:
        """Returns the text of ids [L], without special tokens."""
        return self.vocabulary.decode([int(i) for i in ids])

    def raw(self, values: np.ndarray) -> np.ndarray:
        """Bag of words: log(1 + count) of every id but the special ones, float32 [B, F].

        F is the size of the vocabulary, at most 8192: beyond, ids that are equal modulo 8192
        share a feature.
        """
        values = np.asarray(values)
        features = min(self.vocabulary_size, _RAW_FEATURES)
        counts = np.zeros((len(values), features), np.float32)
        rows = np.broadcast_to(np.arange(len(values))[:, None], values.shape)
        real = ~np.isin(values, self.special)
        np.add.at(counts, (rows[real], values[real] % features), 1)
        return np.log1p(counts)

    def accept(self, values: Any) -> None:
        """Wants integers [B, length] that the tokenizer knows."""
        if np.ndim(values) != 2 or np.shape(values)[1] != self.length:
            raise UserError(
                f"Text has the shape [B, {self.length}] here, not {tuple(np.shape(values))}: "
                "`batch` of the input makes it of strings."
            )
        if not np.issubdtype(values.dtype, np.integer):
            raise UserError(
                f"Text is given as integers, not {values.dtype}: `batch` of the input makes them."
            )
        values = np.asarray(values)
        if values.size and not 0 <= values.min() <= values.max() < self.vocabulary_size:
            raise UserError(
                f"Ids of text are from 0 to {self.vocabulary_size - 1}, not {values.min()} to "
                f"{values.max()}."
            )

    @property
    def _special(self) -> tuple[str | None, str | None, str | None]:
        return self.cls_token, self.sep_token, self.mask_token

    @property
    def _ends(self) -> int:
        return sum(token is not None for token in self._special[:2])
