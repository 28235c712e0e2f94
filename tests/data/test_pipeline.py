"""Tests of maskjax.data.pipeline."""

import collections
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from maskjax.data import Augment, Digits, Image, eval_batches, train_batches
from maskjax.errors import UserError


def images(size=(4, 6), channels=1, **options):
    return {"image": Image(size, channels, (0.5,) * channels, (0.5,) * channels, **options)}


DEVICE = images()
HOST = images(augment=Augment(place="host", crop="resized", flip=True))


class Records:
    """N images of different sizes; `bad` ones raise. At module level, so that it can be pickled."""

    label_names = None

    def __init__(self, n, bad=(), channels=1, num_classes=5):
        self.n, self.bad, self.channels, self.num_classes = n, set(bad), channels, num_classes

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i in self.bad:
            raise OSError(f"broken {i}")
        shape = (9 + i % 3, 12 + i % 4, self.channels)
        image = np.random.default_rng(i).integers(0, 256, shape).astype(np.uint8)
        return {"image": image} | ({"label": i % 5} if self.num_classes else {})

    def describe(self, i):
        return f"record {i}"


def _train(records, n=None, inputs=DEVICE, **arguments):
    arguments = dict(batch_size=8, seed=1, threads=2) | arguments
    with train_batches(records, inputs, **arguments) as batches:
        return list(itertools.islice(batches, n))


def _eval(records, **arguments):
    with eval_batches(records, DEVICE, **(dict(batch_size=8, threads=2) | arguments)) as batches:
        return list(batches)


def _assert_equal(some, others):
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            assert one[key].dtype == other[key].dtype
            np.testing.assert_array_equal(one[key], other[key])


def _indices(batches):
    return np.concatenate([batch["_index"] for batch in batches])


def test_a_batch():
    (batch,) = _train(Records(20), stop=1)
    shapes = {key: (value.shape, value.dtype) for key, value in batch.items()}
    assert shapes == {
        "image": ((8, 4, 6, 1), np.uint8),
        "label": ((8,), np.int32),
        "_mask": ((8,), bool),
        "_index": ((8,), np.int32),
    }
    assert type(batch["image"]) is np.ndarray
    assert batch["_mask"].all()
    np.testing.assert_array_equal(batch["label"], batch["_index"] % 5)
    assert "label" not in _train(Records(20, num_classes=None), stop=1)[0]


def test_every_epoch_takes_every_record_once_in_a_new_order():
    epochs = [_indices(_train(Records(24), start=3 * e, stop=3 * e + 3)) for e in range(4)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(24))
    assert len({epoch.tobytes() for epoch in epochs}) == 4


def test_the_tail_is_dropped_and_differs():
    tails = set()
    for e in range(20):
        epoch = _indices(_train(Records(19), start=2 * e, stop=2 * e + 2))
        assert len(set(epoch.tolist())) == 16
        tails |= set(range(19)) - set(epoch.tolist())
    assert len(tails) > 12


def test_seeds_and_epochs_are_not_shifted_copies():
    # Epoch 1 of seed 0 must not be epoch 0 of seed 1.
    orders = [
        _indices(_train(Records(24), seed=seed, start=3 * e, stop=3 * e + 3)).tobytes()
        for seed in range(3)
        for e in range(3)
    ]
    assert len(set(orders)) == 9


def test_positions_are_shuffled_evenly():
    epochs = _train(Records(8), stop=100, threads=0, prefetch=0)
    places = np.stack([batch["_index"] for batch in epochs])
    for place in range(8):
        counts = np.bincount(places[:, place], minlength=8)
        assert counts.min() > 0 and counts.max() < 30  # 12.5 expected, sigma 3.3


@pytest.mark.parametrize("inputs", [DEVICE, images(augment=Augment(crop="resized")), HOST])
def test_batch_number_decides_all(inputs):
    whole = _train(Records(19, bad=[4]), stop=9, inputs=inputs)
    for start in (1, 2, 5):
        for threads, prefetch in ((0, 0), (1, 5), (5, 64)):
            tail = _train(
                Records(19, bad=[4]),
                start=start,
                stop=9,
                inputs=inputs,
                threads=threads,
                prefetch=prefetch,
            )
            _assert_equal(whole[start:], tail)
    assert len({batch["image"].tobytes() for batch in whole}) == 9


def test_worker_processes_change_nothing():
    records = Digits().open("test")
    arguments = dict(batch_size=100, seed=1, start=1, stop=9, threads=2)
    inputs = images((8, 8), augment=HOST["image"].augment)
    with train_batches(records, inputs, **arguments) as batches:
        here = list(batches)
    with train_batches(records, inputs, workers=2, **arguments) as batches:
        there = list(batches)
    _assert_equal(here, there)
    assert type(there[0]["image"]) is np.ndarray
    # Mistakes of the user come through.
    wrong = images((8, 8), channels=2)
    with (
        train_batches(records, wrong, workers=1, **arguments) as batches,
        pytest.raises(UserError, match="the input has 2"),
    ):
        next(batches)


def test_a_killed_worker_is_told_within_ten_seconds():
    before = set(multiprocessing.active_children())
    with train_batches(Records(8), DEVICE, batch_size=4, seed=0, workers=1, prefetch=4) as batches:
        next(batches)
        (worker,) = set(multiprocessing.active_children()) - before
        os.kill(worker.pid, signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(UserError, match="worker process that reads the data was killed"):
            collections.deque(itertools.islice(batches, 100_000), maxlen=0)
    assert time.monotonic() - began < 10


def test_host_augmentation_differs_by_epoch_and_seed():
    records = Records(8)
    images = [
        batch["image"][batch["_index"] == 3].tobytes()
        for seed in (1, 2)
        for batch in _train(records, seed=seed, stop=4, inputs=HOST)
    ]
    assert len(set(images)) == 8


@pytest.mark.parametrize("inputs", [DEVICE, HOST])
def test_processes_share_each_batch(inputs):
    arguments = dict(stop=4, inputs=inputs)
    whole = _train(Records(20, bad=[4]), **arguments)
    # The last: what a process holds if the order of the devices follows their wiring.
    for rows in ([0, 1], [2, 3], [4, 5], [6, 7], [0, 1, 4, 5]):
        part = _train(Records(20, bad=[4]), rows=np.array(rows), **arguments)
        _assert_equal([{k: v[rows] for k, v in batch.items()} for batch in whole], part)


def test_a_process_reads_only_its_share():
    read = []

    class Counting(Records):
        def __getitem__(self, i):
            read.append(i)
            return super().__getitem__(i)

    batches = _train(Counting(16), stop=2, rows=np.array([2, 3]))
    assert sorted(read) == sorted(_indices(batches))
    assert len(read) == 4


def test_decode_size():
    device = _train(Records(20), stop=1, inputs=images(decode_size=(9, 10)))[0]
    assert device["image"].shape == (8, 9, 10, 1)
    inputs = images(decode_size=(9, 10), augment=HOST["image"].augment)
    host = _train(Records(20), stop=1, inputs=inputs)[0]
    assert host["image"].shape == (8, 4, 6, 1)


def test_inputs_of_an_example_draw_alike_and_may_be_missing():
    class Pairs(Records):
        def __getitem__(self, i):
            image = super().__getitem__(i)["image"]
            return {"image": image, "label": 0} | ({} if i % 2 else {"depth": image})

    inputs = HOST | {"depth": Image((4, 6), 1, (0.1,), (0.2,), None, HOST["image"].augment, True)}
    for batch in _train(Pairs(16, bad=[3, 4]), stop=2, inputs=inputs):
        here = batch["_mask"] & (batch["_index"] % 2 == 0)
        np.testing.assert_array_equal(batch["_has_depth"], here)
        np.testing.assert_array_equal(batch["depth"][here], batch["image"][here])
        assert not batch["depth"][~here].any()
    with pytest.raises(UserError, match="no 'depth', they give 'image'"):
        _train(Records(16), stop=1, inputs=images() | {"depth": DEVICE["image"]})


def test_corrupt_records_are_masked():
    batches = _train(Records(16, bad=[3, 11]), stop=2)
    for batch in batches:
        bad = np.isin(batch["_index"], [3, 11])
        np.testing.assert_array_equal(batch["_mask"], ~bad)
        assert not batch["image"][bad].any() and (batch["label"][bad] == -1).all()
        assert batch["image"][~bad].any((1, 2, 3)).all()
    assert {3, 11} <= set(_indices(batches))


def test_evaluation_takes_every_record_in_order():
    batches = _eval(Records(19, bad=[17]))
    assert [batch["image"].shape[0] for batch in batches] == [8, 8, 8]
    np.testing.assert_array_equal(_indices(batches), [*range(19), *[-1] * 5])
    mask = np.concatenate([batch["_mask"] for batch in batches])
    np.testing.assert_array_equal(mask, [*[True] * 17, False, True, *[False] * 5])
    last = batches[-1]
    assert not last["image"][~last["_mask"]].any()
    np.testing.assert_array_equal(last["label"], [1, -1, 3, -1, -1, -1, -1, -1])
    assert len(_eval(Records(16))) == 2
    assert len(_eval(Records(3))) == 1
    parts = [_eval(Records(19), rows=np.arange(4 * p, 4 * p + 4)) for p in range(2)]
    np.testing.assert_array_equal(parts[1][2]["_mask"], [False] * 4)
    np.testing.assert_array_equal(parts[0][2]["_index"], [16, 17, 18, -1])


def test_evaluation_of_some_spreads_them():
    batches = _eval(Records(100), max_examples=10)
    np.testing.assert_array_equal(_indices(batches)[:10], np.arange(0, 100, 10))
    assert sum(batch["_mask"].sum() for batch in batches) == 10
    assert sum(batch["_mask"].sum() for batch in _eval(Records(7), max_examples=10)) == 7


def test_endless_unless_stopped():
    batches = train_batches(Records(20), DEVICE, batch_size=8, seed=0, start=10**9)
    assert len(list(itertools.islice(batches, 5))) == 5
    batches.close()
    assert list(batches) == []
    assert _train(Records(20), start=3, stop=3) == []


def test_closing_ends_the_threads():
    def readers():
        return {t for t in threading.enumerate() if t.name.startswith(("maskjax", "grain"))}

    before = readers()
    batches = train_batches(Records(20), DEVICE, batch_size=8, seed=0)
    next(batches)
    mine = readers() - before
    assert mine
    batches.close()
    batches.close()
    deadline = time.monotonic() + 10
    while readers() & mine and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not readers() & mine


def test_the_program_ends_without_closing():
    program = """
import maskjax.data as data
if __name__ == "__main__":
    inputs = {"image": data.Image((8, 8), 1, (0.5,), (0.5,))}
    records = data.Digits().open("train")
    arguments = dict(batch_size=64, seed=0)
    iterators = [data.train_batches(records, inputs, workers=w, **arguments) for w in (0, 1)]
    held = [next(iterator) for iterator in iterators]
    print(held[0]["_index"].tolist() == held[1]["_index"].tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True
    )
    assert done.stdout.strip() == "True"
    assert done.stderr == ""


def test_mistakes():
    with pytest.raises(UserError, match="There are 7 records, fewer than a batch of 8"):
        train_batches(Records(7), DEVICE, batch_size=8, seed=0)
    with pytest.raises(UserError, match="has no records"):
        eval_batches(Records(0), DEVICE, batch_size=8)
    with pytest.raises(UserError, match="batch size is 0"):
        train_batches(Records(20), DEVICE, batch_size=0, seed=0)
    with pytest.raises(UserError, match="augment.shift is 4"):
        images(augment=Augment(crop="shift", shift=4))
    with pytest.raises(UserError, match="has 2 channels but the input has 1"):
        _train(Records(20, channels=2), stop=1)
