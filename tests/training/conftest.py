"""A run of seconds."""

import os
import runpy
import signal
from pathlib import Path

import jax
import pytest

from maskjax.training.loop import train
from maskjax.training.run import claim_workdir, prepare

CONFIG = Path(__file__).parents[2] / "configs" / "mae.py"


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
