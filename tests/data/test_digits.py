"""Tests of maskjax.data.digits."""

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits

from maskjax import config
from maskjax.data import Digits
from maskjax.errors import UserError


def _key(record):
    return record["image"].tobytes(), record["label"]


def test_splits_partition_the_data():
    train, test, everything = (Digits().open(s) for s in ("train", "test", "all"))
    assert (len(train), len(test), len(everything)) == (1442, 355, 1797)
    keys = [_key(records[i]) for records in (train, test) for i in range(len(records))]
    assert sorted(keys) == sorted(_key(everything[i]) for i in range(1797))


def test_test_split_is_stratified():
    test = Digits().open("test")
    share = np.bincount([test[i]["label"] for i in range(355)])
    whole = np.bincount(load_digits().target)
    np.testing.assert_array_equal(share, whole // 5)


def test_pixels():
    records = Digits().open("all")
    source = load_digits().images
    image = records[0]["image"]
    assert image.dtype == np.uint8 and image.shape == (8, 8, 1)
    np.testing.assert_array_equal(image[..., 0], np.round(source[0] * 255 / 16))
    assert max(records[i]["image"].max() for i in range(50)) == 255


def test_records():
    records = pickle.loads(pickle.dumps(Digits().open("test")))
    assert records.num_classes == 10 and records.label_names[3] == "3"
    assert records.describe(7) == "record 7 of digits/test"
    assert type(records[0]["label"]) is int


def test_unknown_split():
    with pytest.raises(UserError, match="did you mean 'train'"):
        Digits().open("trian")


def test_is_a_part():
    assert config.build(config.part("data.Digits")) == Digits()
