"""Gradients that have to agree, and those of one training step on any mesh."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from maskjax.data import train_batches
from maskjax.parallel.sharding import batch_rows, fetch, lay_out, place_batch
from maskjax.paths import named_leaves
from maskjax.training.run import prepare
from test_configs import load

BATCH = 16


def close(a, b, rtol, floor=0.1):
    """As one long vector, and for each array by its largest entry.

    Args:
      a: tree of arrays.
      b: what it should be.
      rtol: relative tolerance of both.
      floor: the least measure of an array, as a share of the largest entry of all. There are
        gradients which are zero but for rounding, such as that of the keys' bias, or of a bias
        before a norm.
    """
    assert jax.tree.structure(a) == jax.tree.structure(b)
    difference = jax.tree.map(lambda x, y: x - y, a, b)
    assert float(optax.tree.norm(difference)) <= rtol * float(optax.tree.norm(b))
    whole = max(float(np.abs(x).max()) for x in jax.tree.leaves(b))
    for d, y in zip(jax.tree.leaves(difference), jax.tree.leaves(b), strict=True):
        scale = max(float(np.abs(y).max()), floor * whole)
        assert float(np.abs(d).max()) <= rtol * scale


class Step(NamedTuple):
    """What `one_step` found."""

    start: Any  # the training state before, on the host
    loss: np.ndarray
    gradients: dict[str, np.ndarray]  # by path
    others: dict[str, np.ndarray]  # the variables that are no parameters, after the step


def one_step(variant, devices=None, start=None, **mesh):
    """Takes the first training step of a variant of `test_configs`, along its plain gradient.

    Args:
      variant: e.g. "mae:tiny".
      devices: of the mesh; None: all.
      start: that of another `Step`; None: it is drawn.
      **mesh: sizes of its axes.
    """
    config = load(variant)
    with config.unlocked():
        config.train.batch_size = BATCH
        config.parallel.mesh.update(dict(data=1, fsdp=1, tensor=1) | mesh)
        config.parallel.fsdp_min_size = 64
        for target in (config.system.get("targets") or {}).values():
            if "epsilon" in target:  # else a flat patch divides rounding by its deviation
                target.epsilon = 1e-2
    run = prepare(config, devices)
    run = dataclasses.replace(run, optimizer=optax.identity(), schedule=lambda _: jnp.float32(1))
    rows = batch_rows(run.mesh, BATCH)
    options = dict(batch_size=BATCH, seed=0, start=0, stop=1, threads=0, prefetch=0, rows=rows)
    with train_batches(run.records, run.system.inputs, **options) as batches:
        batch = {name: value for name, value in next(batches).items() if name != "_index"}
    with jax.set_mesh(run.mesh):
        if start is None:
            state = run.init_state()
            start = fetch(state)
        else:
            state = lay_out(start, jax.tree.map(lambda x: x.sharding, run.abstract_state))
        batch = place_batch(run.mesh, batch)
        state, metrics = run.jitted_step(state, batch)
        before, after = named_leaves(start.variables), fetch(named_leaves(state.variables))
    params = {path for path in before if path.startswith("params/")}
    gradients = {path: before[path] - after[path] for path in params}
    others = {path: after[path] for path in after.keys() - params}
    return Step(start, fetch(metrics)["loss"], gradients, others)


def same_step(here, there, rtol):
    """Asserts that two results of `one_step` agree."""
    np.testing.assert_allclose(here.loss, there.loss, rtol=rtol)
    close(here.gradients, there.gradients, rtol, floor=1.0)
    close(here.gradients, there.gradients, 10 * rtol)
    assert here.others.keys() == there.others.keys()
    for path, value in there.others.items():
        np.testing.assert_allclose(here.others[path], value, rtol, rtol, err_msg=path)
