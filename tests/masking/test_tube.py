import jax.numpy as jnp
import numpy as np
import pytest

from mask_checks import check_mask, check_sampler
from maskjax.errors import UserError
from maskjax.masking import Tube
from maskjax.masking.tube import tube_mask
from maskjax.tokens import TokenGrid


@pytest.mark.parametrize("seed", [0, 1])
def test_frames_are_repeated_as_in_the_reference(golden, seed):
    expected = golden("videomae")[f"tube/seed{seed}_8x14x14_r0.9"].astype(bool)
    frame = np.repeat([False, True], [20, 176])
    np.random.RandomState(seed).shuffle(frame)
    mask = tube_mask(jnp.asarray(frame[None]), 8, 20)
    check_mask(mask, 160, 1568, ascending=True)
    np.testing.assert_array_equal(mask.is_masked[0], expected)


def test_counts_of_the_reference(golden):
    grid = TokenGrid((8, 14, 14), (2, 16, 16), 3)
    hidden = check_sampler(Tube(0.9), grid, 8 * 20, batch=4)
    assert hidden[0].sum() == golden("videomae")["tube/seed0_8x14x14_r0.9"].sum()


def test_every_frame_has_the_same_mask():
    hidden = check_sampler(Tube(0.75), TokenGrid((3, 4, 4), (2, 2, 2), 1), 12).reshape(-1, 3, 16)
    assert (hidden == hidden[:, :1]).all()


def test_refusals():
    with pytest.raises(UserError, match="time and space"):
        Tube().check(TokenGrid((16,), (4,), 1))
    with pytest.raises(UserError, match="masks none of the 4 places of a frame"):
        Tube(0.1).check(TokenGrid((8, 2, 2), (2, 2, 2), 1))
