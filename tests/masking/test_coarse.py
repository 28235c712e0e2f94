import jax
import numpy as np
import pytest

from mask_checks import check_sampler
from maskjax.errors import UserError
from maskjax.masking import Coarse
from maskjax.masking.coarse import spread_cells
from maskjax.masking.counts import ceil_share
from maskjax.tokens import TokenGrid


@pytest.mark.parametrize(("size", "patch"), [(192, 4), (224, 16)])
def test_cells_are_spread_as_in_the_reference(golden, size, patch):
    expected = golden("simmim_vit")[f"out/mask_{size}_32_{patch}_r0.6_seed0"]
    grid = TokenGrid.of((size, size), (patch, patch), 3)
    cells, tokens = (size // 32) ** 2, 32 // patch
    # The reference permutes the cells with numpy's old generator and hides the first of them.
    generator = np.random.RandomState(0)
    hidden = np.zeros((2, cells), bool)
    for row in hidden:
        row[generator.permutation(cells)[: ceil_share(cells, 0.6)]] = True
    spread = spread_cells(jax.numpy.asarray(hidden), grid, (tokens, tokens))
    np.testing.assert_array_equal(spread.reshape(expected.shape), expected.astype(bool))


def test_masks_consist_of_cells():
    grid = TokenGrid.of((12, 18), (2, 2), 3)
    hidden = check_sampler(Coarse(0.6, (6, 6)), grid, 9 * (6 - 4), distinct=5)
    blocks = hidden.reshape(-1, 2, 3, 3, 3).transpose(0, 1, 3, 2, 4).reshape(-1, 6, 9)
    assert (blocks == blocks[:, :, :1]).all()


def test_counts_are_rounded_up_and_whole_products_stay():
    assert [ceil_share(n, 0.6) for n in (36, 49, 10, 5)] == [22, 30, 6, 3]


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (Coarse(0.6, (3, 3)), "whole number of patches"),
        (Coarse(0.6, (8, 8)), "does not divide data"),
        (Coarse(0.6, (4,)), "does not divide data"),
        (Coarse(0.99, (6, 6)), "ratio=0.99 masks all of the 4 cells"),
    ],
)
def test_refusals(sampler, message):
    with pytest.raises(UserError, match=message):
        sampler.check(TokenGrid.of((12, 12), (2, 2), 3))
