"""Meshes over several slices, of simulated devices that say which slice they belong to."""

import jax
import numpy as np
import pytest
from jax.experimental import mesh_utils
from jax.sharding import PartitionSpec

from maskjax.errors import UserError
from maskjax.parallel.mesh import AXES, make_mesh
from maskjax.parallel.sharding import batch_rows, batch_sharding, place_batch


@pytest.fixture
def sliced(monkeypatch):
    """Returns a function that makes devices say to which of their slices they belong."""

    def sliced(slice_of):
        kind = type(jax.devices()[0])
        monkeypatch.setattr(kind, "slice_index", property(slice_of), raising=False)

    return sliced


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        (dict(slice=2, data=-1), (2, 4, 1, 1)),
        (dict(slice=-1, data=-1), (2, 4, 1, 1)),
        (dict(slice=-1, data=1, fsdp=2, tensor=2), (2, 1, 2, 2)),
        (dict(slice=2, fsdp=-1), (2, 1, 4, 1)),
    ],
)
def test_slices_are_outermost(sliced, sizes, shape):
    """As JAX's own mesh for two networks has it."""
    sliced(lambda device: device.id % 2)  # not in the order of the devices
    mesh = make_mesh(sizes)
    assert mesh.axis_names == AXES
    assert mesh.devices.shape == shape
    assert [{d.id % 2 for d in part.flat} for part in mesh.devices] == [{0}, {1}]
    theirs = mesh_utils.create_hybrid_device_mesh((1, *shape[1:]), (shape[0], 1, 1, 1))
    np.testing.assert_array_equal(mesh.devices, theirs)


def test_the_batch_is_split_over_slices(sliced):
    sliced(lambda device: device.id // 4)
    mesh = make_mesh(dict(slice=2, data=2, fsdp=2))
    assert batch_sharding(mesh).spec == PartitionSpec(("slice", "data", "fsdp"))
    np.testing.assert_array_equal(batch_rows(mesh, 16), np.arange(16))
    placed = place_batch(mesh, {"x": np.arange(16)})["x"]
    rows = {shard.device.id: shard.data.tolist() for shard in placed.addressable_shards}
    assert rows == {i: [2 * i, 2 * i + 1] for i in range(8)}


@pytest.mark.parametrize(
    ("slice_of", "sizes", "sentence"),
    [
        (lambda d: d.id // 4, dict(slice=4, data=-1), "form 2 slice.s.: set it to 2, or to -1"),
        (lambda d: 0, dict(slice=2, data=-1), "form 1 slice"),
        (lambda d: None, dict(slice=2, data=-1), "know of no slices"),
        (lambda d: d.id // 5, dict(slice=2, data=-1), "have 5, 3 devices"),
        (lambda d: d.id // 4, dict(slice=2, data=3), "slice=2, data=3, .* does not fit 8 devices"),
        (lambda d: d.id // 4, dict(slice=0, data=-1), "positive"),
        (lambda d: d.id // 3, dict(slice=-1, data=-1), "does not fit 8 devices"),
    ],
)
def test_slices_that_do_not_fit(sliced, slice_of, sizes, sentence):
    sliced(slice_of)
    with pytest.raises(UserError, match=sentence):
        make_mesh(sizes)


def test_tpus_of_several_slices_need_the_axis(sliced, monkeypatch):
    sliced(lambda device: device.id // 4)
    assert make_mesh(dict(data=-1)).shape["data"] == 8  # machines with GPUs: as one likes
    monkeypatch.setattr(type(jax.devices()[0]), "platform", property(lambda device: "tpu"))
    with pytest.raises(UserError, match="parallel.mesh.slice is 1, but the devices form 2 slice"):
        make_mesh(dict(data=-1))


def test_devices_without_slices_are_one():
    assert make_mesh(dict(slice=-1, data=-1)).shape["slice"] == 1
