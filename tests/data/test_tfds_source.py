"""Tests of maskjax.data.tfds_source, on the CIFAR-10 in $MASKJAX_DATA/tfds if it is there."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from maskjax.data import TFDS
from maskjax.data.tfds_source import _Field
from maskjax.errors import UserError

ROOT = os.path.join(os.environ.get("MASKJAX_DATA", ""), "tfds")
needs_data = pytest.mark.skipif(
    not os.path.isdir(os.path.join(ROOT, "cifar10")), reason="MASKJAX_DATA has no tfds/cifar10"
)


@needs_data
def test_cifar10():
    train, test = (TFDS("cifar10", ROOT).open(s) for s in ("train", "test"))
    assert (len(train), len(test), train.num_classes) == (50_000, 10_000, 10)
    assert train.label_names[:2] == ("airplane", "automobile")
    record = train[17]
    assert record["image"].shape == (32, 32, 3) and record["image"].dtype == np.uint8
    assert record["image"].std() > 0 and type(record["label"]) is int
    assert train.describe(17) == "record 17 of cifar10/train"


@needs_data
def test_slices_versions_and_pickling():
    whole = TFDS("cifar10", ROOT).open("test")
    tail = TFDS("cifar10:3.0.2", os.path.join(ROOT, "cifar10", "3.0.2")).open("test[90%:]")
    assert len(tail) == 1000
    for records in (tail, pickle.loads(pickle.dumps(tail))):
        np.testing.assert_array_equal(records[5]["image"], whole[9005]["image"])
        assert records[5]["label"] == whole[9005]["label"]


@needs_data
def test_no_labels_under_another_key():
    records = TFDS("cifar10", ROOT, label_key="id").open("test")
    assert records.num_classes is None and "label" not in records[0]


@needs_data
def test_errors_of_a_data_set_that_exists():
    with pytest.raises(UserError, match="no split 'tset'; did you mean 'test'"):
        TFDS("cifar10", ROOT).open("tset")
    with pytest.raises(UserError, match=r"slice such as 'train\[:90%\]'"):
        TFDS("cifar10", ROOT).open("train[:x]")
    with pytest.raises(UserError, match="its images are: image"):
        TFDS("cifar10", ROOT, image_key="picture").open("test")
    with pytest.raises(UserError, match="has no image 'image'; its images are: none"):
        TFDS("free_spoken_digits", ROOT).open("test")
    with pytest.raises(UserError, match="holds the data set 'cifar10', not 'mnist'"):
        TFDS("mnist", os.path.join(ROOT, "cifar10", "3.0.2")).open("test")


@needs_data
def test_sounds_and_text():
    fields = dict(audio="audio", word="id", speaker="speaker")
    records = TFDS("free_spoken_digits", ROOT, fields=fields).open("test")
    record = pickle.loads(pickle.dumps(records))[3]
    assert record["audio"].dtype == np.int16 and record["audio"].ndim == 1
    assert type(record["word"]) is str and type(record["label"]) is int
    assert int(record["speaker"]) in range(6)
    assert (len(records), records.num_classes) == (300, 10)
    with pytest.raises(UserError, match="no feature 'adio'; did you mean 'audio'"):
        TFDS("free_spoken_digits", ROOT, fields=dict(audio="adio")).open("test")


def test_values_of_features():
    assert _Field("t", "t", "text", None).value(b"caf\xc3\xa9") == "café"
    sound = _Field("a", "a", "audio", 8000).value(np.arange(3, dtype=np.int64))
    assert sound.rate == 8000 and sound.samples.dtype == np.int16


def test_a_data_set_that_is_not_prepared(tmp_path):
    with pytest.raises(UserError, match="not prepared in .*download_and_prepare"):
        TFDS("cifar100", str(tmp_path)).open("train")
    with pytest.raises(UserError, match="not prepared in"):
        TFDS("no such name!", str(tmp_path)).open("train")


def test_tensorflow_and_heavy_packages_are_not_imported(tmp_path):
    program = """
import sys
import maskjax.data as data
heavy = {"tensorflow_datasets", "sklearn", "tensorflow", "torch"} & set(sys.modules)
assert not heavy, heavy
try:
    data.TFDS("cifar10", sys.argv[1]).open("test[:10]")[0]
except Exception as error:
    assert "not prepared" in str(error), error
assert "tensorflow" not in sys.modules
"""
    folder = ROOT if os.path.isdir(ROOT) else str(tmp_path)
    subprocess.run([sys.executable, "-c", program, folder], check=True, timeout=60)
