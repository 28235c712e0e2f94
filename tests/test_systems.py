"""Every system, at its `:tiny` size: split, trained, resumed bit for bit, drawn, encoded."""

import json
import os
import shutil

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
from maskjax.training.pretrained import CHECKPOINTS
from maskjax.training.run import claim_workdir, prepare
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
        config.checkpoint.every = "5 steps"
        config.log.every = "1 steps"
        config.log.tensorboard = False
        config.log.pictures = 2
        config.parallel.mesh.update(data=2, fsdp=2, tensor=2)
        config.parallel.fsdp_min_size = 64
    return config


@pytest.mark.parametrize("variant", TINY)
def test_ten_steps_resumed_drawn_and_encoded(variant, saved, curves, tmp_path):
    config = ten_steps(variant)
    run = prepare(config)
    Evaluation(config, run.system, run.mesh)  # paths and labels
    claim_workdir(tmp_path, config, print)

    reconstructions = Reconstructions(config, run.system, tmp_path, run.mesh)
    drawn = []

    def draw(variables, step):
        drawn.append(reconstructions(variables, step))

    assert train(run, tmp_path, lambda *_: {}, draw)
    assert drawn[-1].stat().st_size > 500
    curve, state = curves(tmp_path), saved(run, tmp_path)
    assert [step for step, _ in curve] == list(range(1, 11))
    losses = [values["train/loss"] for _, values in curve]
    with open(LOSSES) as file:
        known = json.load(file)
    assert variant in known, f"of this variant ten_steps.json lacks {json.dumps(losses)}"
    np.testing.assert_allclose(losses, known[variant], rtol=1e-4)

    shutil.rmtree(tmp_path / CHECKPOINTS / "10")
    assert train(run, tmp_path, lambda *_: {}, draw)  # goes on from step 5
    assert curves(tmp_path) == curve
    resumed = saved(run, tmp_path)
    assert [path for path in state if state[path].tobytes() != resumed[path].tobytes()] == []

    loaded = maskjax.load(tmp_path)
    assert loaded.step == 10
    records = build(config.data.source).open(config.data.train_split)
    with eval_batches(records, run.system.inputs, batch_size=3, max_examples=3, threads=0) as data:
        batch = next(data)
    encoded = loaded.encode({name: batch[name] for name in run.system.inputs})
    finite = [np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(encoded))]
    assert finite and all(finite)
