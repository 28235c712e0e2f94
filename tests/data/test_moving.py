"""Tests of maskjax.data.moving."""

import itertools
import pickle

import numpy as np
import pytest

from maskjax.data import Digits, MovingImages
from maskjax.data.moving import DIRECTIONS, NAMES, moving_clip
from maskjax.errors import UserError

IMAGE = np.random.default_rng(0).integers(1, 256, (4, 4, 3)).astype(np.uint8)


def place(frame):
    """Top left corner of what is not black."""
    rows, columns = np.nonzero(frame.any(axis=-1))
    return np.array([rows.min(), columns.min()])


@pytest.mark.parametrize("direction", range(8))
@pytest.mark.parametrize("speed", [1, 2])
def test_an_object_moves_straight_and_stays_whole(direction, speed):
    rng = np.random.default_rng(1)
    clip = moving_clip(IMAGE, (4, 11, 12), (4, 4), direction, speed, rng, "black")
    assert clip.shape == (4, 11, 12, 3)
    places = np.array([place(frame) for frame in clip])
    np.testing.assert_array_equal(
        np.diff(places, axis=0), [speed * np.array(DIRECTIONS[direction])] * 3
    )
    for frame, (top, left) in zip(clip, places, strict=True):
        np.testing.assert_array_equal(frame[top : top + 4, left : left + 4], IMAGE)
        assert frame.sum() == IMAGE.sum(dtype=int)


@pytest.mark.parametrize("direction", range(8))
def test_on_a_mirror_canvas_the_content_moves_that_way(direction):
    rng = np.random.default_rng(1)
    clip = moving_clip(IMAGE, (3, 4, 4), (4, 4), direction, 1, rng, "mirror")
    np.testing.assert_array_equal(clip[0], IMAGE)
    down, right = DIRECTIONS[direction]
    inner = slice(1, 3)
    for before, after in itertools.pairwise(clip):
        np.testing.assert_array_equal(
            after[1 + down : 3 + down, 1 + right : 3 + right], before[inner, inner]
        )


def test_records_are_functions_of_their_number():
    source = MovingImages(Digits(), size=(4, 16, 16), object_size=(8, 8))
    records = source.open("test")
    again = pickle.loads(pickle.dumps(records))
    assert len(records) == 355
    assert records.num_classes == 8
    assert records.label_names == NAMES
    for i in (0, 7):
        np.testing.assert_array_equal(records[i]["video"], again[i]["video"])
        assert records[i]["label"] == again[i]["label"]
        step = place(records[i]["video"][1]) - place(records[i]["video"][0])
        assert tuple(np.sign(step)) == DIRECTIONS[records[i]["label"]]
    labels = [records[i]["label"] for i in range(200)]
    assert set(labels) == set(range(8))
    assert "digits" in records.describe(3)
    other = MovingImages(Digits(), size=(4, 16, 16), object_size=(8, 8), seed=1).open("test")
    assert [other[i]["label"] for i in range(20)] != labels[:20]


def test_the_label_may_be_that_of_the_image():
    records = MovingImages(Digits(), size=(2, 16, 16), label="image").open("test")
    assert records.num_classes == 10
    assert records[5]["label"] == Digits().open("test")[5]["label"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(size=(8, 8)), "three positive integers"),
        (dict(size=(20, 16, 16)), "has room for 8: reduce speed"),
        (dict(speed=(2, 1)), "speed of data.MovingImages"),
        (dict(canvas="white"), "black, mirror"),
        (dict(label="class"), "direction, image"),
    ],
)
def test_impossible_movements_are_refused(change, words):
    with pytest.raises(UserError, match=words):
        MovingImages(Digits(), **dict(size=(4, 16, 16)) | change)
