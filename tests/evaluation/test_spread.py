"""Effective rank and spread, on features whose rank is known."""

import numpy as np
import pytest

from maskjax.evaluation import Features, Spread
from maskjax.evaluation.spread import feature_std, rankme

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_effective_rank_of_equal_singular_values_is_the_rank(rank):
    left, right = (np.linalg.qr(RNG.normal(size=(n, rank)))[0] for n in (50, 8))
    assert rankme(5 * left @ right.T) == pytest.approx(rank, rel=1e-4)


def test_the_effective_rank_by_its_definition():
    values = RNG.normal(size=(20, 6)) * np.arange(1, 7)
    singular = np.linalg.svd(values, compute_uv=False)
    shares = singular / singular.sum()
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert rankme(values) == pytest.approx(expected, rel=1e-4)
    assert rankme(values.T) == pytest.approx(expected, rel=1e-4)
    assert rankme(np.zeros((4, 3))) == 0


def test_even_directions_have_a_spread_of_one_and_equal_ones_none():
    assert feature_std(RNG.normal(size=(20000, 16))) == pytest.approx(1.0, abs=0.02)
    assert feature_std(np.ones((10, 4))) == pytest.approx(0.0, abs=1e-12)


def test_only_the_test_split_counts():
    test = Features(np.eye(4, dtype=np.float32), None)
    figures = [Spread().score(Features(np.full((2, 4), x), None), test) for x in (0.0, 9.0)]
    assert figures[0] == figures[1]
    assert figures[0]["rankme"] == pytest.approx(4, rel=1e-4)
