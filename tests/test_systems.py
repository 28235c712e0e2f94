"""Every system, at its `:tiny` size: trained, stopped, resumed, drawn, encoded, split."""

import dataclasses
import os
import signal

import jax
import numpy as np
import pytest

import maskjax
from maskjax.config import build
from maskjax.data import eval_batches, train_batches
from maskjax.evaluation import Evaluation
from maskjax.parallel.mesh import make_mesh
from maskjax.parallel.sharding import lay_out, place_batch
from maskjax.paths import named_leaves
from maskjax.report.reconstructions import draw_reconstructions
from maskjax.training.checkpoints import Checkpoints
from maskjax.training.loop import train
from maskjax.training.pretrained import CHECKPOINTS
from maskjax.training.run import claim_workdir, prepare
from maskjax.training.writers import METRICS_FILE, read_metrics
from test_configs import VARIANTS, load

TINY = [variant for variant in VARIANTS if variant.endswith("tiny")]


@pytest.mark.parametrize("variant", TINY)
def test_two_steps_saved_resumed_drawn_encoded_and_split(variant, tmp_path):
    config = load(variant)
    with config.unlocked():
        config.train.duration = "2 steps"
        config.train.batch_size = 16
        config.eval.every = "1 steps"  # where the run is stopped
        config.log.every = "1 steps"
        config.log.tensorboard = False
        config.log.pictures = 2
        config.parallel.fsdp_min_size = 64
        config.checkpoint.every = "1 steps"
        # The first step is to move the parameters, by more than rounding does; and the gradient of
        # the keys' bias, which is rounding alone, is not to be scaled up by Adam.
        config.schedule.update(base_lr=1e-3, reference_batch=0, warmup="0 steps")
        if "epsilon" in config.optimizer:
            config.optimizer.epsilon = 1e-6
    run = prepare(config, jax.devices()[:1])
    Evaluation(config, run.system, run.mesh)  # paths and labels
    claim_workdir(tmp_path, config, print)

    def stop(variables, step, final):
        if not final:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    drawn = []

    def draw(variables, step):
        drawn.append(draw_reconstructions(config, run.system, variables, step, tmp_path))

    initial = jax.device_get(run.init_state())
    assert not train(run, tmp_path, stop, draw)
    assert train(run, tmp_path, stop, draw)
    assert drawn[-1].stat().st_size > 500
    losses = [m["train/loss"] for m in read_metrics(tmp_path / METRICS_FILE) if "train/loss" in m]
    assert len(losses) == 2 and all(loss is not None for loss in losses)

    loaded = maskjax.load(tmp_path)
    assert loaded.step == 2
    before, after = initial.variables["params"], jax.device_get(loaded.variables["params"])
    changed = jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).any(), before, after))
    # dBOT's student starts anew after the first step: what starts at zero or one has moved once.
    assert np.mean(changed) > 0.25
    records = build(config.data.source).open(config.data.train_split)
    with eval_batches(records, run.system.inputs, batch_size=3, max_examples=3, threads=0) as data:
        batch = next(data)
    encoded = loaded.encode({name: batch[name] for name in run.system.inputs})
    finite = [np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(encoded))]
    assert finite and all(finite)

    check_on_eight_devices(run, initial, losses[0], tmp_path / CHECKPOINTS)


def check_on_eight_devices(run, initial, loss, checkpoints):
    """Compares a first step, split over data, fsdp and tensor, with that of one device.

    Args:
      run: on one device.
      initial: its state at the beginning.
      loss: of its first step.
      checkpoints: its directory, with the state after that step.
    """
    many, loss_of_many = step_on_eight_devices(run, initial)
    assert loss_of_many == pytest.approx(loss, rel=1e-5)
    opened = Checkpoints(checkpoints, read_only=True)
    _, state = opened.restore_latest(run.abstract_state(), step=1)
    opened.close()
    one, began = named_leaves(jax.device_get(state)), named_leaves(initial)
    assert one.keys() == many.keys()
    for name in one:
        np.testing.assert_allclose(many[name], one[name], rtol=1e-5, atol=1e-5, err_msg=name)
    trained = [name for name in one if name.startswith("variables/params/")]
    assert max(np.abs(one[name] - began[name]).max() for name in trained) > 5e-4
    # After one step the moments are the gradient, which is much smaller than that tolerance.
    moments = [name for name in one if name.startswith("opt_state/") and one[name].ndim]
    apart = np.sqrt(sum(((many[name] - one[name]) ** 2).sum() for name in moments))
    assert apart < 1e-5 * np.sqrt(sum((one[name] ** 2).sum() for name in moments))


def step_on_eight_devices(run, initial):
    """Takes the first step with everything split; returns the leaves of the state, and the loss."""
    mesh = make_mesh(dict(data=2, fsdp=2, tensor=2))
    run = dataclasses.replace(run, mesh=mesh)
    size, seed = run.config.train.batch_size, run.config.seed
    with train_batches(
        run.records, run.system.inputs, batch_size=size, seed=seed, start=0, stop=1, threads=0
    ) as batches:
        batch = next(batches)
    batch.pop("_index")
    shardings = jax.tree.map(lambda leaf: leaf.sharding, run.abstract_state())
    with jax.set_mesh(mesh):
        state = lay_out(initial, shardings)
        step = run.jitted_step().lower(state, place_batch(mesh, batch)).compile()
        state, metrics = step(state, place_batch(mesh, batch))
    return named_leaves(jax.device_get(state)), float(metrics["loss"])
