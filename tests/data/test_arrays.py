"""Tests of maskjax.data.arrays."""

import pickle

import numpy as np
import pytest

from maskjax.data import Arrays
from maskjax.errors import UserError

IMAGES = np.arange(5 * 4 * 6 * 3, dtype=np.uint8).reshape(5, 4, 6, 3)
LABELS = np.array([0, 2, 1, 0, 1])


def _npz(tmp_path, **arrays):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return str(path)


def test_images_and_labels(tmp_path):
    records = Arrays(_npz(tmp_path, image=IMAGES, label=LABELS)).open("all")
    assert (len(records), records.num_classes, records.label_names) == (5, 3, None)
    np.testing.assert_array_equal(records[1]["image"], IMAGES[1])
    assert records[1]["label"] == 2
    assert "record 1 of split all in" in records.describe(1)


def test_splits_agree_on_the_classes(tmp_path):
    path = _npz(
        tmp_path,
        train_image=IMAGES,
        train_label=LABELS[:, None],
        test_image=IMAGES[:2, ..., 0],
        test_label=LABELS[:1].repeat(2),
        label_names=np.array(["a", "b", "c"]),
    )
    train, test = (Arrays(path).open(s) for s in ("train", "test"))
    assert train.num_classes == test.num_classes == 3
    assert test.label_names == ("a", "b", "c")
    assert test[0]["image"].shape == (4, 6, 1)
    assert train[1]["label"] == 2
    with pytest.raises(UserError, match="no split 'tets'; did you mean 'test'"):
        Arrays(path).open("tets")


def test_unlabelled_and_other_keys(tmp_path):
    path = _npz(tmp_path, image=IMAGES, pictures=IMAGES[:3], y=LABELS[:3])
    assert Arrays(path).open("all").num_classes is None
    assert "label" not in Arrays(path).open("all")[0]
    records = Arrays(path, image_key="pictures", label_key="y").open("all")
    assert len(records) == 3 and records[1]["label"] == 2


def test_npy_and_pickling(tmp_path):
    path = tmp_path / "data.npy"
    np.save(path, IMAGES)
    records = pickle.loads(pickle.dumps(Arrays(str(path)).open("all")))
    np.testing.assert_array_equal(records[4]["image"], IMAGES[4])
    assert records.num_classes is None
    with pytest.raises(UserError, match="there are: all"):
        Arrays(str(path)).open("train")
    archive = Arrays(_npz(tmp_path, image=IMAGES, label=LABELS)).open("all")
    assert len(pickle.dumps(archive)) < 1000
    assert pickle.loads(pickle.dumps(archive))[1]["label"] == 2


@pytest.mark.parametrize(
    "arrays, message",
    [
        (dict(image=IMAGES / 255), "have to be uint8"),
        (dict(image=IMAGES[0, 0]), r"shape \(6, 3\)"),
        (dict(pictures=IMAGES), "has: pictures. Set data.source.image_key"),
        (dict(image=IMAGES, label=LABELS[:4]), "5 images in 'image' but 4 labels"),
        (dict(image=IMAGES, label=LABELS - 1), "counted from 0"),
        (dict(image=IMAGES, label=LABELS / 2), "integers"),
        (dict(image=np.array([None, 1])), "Python objects"),
    ],
)
def test_wrong_arrays(tmp_path, arrays, message):
    with pytest.raises(UserError, match=message):
        Arrays(_npz(tmp_path, **arrays)).open("all")


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        Arrays(str(tmp_path / "none.npz")).open("all")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(UserError, match="cannot be read as a .npz"):
        Arrays(str(tmp_path / "text.npz")).open("all")
