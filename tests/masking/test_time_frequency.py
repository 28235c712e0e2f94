"""Masks of times and frequencies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.masking import TimeFrequency
from maskjax.masking.time_frequency import hide_times_and_frequencies
from maskjax.tokens import TokenGrid

GRID = TokenGrid((8, 4), (2, 2), 1)


def test_reference(golden):
    arrays = golden("speech_audio_pieces")
    time, frequency = (jnp.asarray(arrays[f"in/tf_noise_{axis}"]) for axis in "tf")
    mask = hide_times_and_frequencies(time, frequency, 2, 2)
    np.testing.assert_array_equal(mask.keep, arrays["out/tf_ids_keep"])
    np.testing.assert_array_equal(mask.restore, arrays["out/tf_ids_restore"])
    np.testing.assert_array_equal(mask.is_masked, arrays["out/tf_mask"].astype(bool))
    # The counts of the reference's shares.
    sampler = TimeFrequency(float(arrays["cfg/tf_mask_t"]), float(arrays["cfg/tf_mask_f"]))
    drawn = sampler(jax.random.key(0), 3, TokenGrid((6, 4), (1, 1), 1))
    assert drawn.keep.shape == (3, 4)


def test_visible_tokens_are_a_product_of_times_and_frequencies():
    mask = jax.jit(lambda key: TimeFrequency(0.5, 0.25)(key, 16, GRID))(jax.random.key(1))
    hidden = np.asarray(mask.is_masked).reshape(16, 8, 4)
    times, frequencies = ~hidden.all(axis=2), ~hidden.all(axis=1)
    assert (times.sum(axis=1) == 4).all() and (frequencies.sum(axis=1) == 3).all()
    np.testing.assert_array_equal(~hidden, times[:, :, None] & frequencies[:, None, :])
    assert len({h.tobytes() for h in hidden}) > 10  # examples differ


@pytest.mark.parametrize(("time", "frequency"), [(0.5, 0.0), (0.0, 0.5)])
def test_one_axis_alone(time, frequency):
    sampler = TimeFrequency(time, frequency)
    sampler.check(GRID)
    hidden = np.asarray(sampler(jax.random.key(0), 4, GRID).is_masked).reshape(4, 8, 4)
    assert (hidden == (hidden[:, :, :1] if time else hidden[:, :1, :])).all()
    assert hidden.mean() == 0.5


def test_refusals():
    with pytest.raises(UserError, match="masks all"):
        TimeFrequency(0.9, 0.5).check(GRID)
    with pytest.raises(UserError, match="masks none"):
        TimeFrequency(0.0, 0.0).check(GRID)
    with pytest.raises(UserError, match="two axes"):
        TimeFrequency().check(TokenGrid((8,), (2,), 1))
