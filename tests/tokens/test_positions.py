import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.tokens import (
    relative_entries,
    relative_index,
    resize_table,
    sincos,
    sincos_1d,
    sincos_2d,
    sincos_3d,
    sinusoid_flat,
)


def test_a_flat_sinusoid_interleaves_sine_and_cosine():
    table = sinusoid_flat(7, 6)
    assert table.dtype == np.float32
    for p in range(7):
        for j in range(6):
            angle = p / 10000 ** (2 * (j // 2) / 6)
            expected = np.cos(angle) if j % 2 else np.sin(angle)
            assert table[p, j] == pytest.approx(expected, abs=1e-7)


def test_three_axes_have_a_third_of_the_channels_each():
    table = sincos_3d((2, 3, 4), 18).reshape(2, 3, 4, 18)
    np.testing.assert_allclose(table[:, 2, 1, :6], sincos_1d(np.arange(2), 6), atol=1e-7)
    np.testing.assert_allclose(table[1, :, 3, 6:12], sincos_1d(np.arange(3), 6), atol=1e-7)
    np.testing.assert_allclose(table[0, 1, :, 12:], sincos_1d(np.arange(4), 6), atol=1e-7)
    # A width that is no multiple of six is cut off, at the last axis.
    np.testing.assert_array_equal(sincos_3d((2, 3, 4), 16), sincos_3d((2, 3, 4), 18)[:, :16])


def test_the_number_of_axes_chooses_the_table():
    np.testing.assert_allclose(sincos((5,), 4), sincos_1d(np.arange(5), 4), atol=1e-7)
    np.testing.assert_array_equal(sincos((2, 3), 8), sincos_2d((2, 3), 8))
    np.testing.assert_array_equal(sincos((2, 3, 4), 12), sincos_3d((2, 3, 4), 12))
    with pytest.raises(UserError, match="4 axes"):
        sincos((1, 1, 1, 1), 8)
    with pytest.raises(UserError, match="even width"):
        sincos((5,), 3)


@pytest.mark.parametrize("class_token", [False, True])
def test_relative_positions_of_a_grid_that_is_not_square(class_token):
    shape = (2, 3)
    index = relative_index(shape, class_token)
    patches = index[1:, 1:] if class_token else index
    places = [(r, c) for r in range(2) for c in range(3)]
    seen = {}
    for i, (r1, c1) in enumerate(places):
        for j, (r2, c2) in enumerate(places):
            assert patches[i, j] == (r1 - r2 + 1) * 5 + (c1 - c2 + 2)
            seen.setdefault((r1 - r2, c1 - c2), set()).add(int(patches[i, j]))
    # One entry for each offset, and no entry for two.
    assert all(len(entries) == 1 for entries in seen.values())
    assert len(set.union(*seen.values())) == len(seen) == 15
    assert relative_entries(shape, class_token) == 15 + 3 * class_token
    if class_token:
        np.testing.assert_array_equal(index[0, 1:], 15)
        np.testing.assert_array_equal(index[1:, 0], 16)
        assert index[0, 0] == 17


def test_tables_of_one_and_three_axes_are_resized_axis_by_axis():
    rng = np.random.default_rng(0)
    line = rng.normal(size=(4, 2))
    as_rows = resize_table(np.repeat(line, 3, axis=0), (4, 3), (6, 3)).reshape(6, 3, 2)
    np.testing.assert_allclose(resize_table(line, (4,), (6,)), as_rows[:, 0], rtol=1e-5)
    clip = rng.normal(size=(24, 2))
    resized = resize_table(clip, (2, 3, 4), (2, 5, 6)).reshape(2, 30, 2)
    for i, frame in enumerate(clip.reshape(2, 12, 2)):
        np.testing.assert_allclose(resized[i], resize_table(frame, (3, 4), (5, 6)), rtol=1e-5)
