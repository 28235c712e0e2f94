"""Tests of maskjax.data.folder."""

import pickle

import numpy as np
import pytest
from PIL import Image

from maskjax.data import ImageFolder
from maskjax.errors import UserError


def _write(path, level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {"jpg": "JPEG", "jpeg": "JPEG"}.get(path.suffix[1:].lower(), path.suffix[1:].upper())
    Image.new("RGB", (4, 3), (level,) * 3).save(path, kind)


def _names(records, root):
    return [records.describe(i).removeprefix(f"{root}/") for i in range(len(records))]


def test_splits_and_classes(tmp_path):
    _write(tmp_path / "train/cat/b.PNG", 1)
    _write(tmp_path / "train/cat/deep/a.jpg", 2)
    _write(tmp_path / "train/ant/c.webp", 3)
    _write(tmp_path / "test/cat/d.JpEg", 4)
    (tmp_path / "train/notes.txt").write_text("no image")
    train, test, everything = (ImageFolder(str(tmp_path)).open(s) for s in ("train", "test", "all"))
    assert _names(train, tmp_path) == [
        "train/ant/c.webp",
        "train/cat/b.PNG",
        "train/cat/deep/a.jpg",
    ]
    assert [train[i]["label"] for i in range(3)] == [0, 1, 1]
    assert train.label_names == test.label_names == ("ant", "cat")
    # The test split has no ant; a cat has the same number nevertheless.
    assert test.num_classes == 2 and test[0]["label"] == 1
    assert len(everything) == 4
    assert sorted(everything[i]["label"] for i in range(4)) == [0, 1, 1, 1]
    image = train[1]["image"]
    assert image.shape == (3, 4, 3) and (image == 1).all()


def test_classes_without_splits(tmp_path):
    _write(tmp_path / "dog/a.png")
    _write(tmp_path / "cat/b.png")
    records = ImageFolder(str(tmp_path)).open("all")
    assert records.label_names == ("cat", "dog")
    assert [records[i]["label"] for i in range(2)] == [0, 1]
    with pytest.raises(UserError, match="no split 'train'; there are: cat, dog, all"):
        ImageFolder(str(tmp_path)).open("train")
    assert ImageFolder(str(tmp_path)).open("dog").num_classes is None


def test_flat_folder_has_no_labels(tmp_path):
    _write(tmp_path / "b.png", 2)
    _write(tmp_path / "a.png", 1)
    records = pickle.loads(pickle.dumps(ImageFolder(str(tmp_path)).open("all")))
    assert records.num_classes is None and records.label_names is None
    assert _names(records, tmp_path) == ["a.png", "b.png"]
    assert "label" not in records[0] and records[1]["image"][0, 0, 0] == 2


def test_mixed_folder_has_no_labels(tmp_path):
    _write(tmp_path / "a.png")
    _write(tmp_path / "cat/b.png")
    records = ImageFolder(str(tmp_path)).open("all")
    assert len(records) == 2 and records.num_classes is None


def test_hidden_files_and_links(tmp_path):
    _write(tmp_path / "data/cat/a.png")
    _write(tmp_path / "data/.trash/b.png")
    _write(tmp_path / "data/__MACOSX/c.png")
    (tmp_path / "data/cat/._a.png").write_bytes(b"resource fork")
    _write(tmp_path / "elsewhere/d.png")
    (tmp_path / "data/dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/cat/loop").symlink_to(tmp_path / "data")
    records = ImageFolder(str(tmp_path / "data")).open("all")
    assert _names(records, tmp_path / "data") == ["cat/a.png", "dog/d.png"]
    assert records.label_names == ("cat", "dog")


def test_corrupt_file_raises_when_read(tmp_path):
    _write(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    records = ImageFolder(str(tmp_path)).open("all")
    np.testing.assert_array_equal(records[0]["image"], 0)
    with pytest.raises(OSError):
        records[1]


def test_errors(tmp_path):
    with pytest.raises(UserError, match="There is no folder '.*none'"):
        ImageFolder(str(tmp_path / "none")).open("all")
    with pytest.raises(UserError, match="holds no images: put .jpg"):
        ImageFolder(str(tmp_path)).open("all")
    _write(tmp_path / "train/cat/a.png")
    (tmp_path / "test").mkdir()
    with pytest.raises(UserError, match="test' holds no images"):
        ImageFolder(str(tmp_path)).open("test")
    with pytest.raises(UserError, match="did you mean 'train'"):
        ImageFolder(str(tmp_path)).open("trian")
