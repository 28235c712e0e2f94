import jax
import numpy as np
import pytest

from mask_checks import check_sampler
from maskjax.errors import UserError
from maskjax.masking import RunningCell
from maskjax.masking.running_cell import running_cell_maps
from maskjax.tokens import TokenGrid


@pytest.mark.parametrize(
    ("shape", "ratio"),
    [((4, 6, 6), 0.25), ((4, 6, 6), 0.5), ((4, 6, 6), 0.75), ((8, 14, 14), 0.5)],
)
def test_maps_are_those_of_the_reference(golden, shape, ratio):
    name = "x".join(map(str, shape))
    expected = golden("videomae_v2")[f"runcell/maps_{name}_r{ratio}"].astype(bool)
    maps = running_cell_maps(shape, round(4 * ratio))
    np.testing.assert_array_equal(maps, expected.reshape(4, -1))


def test_all_phases_are_drawn_equally_often():
    grid = TokenGrid((4, 4, 6), (2, 2, 2), 3)
    hidden = check_sampler(RunningCell(0.5), grid, 48, batch=64, distinct=4)
    maps = running_cell_maps(grid.shape, 2)
    assert {row.tobytes() for row in hidden} == {row.tobytes() for row in maps}
    many = np.asarray(RunningCell(0.5)(jax.random.key(5), 4000, grid).is_masked)
    for phase in maps:
        share = (many == phase[None]).all(axis=1).mean()
        assert share == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 4000))


def test_every_place_is_shown_half_of_the_time():
    maps = running_cell_maps((4, 2, 4), 2).reshape(4, 4, 8)
    np.testing.assert_array_equal(maps.sum(axis=1), 2)


def test_refusals():
    with pytest.raises(UserError, match="not 4x3x4"):
        RunningCell().check(TokenGrid((4, 3, 4), (2, 2, 2), 3))
    with pytest.raises(UserError, match="0.25, 0.5 or 0.75, not 0.2"):
        RunningCell(0.2).check(TokenGrid((4, 4, 4), (2, 2, 2), 3))
