"""Tests of maskjax.data.arrays."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from maskjax import config
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


def test_a_boolean_array_divides_the_records(tmp_path):
    is_test = np.array([False, True, False, True, False])
    path = _npz(tmp_path, xyz=IMAGES.astype(np.float16)[:, 0], label=LABELS, is_test=is_test)
    source = Arrays(path, fields={"points": "xyz"})
    train, test, everything = (source.open(split) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(everything)) == (3, 2, 5)
    np.testing.assert_array_equal(test[1]["points"], IMAGES[3, 0])
    assert set(test[1]) == {"points", "label"} and test[1]["points"].dtype == np.float16
    # The class 2 is missing in the test split and counts all the same.
    assert (test[1]["label"], test.num_classes) == (0, 3)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(test))[0]["points"], IMAGES[1, 0])
    with pytest.raises(UserError, match="no split 'tran'; did you mean 'train'"):
        source.open("tran")


def test_fields_of_several_modalities(tmp_path):
    captions = np.array([["a cat", "cats"], ["a dog", "dogs"], ["an ox", "oxen"]] + [["", ""]] * 2)
    path = _npz(
        tmp_path, image=IMAGES, captions=captions, name=np.array(list("abcde")), kind=LABELS,
        kind_names=np.array(["x", "y", "z"]),
    )  # fmt: skip
    fields = {"red": "image[0:1]", "rest": "image[1:]", "text": "captions", "title": "name"}
    records = Arrays(path, fields=fields, id_key="name", label_key="kind").open("all")
    record = records[1]
    np.testing.assert_array_equal(record["red"], IMAGES[1, :, :, :1])
    np.testing.assert_array_equal(record["rest"], IMAGES[1, :, :, 1:])
    assert record["text"] == ("a dog", "dogs") and record["title"] == "b"
    assert records.names() == list("abcde")
    assert records.label_names == ("x", "y", "z") and record["label"] == 2


def test_compressed_pictures(tmp_path):
    pictures = [IMAGES[0], IMAGES[1, :2], IMAGES[2, :, :3]]  # of different sizes
    data = []
    for picture in pictures:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        data.append(buffer.getvalue())
    arrays = dict(
        train_photo_jpeg=np.frombuffer(b"".join(data), np.uint8),
        train_photo_offsets=np.cumsum([0, *map(len, data)]),
        train_label=LABELS[:3],
    )
    records = Arrays(_npz(tmp_path, **arrays), fields={"image": "photo_jpeg:jpeg"}).open("train")
    assert len(records) == 3
    for i, picture in enumerate(pictures):
        np.testing.assert_array_equal(records[i]["image"], picture)
    arrays["train_photo_offsets"] = arrays["train_photo_offsets"][:-1]
    with pytest.raises(UserError, match="has to rise from 0 to the"):
        Arrays(_npz(tmp_path, **arrays), fields={"image": "photo_jpeg:jpeg"}).open("train")
    del arrays["train_photo_offsets"]
    with pytest.raises(UserError, match="no 'train_photo_offsets'"):
        Arrays(_npz(tmp_path, **arrays), fields={"image": "photo_jpeg:jpeg"}).open("train")


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"image": "image:tiff"}, "write KEY, KEY:jpeg or KEY"),
        ({"image": "image[2:2]"}, "has no channels 2 to 1"),
        ({"image": "image[0:9]"}, "has no channels 0 to 8"),
        ({"image": "image", "text": "caption"}, "'caption' for the input 'text'; did you mean"),
        ({"image": "image", "text": "captions"}, "number of records: image 5, text 3"),
        ({"points": "xyz"}, "Set data.source.fields"),
    ],
)
def test_wrong_fields(tmp_path, fields, message):
    path = _npz(tmp_path, image=IMAGES, captions=np.array(["a", "b", "c"]))
    with pytest.raises(UserError, match=message):
        Arrays(path, fields=fields).open("all")


def test_wrong_division(tmp_path):
    path = _npz(tmp_path, image=IMAGES, is_test=LABELS)
    with pytest.raises(UserError, match=r"'is_test' has to be bool \[5\], but is int64"):
        Arrays(path).open("train")


def test_fields_are_part_of_a_configuration(tmp_path):
    path = _npz(tmp_path, xyz=IMAGES)
    section = config.part("data.Arrays", path=path, fields=dict(points="xyz"))
    assert len(config.build(section).open("all")) == 5
    assert config.build(config.part("data.Arrays", path=path)) == Arrays(path)
