"""The Chamfer distance: against the reference, against loops, and at coinciding points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.objectives.chamfer import Chamfer, chamfer_distances


def outputs(prediction, target):
    return {"decoder": {"prediction": prediction}, "targets": {"points": target}}


@pytest.fixture(scope="module")
def reference(golden):
    return golden("point_mae")


def test_distances_agree(reference):
    there, back = chamfer_distances(
        jnp.asarray(reference["out/rebuild_points"]), jnp.asarray(reference["out/target_points"])
    )
    np.testing.assert_allclose(there, reference["out/dist_pred_to_gt"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(back, reference["out/dist_gt_to_pred"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("norm", "name"), [("l2", "out/loss"), ("l1", "out/loss_cdl1")])
def test_losses_agree(reference, norm, name):
    sets = [
        jnp.asarray(reference[f"out/{key}_points"]).reshape(2, 9, 8, 3)
        for key in ("rebuild", "target")
    ]
    value = Chamfer(norm=norm)(outputs(*sets), {})
    np.testing.assert_allclose(value.total / value.count, reference[name], rtol=1e-5)


def test_sets_of_different_size_against_a_loop():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(7, 3))
    there = [min(((p - q) ** 2).sum() for q in b) for p in a]
    back = [min(((p - q) ** 2).sum() for p in a) for q in b]
    value = Chamfer()(outputs(jnp.asarray(a)[None, None], jnp.asarray(b)[None, None]), {})
    np.testing.assert_allclose(value.total, np.mean(there) + np.mean(back), rtol=1e-5)


def test_examples_that_are_not_real_do_not_count():
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.normal(size=(2, 3, 4, 3)), jnp.float32) for _ in range(2))
    masked = Chamfer()(outputs(a, b), {"_mask": jnp.asarray([True, False])})
    alone = Chamfer()(outputs(a[:1], b[:1]), {})
    np.testing.assert_allclose(masked.total, alone.total, rtol=1e-6)
    assert masked.count == alone.count == 3


def test_the_gradient_is_finite_where_points_coincide():
    x = jnp.ones((1, 1, 4, 3))
    gradient = jax.grad(lambda p: Chamfer(norm="l1")(outputs(p, x), {}).total)(x)
    np.testing.assert_array_equal(gradient, jnp.zeros_like(x))


def test_targets_are_not_differentiated():
    x = jnp.ones((1, 1, 4, 3))
    gradient = jax.grad(lambda t: Chamfer()(outputs(x, t), {}).total)(2 * x)
    assert not np.asarray(gradient).any()


def test_unknown_norm():
    with pytest.raises(UserError, match="l2 or l1"):
        Chamfer(norm="cd")
