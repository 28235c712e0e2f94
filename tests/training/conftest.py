"""A run of seconds, and what the tests of training look at afterwards."""

import json
import os
import runpy
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from maskjax.training.checkpoints import Checkpoints
from maskjax.training.loop import train
from maskjax.training.pretrained import CHECKPOINTS
from maskjax.training.run import claim_workdir, prepare
from maskjax.training.writers import METRICS_FILE

CONFIG = Path(__file__).parents[2] / "configs" / "mae.py"
# What has to be equal, bit for bit, however often a run was interrupted.
REPRODUCIBLE = ("train/loss", "train/gradient_norm", "train/learning_rate", "train/terms/")


@pytest.fixture(scope="session")
def tiny():
    """Returns a function that makes a configuration: 20 steps, of which 11 are an epoch."""

    def make(**overrides):
        config = runpy.run_path(str(CONFIG))["get_config"]("tiny")
        with config.unlocked():
            config.update_from_flattened_dict(
                {
                    "system.encoder.depth": 1,
                    "data.inputs.image.augment.crop": "shift",
                    "data.test_split": None,
                    "train.duration": "20 steps",
                    "train.batch_size": 128,
                    "log.every": "1 steps",
                    "log.tensorboard": False,
                    **{key.replace("__", "."): value for key, value in overrides.items()},
                }
            )
        return config

    return make


@pytest.fixture(scope="session")
def launch():
    """Returns a function that trains and returns whether the run is complete.

    `stop_after`: SIGTERM is sent such that this step is the last.
    """

    def launch(run, workdir, stop_after=None, evaluate=None):
        claim_workdir(workdir, run.config, print)

        def interrupt(variables, step, final, go_on):
            if stop_after is not None and step == stop_after - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return {} if evaluate is None else evaluate(variables, step, final, go_on)

        return train(run, workdir, interrupt, lambda variables, step: None)

    return launch


@pytest.fixture(scope="session")
def one_device():
    """Returns a function that prepares a run on the first device alone."""
    return lambda config: prepare(config, jax.devices()[:1])


@pytest.fixture(scope="session")
def saved():
    """Returns a function that reads a checkpoint: {path of the leaf: array}."""

    def read(run, workdir, step=None):
        checkpoints = Checkpoints(workdir / CHECKPOINTS, read_only=True)
        found, state = checkpoints.restore_latest(run.abstract_state, step=step)
        checkpoints.close()
        leaves = jax.tree_util.tree_flatten_with_path(state)[0]
        assert found == int(state.step)
        return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}

    return read


@pytest.fixture(scope="session")
def curves():
    """Returns a function that reads metrics: [(step, {name: value})], what has no time in it."""

    def read(workdir):
        lines = map(json.loads, (workdir / METRICS_FILE).read_text().splitlines())
        each = [
            (line["step"], {k: v for k, v in line.items() if k.startswith(REPRODUCIBLE)})
            for line in lines
        ]
        return [(step, values) for step, values in each if values]

    return read
