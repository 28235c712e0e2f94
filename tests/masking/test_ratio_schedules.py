import jax
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.masking import mask_ratio, truncated_normal_ratio
from maskjax.masking.ratio_schedules import NAMES


@pytest.mark.parametrize("name", NAMES)
def test_schedules_fall_from_all_to_nothing(name):
    share = np.asarray(mask_ratio(name, np.linspace(0.0, 1.0, 21), 64))
    assert share[0] == pytest.approx(1, abs=0.02)
    assert share[-1] == pytest.approx(1e-6)
    assert (np.diff(share) <= 0).all()


def test_unknown_schedule():
    with pytest.raises(UserError, match="linear, cosine, pow, log, exp, not 'cosin'"):
        mask_ratio("cosin", 0.5)


def test_random_ratios_follow_the_cut_normal_distribution():
    """MAGE's: mean 0.55, deviation 0.25, cut to [0.5, 1]."""
    drawn = np.asarray(truncated_normal_ratio(jax.random.key(0), 0.55, 0.25, 0.5, 1.0, (4000,)))
    assert 0.5 <= drawn.min() < 0.51 and 0.99 < drawn.max() <= 1
    x = np.linspace(0.5, 1.0, 10001)
    density = np.exp(-0.5 * ((x - 0.55) / 0.25) ** 2)
    expected = (x * density).sum() / density.sum()
    assert drawn.mean() == pytest.approx(expected, abs=4 * drawn.std() / np.sqrt(4000))


@pytest.mark.parametrize(("low", "high", "std"), [(0.8, 0.5, 0.1), (0.5, 1.5, 0.1), (0.5, 1, 0)])
def test_impossible_ranges(low, high, std):
    with pytest.raises(UserError, match="low < high"):
        truncated_normal_ratio(jax.random.key(0), 0.55, std, low, high)
