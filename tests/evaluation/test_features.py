import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from maskjax.data import Image
from maskjax.errors import UserError
from maskjax.evaluation import KNN, AttentiveProbe
from maskjax.evaluation.features import (
    check_pair,
    check_vectors,
    extract,
    raw_features,
    selector,
)

N, B = 21, 8
INPUTS = {"image": Image((4, 4), 3)}


def batches(n=N, size=B, labelled=True):
    """Every record once; the last batch is padded, record 3 is unreadable."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    for start in range(0, n, size):
        count = min(size, n - start)
        image = np.zeros((size, 4, 4, 3), np.uint8)
        image[:count] = images[start : start + count]
        batch = {"image": image, "_mask": np.arange(size) < count}
        batch["_mask"] &= start + np.arange(size) != 3
        batch["_index"] = np.arange(start, start + size)
        if labelled:
            batch["label"] = (np.arange(start, start + size) % 10).astype(np.int32)
        yield batch


def encode(variables, batch):
    x = batch["image"].astype(jnp.bfloat16).reshape(len(batch["image"]), -1, 3) * variables
    encoder = {"tokens": x, "mean": x.mean(axis=1), "cls": x[:, 0], "loss": x.sum()}
    return {"x": x[:, 0], "encoder": encoder}


def expected(batch_size=B):
    rows = [i for i in range(N) if i != 3]
    images = np.concatenate([b["image"] for b in batches()])
    return images[rows], np.array(rows) % 10


def test_every_readable_example_once_and_in_order():
    paths = ["encoder.cls", "encoder.mean", "encoder.cls"]
    out = extract(selector(encode, paths), jnp.bfloat16(2), batches(), jax.device_put)
    images, labels = expected()
    assert list(out) == ["encoder.cls", "encoder.mean"]
    for features in out.values():
        assert (features.values.dtype, features.labels.dtype) == (np.float32, np.int32)
        np.testing.assert_array_equal(features.labels, labels)
        assert len(features) == N - 1
    np.testing.assert_allclose(out["encoder.cls"].values, 2.0 * images[:, 0, 0])
    mean = 2.0 * images.reshape(N - 1, -1, 3).mean(axis=1)
    np.testing.assert_allclose(out["encoder.mean"].values, mean, rtol=0.02)


def test_sharded_batches_give_the_same():
    devices = np.array(jax.devices()[: 8 if len(jax.devices()) >= 8 else 1])
    sharding = NamedSharding(jax.sharding.Mesh(devices, "data"), PartitionSpec("data"))
    place = lambda batch: jax.device_put(batch, sharding)  # noqa: E731
    sharded = extract(selector(encode, ["encoder.mean"]), jnp.float32(2), batches(), place)
    single = extract(selector(encode, ["encoder.mean"]), jnp.float32(2), batches(), jax.device_put)
    np.testing.assert_array_equal(sharded["encoder.mean"].values, single["encoder.mean"].values)


def test_traced_once_and_prunes_what_is_not_asked_for():
    traces = []

    def failing_when_run(x):
        raise AssertionError("this output was not asked for")

    def encode(variables, batch):
        traces.append(1)
        x = batch["image"].reshape(len(batch["image"]), -1)
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return {"used": x, "unused": jax.pure_callback(failing_when_run, shape, x)}

    extract(selector(encode, ["used"]), None, batches(), jax.device_put)
    assert len(traces) == 1


def test_batches_are_read_one_ahead_of_the_fetch():
    placed = []

    def place(batch):
        placed.append(batch)
        return batch

    # Lazy all the same: the second batch is not read before the first was dispatched.
    source = batches()
    first = next(source)

    def endless():
        yield first
        assert len(placed) == 1
        yield from source

    out = extract(selector(encode, ["encoder.mean"]), 1, endless(), place)
    assert len(out["encoder.mean"]) == N - 1


def test_no_mask_keeps_all():
    source = ({"image": b["image"], "label": b["label"]} for b in batches(16))
    out = extract(selector(encode, ["encoder.cls"]), 1, source, jax.device_put)
    assert len(out["encoder.cls"]) == 16


@pytest.mark.parametrize(
    "path,message",
    [
        ("encoder.loss", r"shape \(\)"),
        ("encoder.meen", "encoder.mean"),
    ],
)
def test_unusable_paths_are_one_sentence(path, message):
    with pytest.raises(UserError, match=message):
        extract(selector(encode, [path]), 1, batches(), jax.device_put)


def test_tokens_are_for_those_who_read_tokens():
    select = selector(encode, ["encoder.tokens", "encoder.mean"])
    out = extract(select, 1, batches(), jax.device_put)["encoder.tokens"]
    assert out.values.shape == (N - 1, 16, 3)
    shapes = jax.eval_shape(select, jnp.float32(1), next(iter(batches())))
    check_vectors(shapes, AttentiveProbe(feature="encoder.tokens"))
    check_vectors(shapes, AttentiveProbe(feature="encoder.mean"))
    check_vectors(shapes, KNN(feature="encoder.mean"))
    with pytest.raises(UserError, match=r"\(8, 16, 3\).*pooled feature such as encoder.mean"):
        check_vectors(shapes, KNN(feature="encoder.tokens"))


def test_unlabelled_and_empty_data_are_one_sentence():
    for function in (
        lambda source: raw_features(source, INPUTS, {"x": None})["x"],
        lambda source: extract(selector(encode, ["x"]), 1, source, jax.device_put)["x"],
    ):
        unlabelled = function(batches(labelled=False))
        assert unlabelled.labels is None and len(unlabelled) == N - 1
        with pytest.raises(UserError, match="no labels"):
            check_pair(unlabelled, unlabelled)
        with pytest.raises(UserError, match="no readable example"):
            function([])


def test_raw_features():
    features = raw_features(batches(), INPUTS, {"x": None, "batch.label": None})["x"]
    images, labels = expected()
    np.testing.assert_allclose(features.values, images.reshape(N - 1, -1) / 255, rtol=1e-6)
    np.testing.assert_array_equal(features.labels, labels)
    assert features.values.dtype == np.float32
