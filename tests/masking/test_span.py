import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mask_checks import check_mask, check_sampler
from maskjax.errors import UserError
from maskjax.masking import Spans
from maskjax.masking.span import expected_hidden, span_mask
from maskjax.tokens import TokenGrid

GRID = TokenGrid((100,), (320,), 1)


def test_counts_are_those_that_spans_cover_on_average():
    generator = np.random.default_rng(0)
    covered = []
    for _ in range(4000):
        hidden = np.zeros(60, bool)
        for start in generator.choice(51, 4, replace=False):
            hidden[start : start + 10] = True
        covered.append(hidden.sum())
    expected = expected_hidden(60, 4, 10)
    assert expected == pytest.approx(np.mean(covered), abs=4 * np.std(covered) / np.sqrt(4000))
    assert expected_hidden(60, 1, 10) == pytest.approx(10)
    assert expected_hidden(60, 1.5, 10) == pytest.approx(
        (expected_hidden(60, 1, 10) + expected_hidden(60, 2, 10)) / 2
    )


def test_hubert_hides_about_half():
    assert 0.5 < Spans().num_hidden(500) / 500 < 0.6


def test_spans_are_laid_in_order_and_the_last_is_trimmed():
    starts = np.full((1, 8), 0.9, np.float32)
    starts[0, [6, 1, 2]] = [0.1, 0.2, 0.3]  # 6-8, then 1-3, then 2-4
    trim = jnp.asarray(np.linspace(0, 0.9, 10, dtype=np.float32))[None, :]
    hidden = {
        count: np.flatnonzero(span_mask(jnp.asarray(starts), trim, 3, count).is_masked[0]).tolist()
        for count in (3, 6, 7, 5)
    }
    assert hidden[3] == [6, 7, 8]
    assert hidden[6] == [1, 2, 3, 6, 7, 8]
    assert hidden[7] == [1, 2, 3, 4, 6, 7, 8]
    assert hidden[5] == [1, 2, 6, 7, 8]  # the one of highest noise of the last span is given up


def test_masks_are_valid():
    sampler = Spans(0.8, 10)
    hidden = check_sampler(sampler, GRID, 100 - sampler.num_hidden(100))
    # All runs but the one that was trimmed are at least a span long.
    for row in hidden:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
        runs = edges[1::2] - edges[::2]
        assert (runs < 10).sum() <= 9
        assert runs.max() >= 10


def test_places_are_hidden_as_published():
    """Mean mask of the published way: a number of spans, then random trimming to a count."""
    n, length, spans, draws = 40, 5, 4, 3000
    generator = np.random.default_rng(1)
    mean = np.zeros(n)
    for _ in range(draws):
        hidden = np.zeros(n, bool)
        for start in generator.choice(n - length + 1, spans, replace=False):
            hidden[start : start + length] = True
        mean += hidden
    mean /= draws
    sampler = Spans(probability=spans * length / n, length=length)
    ours = np.asarray(sampler(jax.random.key(0), draws, TokenGrid((n,), (1,), 1)).is_masked)
    np.testing.assert_allclose(ours.mean(axis=0), mean, atol=0.045)


def test_a_count_can_be_given():
    mask = Spans(count=7, length=3)(jax.random.key(0), 5, TokenGrid((20,), (1,), 1))
    check_mask(mask, 13, 20, ascending=True)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (Spans(length=200), "does not fit into 100"),
        (Spans(probability=0.0), "probability must lie in"),
        (Spans(count=100), "count=100 masks all"),
    ],
)
def test_refusals(sampler, message):
    with pytest.raises(UserError, match=message):
        sampler.check(GRID)
    with pytest.raises(UserError, match="one axis"):
        sampler.check(TokenGrid((4, 4), (2, 2), 1))
