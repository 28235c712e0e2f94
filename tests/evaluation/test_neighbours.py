import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from maskjax.evaluation import neighbours
from maskjax.evaluation.features import Features
from maskjax.evaluation.knn import KNN, knn_predict
from maskjax.evaluation.neighbours import nearest
from maskjax.parallel.mesh import make_mesh


def mesh_of(devices):
    """A mesh as runs have it: its shape must not matter."""
    shape = dict(data=2, fsdp=2, tensor=2) if devices == 8 else dict(data=1, fsdp=1, tensor=1)
    return make_mesh(shape, jax.devices()[:devices])


def exact(rng, count, width=8):
    """Rows whose similarities are multiples of 1/4, exact in any order of summation: many ties."""
    rows = np.zeros((count, width), np.float32)
    for row in rows:
        row[rng.permutation(width)[:4]] = rng.choice([-2.0, 2.0], 4)
    return rows


def brute_force(train, test, k):
    """In float64, of equals the first."""
    train, test = (x.astype(np.float64) for x in (train, test))
    train, test = (
        x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9) for x in (train, test)
    )
    similarities = test @ train.T
    rows = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarities, rows, axis=1), rows


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize(
    "n,m,k,train_chunk,test_chunk",
    [(203, 21, 20, 7, 8), (203, 21, 20, 1000, 1000), (203, 9, 203, 16, 4), (5, 3, 2, 4, 2)],
)
def test_agrees_with_brute_force_on_any_devices(devices, n, m, k, train_chunk, test_chunk):
    rng = np.random.default_rng(n + k)
    train, test = exact(rng, n), exact(rng, m)
    train[n // 2] = 0  # similar to nothing, in the middle of the ties
    found = nearest(train, test, k, mesh_of(devices), train_chunk, test_chunk)
    expected = brute_force(train, test, k)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])  # of equals the first, on any device
    assert [x.dtype for x in found] == [np.float32, np.int32]


def test_many_test_rows_take_several_passes(monkeypatch):
    monkeypatch.setattr(neighbours, "_PASS", 2)
    rng = np.random.default_rng(0)
    train, test = exact(rng, 30), exact(rng, 25)
    expected = brute_force(train, test, 3)[1]
    for mesh in (mesh_of(8), None):
        with jax.set_mesh(mesh_of(8)):  # as within a training
            found = nearest(train, test, 3, mesh, train_chunk=2, test_chunk=4)
        np.testing.assert_array_equal(found[1], expected)


def test_accuracy_is_the_same_on_any_devices():
    from sklearn.datasets import load_digits

    digits = load_digits()
    values, labels = digits.data.astype(np.float32), digits.target.astype(np.int32)
    train, test = ((values[part], labels[part]) for part in (slice(1500), slice(1500, None)))
    accuracies = [
        KNN().score(Features(*train, mesh), Features(*test))
        for mesh in (None, mesh_of(1), mesh_of(8))
    ]
    assert accuracies[0] == accuracies[1] == accuracies[2]


def test_one_program_for_all_chunks_and_no_more_than_two_of_them_on_the_devices(monkeypatch):
    """What lies on the devices does not grow with the training set."""
    held, chunks = [], neighbours._chunks

    def watched(*arguments):
        for chunk in chunks(*arguments):
            held.append(sum(x.nbytes for x in jax.live_arrays()))
            yield chunk

    monkeypatch.setattr(neighbours, "_chunks", watched)
    test = np.eye(8, 64, dtype=np.float32)
    before = neighbours._merge._cache_size()
    peaks = []
    for n in (8 * 64, 64 * 64):
        held.clear()
        train = np.random.default_rng(0).normal(size=(n, 64)).astype(np.float32)
        nearest(train, test, 4, mesh_of(8), train_chunk=8)
        peaks.append(max(held))
    assert len(held) == 64
    chunk = 8 * 8 * 64 * 4
    assert peaks[1] - peaks[0] <= chunk  # a copy that was not yet given back
    assert neighbours._merge._cache_size() == before + 1


def test_imagenet_fits_every_device():
    """1.28 million times 768 on eight devices: the compiled step needs less than half a GiB."""
    mesh = neighbours._line(mesh_of(8))
    shares, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec("rows"), PartitionSpec()))
    tests, chunk, width, k = (64, 1024), 8192, 768, 20

    def shape(dims, dtype, sharding):
        return jax.ShapeDtypeStruct(dims, dtype, sharding=sharding)

    best = tuple(shape((8, *tests, k), dtype, shares) for dtype in (jnp.float32, jnp.int32))
    step = neighbours._merge.lower(
        mesh,
        best,
        shape((*tests, width), jnp.float32, whole),
        shape((8, chunk, width), jnp.float32, shares),
        *[shape((8,), jnp.int32, shares)] * 2,
    )
    for program in (step, neighbours._gather.lower(mesh, best)):
        memory = program.compile().memory_analysis()
        used = memory.argument_size_in_bytes + memory.temp_size_in_bytes
        assert used < 2**29
        assert memory.argument_size_in_bytes >= 2 * np.prod(tests) * k * 4  # it was measured
    rows = 2 * chunk + np.prod(tests)
    stated = 4 * width * rows + 4 * chunk * tests[1]
    assert stated < 2**29


def test_labels_of_the_neighbours_vote():
    rng = np.random.default_rng(1)
    train, test = exact(rng, 90), exact(rng, 40)
    labels = rng.integers(0, 7, 90).astype(np.int32)
    similarities, rows = brute_force(train, test, 12)
    votes = np.zeros((40, 7))
    for vote, near, row in zip(votes, similarities, rows, strict=True):
        np.add.at(vote, labels[row], np.exp(near / 0.07))
    for devices in (1, 8):
        predicted = knn_predict(
            train, labels, test, k=12, mesh=mesh_of(devices), train_chunk=16, test_chunk=16
        )
        np.testing.assert_array_equal(predicted, votes.argmax(axis=1))
