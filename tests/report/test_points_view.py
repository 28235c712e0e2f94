"""Pictures of point clouds."""

import numpy as np

from maskjax.report.views.points import columns

CORNERS = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0.5], [-1, 1, 1]], np.float32)


def ink(picture):
    return np.argwhere((picture < 255).any(axis=-1))


def test_frame_of_the_first_column_is_that_of_all():
    drawn = columns({"a": CORNERS[None], "b": CORNERS[None, :1], "c": 9 * CORNERS[None, :2]}, None)
    assert list(drawn) == ["a", "b", "c"]
    for pictures in drawn.values():
        assert pictures.dtype == np.uint8 and pictures.shape == (1, 160, 320, 3)
    a, b = (set(map(tuple, ink(drawn[title][0]))) for title in "ab")
    assert b < a
    assert not len(ink(drawn["c"][0]))  # outside of the frame


def test_up_is_up_and_near_is_dark():
    picture = columns({"a": CORNERS[None]}, None)["a"][0]
    front = picture[:, :160].astype(int).sum(axis=-1)
    top_left, bottom_left = front[:80, :80].min(), front[80:, :80].min()
    top_right = front[:80, 80:].min()
    assert top_left < top_right < bottom_left < 3 * 255


def test_coordinates_that_are_not_finite_are_left_out():
    broken = np.concatenate([CORNERS, np.full((3, 3), np.nan, np.float32)])
    drawn = columns({"a": CORNERS[None], "b": broken[None]}, None)
    np.testing.assert_array_equal(drawn["a"], drawn["b"])
