"""Batch normalisation: statistics of the active positions, and PyTorch's running variance."""

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.models.batch_norm import BatchNorm

X = jnp.asarray(np.random.default_rng(0).normal(3.0, 2.0, size=(4, 5, 6, 3)), jnp.float32)


def train(variables, x, active=None, **options):
    return BatchNorm(**options).apply(variables, x, active, mutable=["batch_stats"])


def fresh():
    return BatchNorm().init(jax.random.key(0), X)


def test_initialising_leaves_the_statistics_alone():
    stats = fresh()["batch_stats"]
    assert stats["mean"].tolist() == [0, 0, 0]
    assert stats["var"].tolist() == [1, 1, 1]


def test_normalises_and_remembers():
    y, updated = train(fresh(), X)
    flat = np.asarray(X).reshape(-1, 3)
    np.testing.assert_allclose(np.asarray(y).mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(np.asarray(y).var((0, 1, 2)), 1, rtol=1e-4)
    stats = updated["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-5)


def test_evaluation_reads_the_running_statistics_only():
    variables = fresh()
    variables["batch_stats"] = {"mean": jnp.full(3, 3.0), "var": jnp.full(3, 4.0)}
    y = BatchNorm(epsilon=0.0).apply(variables, X)
    np.testing.assert_allclose(y, (X - 3) / 2, rtol=1e-5)


def test_inactive_positions_count_nowhere_and_become_zero():
    active = jnp.asarray(np.random.default_rng(1).random((4, 5, 6, 1)) < 0.4)
    y, updated = train(fresh(), X, active)
    chosen = np.asarray(X)[np.asarray(active)[..., 0]]
    stats = updated["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * chosen.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * chosen.var(0, ddof=1), rtol=1e-5)
    expected = (chosen - chosen.mean(0)) / np.sqrt(chosen.var(0) + 1e-5)
    np.testing.assert_allclose(
        np.asarray(y)[np.asarray(active)[..., 0]], expected, rtol=1e-4, atol=1e-6
    )
    assert not np.asarray(y)[~np.asarray(active)[..., 0]].any()
    other, _ = train(fresh(), jnp.where(active, X, 1e6), active)
    np.testing.assert_allclose(other, y, rtol=1e-5, atol=1e-6)


def test_statistics_are_those_of_the_global_batch():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    one, stats = train(fresh(), X)
    many, sharded = jax.jit(train)(fresh(), jax.device_put(X, sharding))
    np.testing.assert_allclose(many, one, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), sharded, stats)


def test_without_parameters_as_in_the_linear_probe_of_mae(golden):
    arrays = golden("mae_recipes")
    batches = [jnp.asarray(x) for x in arrays["in/bn/x"]]
    norm = BatchNorm(epsilon=1e-6, affine=False)
    variables = norm.init(jax.random.key(0), batches[0])
    assert "params" not in variables
    for i, x in enumerate(batches):
        y, variables = norm.apply(variables, x, mutable=["batch_stats"])
        np.testing.assert_allclose(y, arrays["out/bn/train_y"][i], atol=1e-5)
    for name in ("mean", "var"):
        expected = arrays[f"out/bn/running_{name}"]
        np.testing.assert_allclose(variables["batch_stats"][name], expected, rtol=1e-5, atol=1e-6)
    y = norm.apply(variables, batches[0])
    np.testing.assert_allclose(y, arrays["out/bn/eval_y"], atol=1e-5)
