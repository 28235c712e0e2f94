"""Grouped convolutions on any mesh: the gradient of one device, and no device's batch travels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.models.layers import convolve_groups
from maskjax.parallel.flops import count_flops
from maskjax.parallel.mesh import make_mesh
from maskjax.parallel.sharding import batch_sharding, replicated

MESHES = [dict(data=8), dict(data=4, tensor=2), dict(fsdp=2, tensor=2), dict(data=2, fsdp=2)]
CASES = [(1, 2), (1, 16), (2, 4), (2, 16)]  # dimensions, groups of 16 channels


def loss(convolve, dimensions, groups, x, kernel):
    names = ("NWC", "WIO", "NWC") if dimensions == 1 else ("NHWC", "HWIO", "NHWC")
    y = convolve(
        x,
        kernel,
        (1,) * dimensions,
        "SAME",
        dimension_numbers=names,
        feature_group_count=groups,
    )
    return (y**2).sum()


def arguments(dimensions, groups):
    rng = np.random.default_rng(0)
    shapes = (16, *(8,) * dimensions, 16), (*(3,) * dimensions, 16 // groups, 16)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize(("dimensions", "groups"), CASES)
def test_gradients(mesh, dimensions, groups):
    x, kernel = arguments(dimensions, groups)

    def gradients(convolve):
        return jax.value_and_grad(functools.partial(loss, convolve, dimensions, groups), (0, 1))

    expected = jax.jit(gradients(jax.lax.conv_general_dilated))(x, kernel)
    sizes = dict(data=1, fsdp=1, tensor=1) | mesh
    mesh = make_mesh(sizes, jax.devices()[: int(np.prod(list(sizes.values())))])
    with jax.set_mesh(mesh):
        placed = jax.device_put(x, batch_sharding(mesh)), jax.device_put(kernel, replicated(mesh))
        compiled = jax.jit(gradients(convolve_groups)).lower(*placed).compile()
        flops = count_flops(gradients(convolve_groups), x, kernel)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4),
        compiled(*placed),
        expected,
    )
    assert "all-gather" not in compiled.as_text()
    assert flops == count_flops(gradients(jax.lax.conv_general_dilated), x, kernel)


def test_a_batch_that_is_not_split():
    """One example, as when a model is initialised; and no mesh at all."""
    x, kernel = (jnp.asarray(each) for each in arguments(1, 4))
    expected = loss(jax.lax.conv_general_dilated, 1, 4, x[:1], kernel)
    with jax.set_mesh(make_mesh(dict(data=8, fsdp=1, tensor=1))):
        np.testing.assert_allclose(loss(convolve_groups, 1, 4, x[:1], kernel), expected, rtol=1e-6)
    np.testing.assert_allclose(loss(convolve_groups, 1, 4, x[:1], kernel), expected, rtol=1e-6)
