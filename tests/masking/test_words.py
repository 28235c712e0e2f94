import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.masking import words
from maskjax.masking.words import EnhancedDecoding, WholeWords

PAD, CLS, SEP, MASK = 0, 2, 3, 4
V = 40
CONTINUES = np.arange(V) >= 30  # ids that continue a word
ORDINARY = np.arange(V) > 4

# Words: [10, 30, 31], [11], [12, 32], [13], [14] ... then padding.
LONG = [CLS, 10, 30, 31, 11, 12, 32, 13, 14, 33, 34, 35, 15, 16, 17, SEP]
SHORT = [CLS, 10, 11, 30, 12, SEP] + [PAD] * 10
IDS = jnp.asarray([LONG, SHORT] * 8, jnp.int32)


@functools.cache
def found():
    find = jax.jit(
        lambda ids: words.find_words(ids, (PAD, CLS, SEP), PAD, CONTINUES & ORDINARY, ORDINARY)
    )
    return jax.device_get(find(IDS))


def test_words_are_found():
    given = found()
    np.testing.assert_array_equal(
        given.start[0], [0, 1, 1, 1, 4, 5, 5, 7, 8, 8, 8, 8, 12, 13, 14, 15]
    )
    np.testing.assert_array_equal(given.start[1, :7], [0, 1, 2, 2, 4, 5, 6])
    np.testing.assert_array_equal(given.candidate[1], [False] + [True] * 4 + [False] * 11)
    np.testing.assert_array_equal(given.real.sum(axis=1)[:2], [16, 6])


def test_budget_rounds_halves_to_even_and_is_at_least_one():
    assert words.word_budgets(10, 0.25, 512).tolist() == [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2]
    assert words.word_budgets(100, 0.5, 7)[-1] == 7


def greedy(order, groups, budget):
    """The rule of the reference, word by word."""
    hidden = []
    for word in order:
        if len(hidden) >= budget:
            break
        if len(hidden) + len(groups[word]) <= budget:
            hidden += groups[word]
    return hidden


def test_words_are_chosen_in_order_and_skipped_if_too_long():
    given = found()
    scores = jax.random.uniform(jax.random.key(0), (16, 5, 16))
    budget = jnp.asarray([5, 2] * 8)
    chosen = np.asarray(choose(scores, given, budget))
    for b in range(16):
        groups = {}
        for place in np.flatnonzero(given.candidate[b]):
            groups.setdefault(int(given.start[b, place]), []).append(place)
        for m in range(5):
            order = sorted(groups, key=lambda start: float(scores[b, m, start]))
            expected = greedy(order, groups, int(budget[b]))
            np.testing.assert_array_equal(np.flatnonzero(chosen[b, m]), sorted(expected))


choose = jax.jit(words.choose_words)


def draw(sampler, times):
    sample = jax.jit(jax.vmap(lambda key: sampler(key, IDS, found(), MASK, V)))
    masks = jax.device_get(sample(jax.random.split(jax.random.key(0), times)))
    return [jax.tree.map(lambda leaf, i=i: leaf[i], masks) for i in range(times)]


def test_masked_tokens():
    sampler = WholeWords(ratio=0.3)
    masks = draw(sampler, 40)
    hidden = np.stack([m.is_masked for m in masks])
    assert not hidden[:, 0::2, [0, 15]].any() and not hidden[:, 1::2, 5:].any()
    assert hidden[:, 0::2].sum(axis=-1).max() == round(0.3 * 16) == 5
    assert hidden[:, 1::2].sum(axis=-1).max() == round(0.3 * 6) == 2
    np.testing.assert_array_equal(hidden[..., 0::2, 1], hidden[..., 0::2, 3])  # one word
    assert len(np.unique(hidden.reshape(-1, 16), axis=0)) > 20
    for mask in masks[:3]:
        assert mask.indices.shape == (16, 5)
        assert mask.valid.sum() == mask.is_masked.sum()
        scattered = np.zeros_like(mask.is_masked)
        rows = np.broadcast_to(np.arange(16)[:, None], mask.indices.shape)[mask.valid]
        scattered[rows, mask.indices[mask.valid]] = True
        np.testing.assert_array_equal(scattered, mask.is_masked)
    # What the model sees: 80 % masks, 10 % random, 10 % as they were, all else untouched.
    seen, ids = np.stack([m.inputs for m in masks]), np.broadcast_to(IDS, hidden.shape)
    np.testing.assert_array_equal(seen[~hidden], ids[~hidden])
    replaced, kept = (seen == MASK)[hidden].mean(), (seen == ids)[hidden].mean()
    assert 0.77 < replaced < 0.84 and 0.08 < kept < 0.13


def test_single_tokens_and_plain_masks():
    sampler = WholeWords(ratio=0.3, whole=False, replaced=1.0, random=0.0)
    hidden = []
    for mask in draw(sampler, 20):
        assert mask.valid[0::2].all() and (mask.inputs[mask.is_masked] == MASK).all()
        hidden.append(mask.is_masked[0::2, 1:4].sum(axis=-1))
    assert {1, 2} <= set(np.concatenate(hidden).tolist())  # parts of a word


def test_enhanced_decoding():
    sampler = EnhancedDecoding(ratio=0.5, masks=8)
    mask = jax.device_get(jax.jit(lambda key: sampler(key, found()))(jax.random.key(0)))
    assert mask.hidden.shape == (16, 8, 16) and mask.choice.shape == (16, 16)
    attend = np.asarray(mask.attend)
    assert not attend[:, np.arange(16), np.arange(16)].any()
    assert not attend[1::2, 6:].any() and not attend[1::2, :, 6:].any()  # padding
    rows = ~np.eye(16, dtype=bool)
    assert attend[0::2, :, 0][:, 1:].all() and attend[0::2, :, 15][:, :15].all()  # CLS and SEP
    hidden = (~attend[0::2] & rows).sum(axis=-1)
    assert hidden.max() == 8 and hidden.mean() > 6.5
    assert len(np.unique(attend[0], axis=0)) > 8
    # A short text has as many masks as tokens; all of them are used in the long run.
    assert mask.choice[1::2].max() < 6 and mask.choice[0::2].max() == 7


def test_one_mask_for_all_rows_still_hides_the_own_token():
    hidden = np.asarray([[[0, 1, 0, 0]]], bool)
    mask = words.AttentionMask(hidden, np.zeros((1, 4), np.int32), np.ones((1, 4), bool))
    np.testing.assert_array_equal(
        mask.attend[0], [[0, 0, 1, 1], [1, 0, 1, 1], [1, 0, 0, 1], [1, 0, 1, 0]]
    )


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: WholeWords(ratio=0.0), "between 0 and 1"),
        (lambda: WholeWords(replaced=0.8, random=0.3), "together at most 1"),
        (lambda: EnhancedDecoding(ratio=1.0), "between 0 and 1"),
        (lambda: EnhancedDecoding(masks=0), "at least one mask"),
    ],
)
def test_mistakes(make, sentence):
    with pytest.raises(UserError, match=sentence):
        make()
