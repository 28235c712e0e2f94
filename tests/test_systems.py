"""Every system, at its `:tiny` size: split, trained, stopped, resumed, drawn, encoded."""

import json
import os
import signal

import jax
import numpy as np
import pytest

import maskjax
from conftest import GOLDENS
from maskjax.config import build
from maskjax.data import eval_batches
from maskjax.evaluation import Evaluation
from maskjax.report.reconstructions import Reconstructions
from maskjax.training.loop import train
from maskjax.training.run import claim_workdir, prepare
from maskjax.training.writers import METRICS_FILE, read_metrics
from test_configs import VARIANTS, load

pytestmark = pytest.mark.long
TINY = [variant for variant in VARIANTS if variant.endswith("tiny")]
LOSSES = os.path.join(GOLDENS, "ten_steps.json")  # of undisturbed runs on one device, by variant


def ten_steps(variant):
    """Returns a configuration of ten large steps on eight devices, split where it can be."""
    config = load(variant)
    with config.unlocked():
        config.train.duration = "10 steps"
        config.train.batch_size = 16
        config.schedule.base_lr, config.schedule.reference_batch = 3e-3, 0
        config.schedule.warmup = "2 steps"
        config.eval.every = "4 steps"
        config.log.every = "1 steps"
        config.log.tensorboard = False
        config.log.pictures = 2
        config.parallel.mesh.update(data=2, fsdp=2, tensor=2)
        config.parallel.fsdp_min_size = 64
    return config


@pytest.mark.parametrize("variant", TINY)
def test_ten_steps_stopped_resumed_drawn_and_encoded(variant, tmp_path):
    config = ten_steps(variant)
    run = prepare(config)
    Evaluation(config, run.system, run.mesh)  # paths and labels
    claim_workdir(tmp_path, config, print)

    def stop(variables, step, *_):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    reconstructions = Reconstructions(config, run.system, tmp_path, run.mesh)
    drawn = []

    def draw(variables, step):
        drawn.append(reconstructions(variables, step))

    assert not train(run, tmp_path, stop, draw)
    assert train(run, tmp_path, stop, draw)
    assert drawn[-1].stat().st_size > 500
    losses = [m["train/loss"] for m in read_metrics(tmp_path / METRICS_FILE) if "train/loss" in m]
    with open(LOSSES) as file:
        known = json.load(file)
    assert variant in known, f"of this variant ten_steps.json lacks {json.dumps(losses)}"
    np.testing.assert_allclose(losses, known[variant], rtol=1e-4)

    loaded = maskjax.load(tmp_path)
    assert loaded.step == 10
    records = build(config.data.source).open(config.data.train_split)
    with eval_batches(records, run.system.inputs, batch_size=3, max_examples=3, threads=0) as data:
        batch = next(data)
    encoded = loaded.encode({name: batch[name] for name in run.system.inputs})
    finite = [np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(encoded))]
    assert finite and all(finite)
