"""Masking text: whole words within a budget, and the attention masks of enhanced decoding.

Texts of a batch have different lengths, so the number of masked tokens varies from row to row. All
shapes are static: what varies is which of the K slots of a row are `valid`.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from maskjax.errors import UserError
from maskjax.tokens import take_tokens


@flax.struct.dataclass
class Words:
    """What masking needs to know of a batch of texts.

    Attributes:
      start: int32 [B, L], place of the first token of the word that a token belongs to.
      candidate: bool [B, L], whether a token may be masked: not padding, nor a special token.
      real: bool [B, L], whether a token is not padding.
    """

    start: jax.Array
    candidate: jax.Array
    real: jax.Array


@flax.struct.dataclass
class WordMask:
    """Which tokens of a text are to be predicted, and what the model sees in their places.

    Attributes:
      inputs: int32 [B, L], the ids that the model sees.
      is_masked: bool [B, L], 1 = to be predicted.
      indices: int32 [B, K], places of the masked tokens in their order, then other places.
      valid: bool [B, K], which of the indices are masked tokens.
    """

    inputs: jax.Array
    is_masked: jax.Array
    indices: jax.Array
    valid: jax.Array


@flax.struct.dataclass
class AttentionMask:
    """A few masks of a text, of which every row of attention takes one.

    Attributes:
      hidden: bool [B, M, L], the masks.
      choice: int32 [B, L], the mask that row i of attention takes.
      real: bool [B, L], which tokens are not padding.
    """

    hidden: jax.Array
    choice: jax.Array
    real: jax.Array

    @property
    def attend(self) -> jax.Array:
        """bool [B, L, L], True where row i may attend to column j: never to itself nor padding."""
        hidden = take_tokens(self.hidden, self.choice)
        length = self.real.shape[1]
        other = ~jnp.eye(length, dtype=bool)[None, :, :]
        return ~hidden & other & self.real[:, :, None] & self.real[:, None, :]


def find_words(
    ids: jax.Array,
    special: tuple[int, ...],
    pad: int,
    joins_left: np.ndarray,
    joins_right: np.ndarray,
) -> Words:
    """Groups tokens into words.

    Args:
      ids: int [B, L].
      special: ids that are never masked, padding included.
      pad: id of padding.
      joins_left: bool [V], ids that continue the word before them, if ...
      joins_right: bool [V]: ... the id before them can be continued.
    """
    candidate = (ids[:, :, None] != jnp.asarray(special)[None, None, :]).all(axis=-1)
    left, right = jnp.asarray(joins_left)[ids], jnp.asarray(joins_right)[ids]
    joined = left[:, 1:] & right[:, :-1] & candidate[:, 1:] & candidate[:, :-1]
    joined = jnp.pad(joined, ((0, 0), (1, 0)))
    places = jnp.arange(ids.shape[1], dtype=jnp.int32)[None, :]
    start = jax.lax.cummax(jnp.where(joined, 0, places), axis=1)
    return Words(start, candidate, ids != pad)


def word_budgets(length: int, ratio: float, most: int) -> np.ndarray:
    """Returns the number of tokens to mask for texts of 0..length tokens, int32 [length + 1].

    It is min(most, max(1, round(ratio * n))), where n counts the special tokens and halves are
    rounded to even numbers, as the reference has it.
    """
    budgets = [min(most, max(1, round(ratio * n))) for n in range(length + 1)]
    return np.asarray(budgets, np.int32)


def choose_words(scores: jax.Array, words: Words, budget: jax.Array) -> jax.Array:
    """Masks whole words in the order of their scores until the budget is spent.

    A word that would overshoot the budget is left out, and shorter ones after it may still fit.

    Args:
      scores: float [B, M, L]; a word has the score of its first token.
      words: of the texts.
      budget: int [B], tokens that each mask may hide.

    Returns:
      bool [B, M, L].
    """
    batch, length = words.start.shape
    rows = jnp.arange(batch)[:, None]
    size = jnp.zeros((batch, length), jnp.int32)
    size = size.at[rows, words.start].add(words.candidate.astype(jnp.int32))
    # A place where no word begins has size 0: whatever its rank, it is not taken.
    order = jnp.argsort(scores, axis=-1)
    sizes = jnp.take_along_axis(jnp.broadcast_to(size[:, None, :], order.shape), order, axis=-1)

    def take(spent: jax.Array, sizes: jax.Array) -> tuple[jax.Array, jax.Array]:
        fits = (sizes > 0) & (spent + sizes <= budget[:, None])
        return spent + jnp.where(fits, sizes, 0), fits

    first = jnp.zeros(order.shape[:2], jnp.int32)
    _, taken = jax.lax.scan(take, first, jnp.moveaxis(sizes, -1, 0))
    taken = jnp.moveaxis(taken, 0, -1)
    ranks = jnp.argsort(order, axis=-1)
    starts = jnp.broadcast_to(words.start[:, None, :], order.shape)
    ranks = jnp.take_along_axis(ranks, starts, axis=-1)
    return jnp.take_along_axis(taken, ranks, axis=-1) & words.candidate[:, None, :]


def _check_ratio(ratio: float) -> None:
    if not 0 < ratio < 1:
        raise UserError(f"The ratio of masked tokens must be between 0 and 1, not {ratio}.")


@dataclasses.dataclass(frozen=True)
class WholeWords:
    """BERT's masked language modelling with whole words (Devlin et al., 2019).

    Attributes:
      ratio: share of the tokens of a text that is masked; RetroMAE's encoder has 0.3.
      most: tokens that are masked at most.
      whole: whether words are masked as wholes, or single tokens.
      replaced: share of the masked tokens that the model sees as [MASK], ...
      random: ... and as a random id; the others it sees as they are.

    Raises:
      UserError: shares that are none.
    """

    ratio: float = 0.3
    most: int = 512
    whole: bool = True
    replaced: float = 0.8
    random: float = 0.1

    def __post_init__(self) -> None:
        _check_ratio(self.ratio)
        if min(self.replaced, self.random) < 0 or self.replaced + self.random > 1:
            raise UserError(
                f"The shares of masked tokens that are replaced ({self.replaced}) or random "
                f"({self.random}) must not be negative, and together at most 1."
            )

    def __call__(
        self, rng: jax.Array, ids: jax.Array, words: Words, mask_id: int, vocabulary: int
    ) -> WordMask:
        """Draws a mask per example.

        Args:
          rng: a key.
          ids: int32 [B, L].
          words: of these ids.
          mask_id: id of [MASK].
          vocabulary: V, random ids are below it.
        """
        order_rng, kind_rng, id_rng = jax.random.split(rng, 3)
        length = ids.shape[1]
        budgets = word_budgets(length, self.ratio, self.most)
        if not self.whole:
            places = jnp.arange(length, dtype=jnp.int32)[None, :]
            words = dataclasses.replace(words, start=jnp.broadcast_to(places, ids.shape))
        scores = jax.random.uniform(order_rng, (ids.shape[0], 1, length))
        budget = jnp.asarray(budgets)[words.real.sum(axis=1)]
        is_masked = choose_words(scores, words, budget)[:, 0]
        kind = jax.random.uniform(kind_rng, ids.shape)
        drawn = jax.random.randint(id_rng, ids.shape, 0, vocabulary, ids.dtype)
        seen = jnp.where(kind < self.replaced + self.random, drawn, ids)
        seen = jnp.where(kind < self.replaced, jnp.asarray(mask_id, ids.dtype), seen)
        return masked_words(jnp.where(is_masked, seen, ids), is_masked, int(budgets[-1]))


def masked_words(inputs: jax.Array, is_masked: jax.Array, slots: int) -> WordMask:
    """Builds the mask out of what the model sees and what is masked, [B, L] each; K = `slots`."""
    indices = jnp.argsort(~is_masked, axis=-1, stable=True)[:, :slots].astype(jnp.int32)
    return WordMask(inputs, is_masked, indices, take_tokens(is_masked, indices))


@dataclasses.dataclass(frozen=True)
class EnhancedDecoding:
    """The masks of RetroMAE's decoder (Xiao et al., 2022, section 3.3): every row has its own.

    Some masks of whole words are drawn for each text, and every row of attention takes one of them;
    it never sees its own token. Special tokens are seen by all rows but their own.

    Attributes:
      ratio: share of the tokens that each mask hides.
      masks: drawn for each text; a text of fewer tokens has one for each token.
      most: tokens that a mask hides at most.
    """

    ratio: float = 0.5
    masks: int = 256
    most: int = 512

    def __post_init__(self) -> None:
        _check_ratio(self.ratio)
        if self.masks < 1:
            raise UserError(f"Enhanced decoding needs at least one mask, not {self.masks}.")

    def __call__(self, rng: jax.Array, words: Words) -> AttentionMask:
        """Draws the masks of a batch of texts."""
        score_rng, choice_rng = jax.random.split(rng)
        batch, length = words.start.shape
        masks = min(length, self.masks)
        lengths = words.real.sum(axis=1)
        budget = jnp.asarray(word_budgets(length, self.ratio, self.most))[lengths]
        hidden = choose_words(jax.random.uniform(score_rng, (batch, masks, length)), words, budget)
        available = jnp.clip(lengths, 1, masks)
        choice = jax.random.randint(choice_rng, (batch, length), 0, available[:, None], jnp.int32)
        return AttentionMask(hidden, choice, words.real)
