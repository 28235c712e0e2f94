"""Tests of maskjax.data.corrupt."""

import numpy as np
import pytest

from maskjax.data import CorruptRecords
from maskjax.errors import UserError


class _Records:
    num_classes = None
    label_names = None

    def __len__(self):
        return 10

    def __getitem__(self, i):
        if i == 9:
            return {"image": np.zeros((1, 1, 1), np.uint8)}
        raise OSError(f"broken {i}")

    def describe(self, i):
        return f"file-{i}.png"


def _batch(*pairs):
    indices, mask = zip(*pairs, strict=True)
    return {"_index": np.array(indices), "_mask": np.array(mask)}


def test_each_bad_record_is_reported_once(capsys):
    corrupt = CorruptRecords(_Records(), limit=1.0)
    corrupt.update(_batch((3, False), (4, True), (9, False), (-1, False)))
    corrupt.update(_batch((3, False), (5, True)))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "unreadable: file-3.png (OSError: broken 3)",
        "unreadable: file-9.png (no error when it was read again)",
    ]
    assert list(corrupt.bad) == [3, 9]


def test_the_limit_is_the_last_share_allowed():
    corrupt = CorruptRecords(_Records(), limit=0.2)
    corrupt.update(_batch((1, False), (1, False), (2, False), (3, True)))
    with pytest.raises(UserError, match=r"3 of 10 records \(30.00%\).*file-1.png; file-2.png"):
        corrupt.update(_batch((3, False)))


def test_no_bad_record_is_allowed_at_zero():
    corrupt = CorruptRecords(_Records(), limit=0.0)
    corrupt.update(_batch((1, True), (-1, False)))
    with pytest.raises(UserError, match="1 of 10"):
        corrupt.update(_batch((1, False)))


def test_limit_out_of_range():
    with pytest.raises(UserError, match="data.corrupt_limit is 2"):
        CorruptRecords(_Records(), 2)
