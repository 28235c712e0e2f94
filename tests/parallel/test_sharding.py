"""Meshes, where arrays lie on them, and what accelerators can do."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import mesh_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from maskjax.errors import UserError
from maskjax.parallel.devices import peak_flops
from maskjax.parallel.mesh import check_batch, make_mesh
from maskjax.parallel.sharding import (
    batch_sharding,
    constrain_batch,
    constrain_tensor,
    in_parts,
    place_batch,
    state_shardings,
)


def mesh_of(data=1, fsdp=1, tensor=1, devices=None):
    return make_mesh(dict(data=data, fsdp=fsdp, tensor=tensor), devices)


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        (dict(data=-1), (1, 8, 1, 1)),
        (dict(data=8), (1, 8, 1, 1)),
        (dict(data=-1, fsdp=4), (1, 2, 4, 1)),
        (dict(data=1, fsdp=-1), (1, 1, 8, 1)),
        (dict(data=2, fsdp=2, tensor=2), (1, 2, 2, 2)),
    ],
)
def test_mesh(sizes, shape):
    mesh = mesh_of(**sizes)
    assert tuple(mesh.shape.values()) == shape
    assert mesh.axis_types == (AxisType.Auto,) * 4


def test_mesh_of_some_devices():
    assert list(mesh_of(-1, devices=jax.devices()[2:4]).devices.flat) == jax.devices()[2:4]


@pytest.mark.parametrize("sizes", [dict(data=3), dict(data=-1, fsdp=5), dict(data=-1, fsdp=-1)])
def test_impossible_mesh(sizes):
    with pytest.raises(UserError, match=r"parallel\.mesh"):
        mesh_of(**sizes)


@pytest.mark.parametrize(
    ("batch", "accumulate", "fits"),
    [(64, 1, True), (64, 8, True), (64, 16, False), (12, 1, False), (0, 1, False), (64, 0, False)],
)
def test_batch_divides(batch, accumulate, fits):
    mesh = mesh_of(4, 2)
    if fits:
        check_batch(mesh, batch, accumulate)
    else:
        with pytest.raises(UserError, match="not divisible by 8 devices"):
            check_batch(mesh, batch, accumulate)


def test_tensor_axis_does_not_split_the_batch():
    check_batch(mesh_of(2, 1, 4), 2, 1)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((64, 256), PartitionSpec(None, "fsdp")),  # the largest dimension
        ((256, 64), PartitionSpec("fsdp")),
        ((64, 64), PartitionSpec("fsdp")),  # the first of equals
        ((12, 1001, 64), PartitionSpec(None, None, "fsdp")),  # the largest that divides
        ((999, 999), PartitionSpec()),  # none does
        ((10, 10), PartitionSpec()),  # too small
        ((), PartitionSpec()),
    ],
)
def test_state_shardings(shape, spec):
    abstract = {"x": jax.ShapeDtypeStruct(shape, jnp.float32)}
    sharding = state_shardings(mesh_of(1, 8), abstract, 1000)["x"]
    assert sharding.spec == spec
    without = state_shardings(mesh_of(8, 1), abstract, 1000)["x"]
    assert without.is_fully_replicated


def test_threshold_is_included():
    abstract = jax.ShapeDtypeStruct((8, 8), jnp.float32)
    assert state_shardings(mesh_of(1, 8), abstract, 64).spec == PartitionSpec("fsdp")
    assert state_shardings(mesh_of(1, 8), abstract, 65).spec == PartitionSpec()


def test_placed_batch():
    mesh = mesh_of(4, 2)
    images = np.arange(16 * 3, dtype=np.uint8).reshape(16, 3)
    placed = place_batch(mesh, {"image": images})["image"]
    assert placed.sharding == batch_sharding(mesh)
    np.testing.assert_array_equal(placed, images)
    shards = sorted(placed.addressable_shards, key=lambda s: s.device.id)
    assert [s.data.shape for s in shards] == [(2, 3)] * 8
    np.testing.assert_array_equal(shards[3].data, images[6:8])


def test_constraint():
    mesh = mesh_of(4, 2)
    x = jnp.ones((16, 3))
    with jax.set_mesh(mesh):
        assert jax.jit(constrain_batch)(x).sharding.is_equivalent_to(batch_sharding(mesh), 2)
        # One example, as when a model is initialised, cannot be split.
        np.testing.assert_array_equal(jax.jit(constrain_batch)(x[:1]), x[:1])
    np.testing.assert_array_equal(constrain_batch(x), x)


def test_constraint_of_heads():
    mesh = mesh_of(2, 2, 2)
    x = jnp.ones((16, 3, 4, 5))
    with jax.set_mesh(mesh):

        def spec(x, axis):
            return jax.jit(constrain_tensor, static_argnums=1)(x, axis).sharding

        heads = PartitionSpec(("slice", "data", "fsdp"), None, "tensor")
        assert spec(x, 2).is_equivalent_to(NamedSharding(mesh, heads), 4)
        assert spec(x, 1).is_equivalent_to(batch_sharding(mesh), 4)  # 3 heads on 2 devices
        np.testing.assert_array_equal(jax.jit(constrain_tensor, static_argnums=1)(x[:1], 2), x[:1])
    assert constrain_tensor(x, 2) is x
    with jax.set_mesh(mesh_of(8)):
        assert constrain_tensor(x, 2) is x


@pytest.mark.parametrize(("at_once", "together"), [(4, 16), (2, 8), (3, 8), (1, 4), (9, 16)])
def test_parts_are_of_every_device(at_once, together):
    """No device needs what another holds, nor in the gradients: there are no collectives."""
    mesh = mesh_of(2, 2, 2)
    x, y, weight = np.random.default_rng(0).normal(size=(3, 16, 5, 4, 2)).astype(np.float32)
    seen = []

    def mixed(x, y):
        seen.append(len(x))
        return jnp.einsum("bnhd,bmhd,bmhc->bnhc", x, jnp.tanh(y), y)

    def gradients(x, y, weight):
        z, back = jax.vjp(lambda *a: in_parts(mixed, at_once, *a), x, y)
        return z, back(weight)

    expected = jax.tree.map(np.asarray, gradients(x, y, weight))  # on one device
    seen.clear()
    with jax.set_mesh(mesh):
        heads = NamedSharding(mesh, PartitionSpec(("slice", "data", "fsdp"), None, "tensor"))
        arguments = jax.device_put((x, y, weight), heads)
        compiled = jax.jit(gradients).lower(*arguments).compile()
        result = compiled(*arguments)
    assert set(seen) == {together}
    for name in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert f" {name}" not in compiled.as_text()
    for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("cpu", None),
        ("TPU v99", None),
    ],
)
def test_peak(kind, peak):
    assert peak_flops(types.SimpleNamespace(device_kind=kind)) == peak


def test_a_mesh_that_does_not_follow_the_torus(monkeypatch):
    """JAX refuses to lay it out; it is possible all the same."""

    def refuse(*arguments, **keywords):
        raise NotImplementedError("Failed to find assignment for logical_axis_index 0")

    monkeypatch.setattr(mesh_utils, "create_device_mesh", refuse)
    with pytest.warns(UserWarning, match="data=2, fsdp=4, tensor=1 does not follow"):
        mesh = make_mesh({"data": 2, "fsdp": 4, "tensor": 1}, jax.devices()[:8])
    assert dict(mesh.shape) == {"slice": 1, "data": 2, "fsdp": 4, "tensor": 1}
