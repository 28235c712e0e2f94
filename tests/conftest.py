"""Settings of all tests: eight simulated CPU devices, and strict shapes."""

import os
import subprocess
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

REPOSITORY = os.path.dirname(os.path.dirname(__file__))
GOLDENS = os.path.join(REPOSITORY, "tests", "goldens")


@pytest.fixture(scope="session")
def golden():
    """Returns a function that loads the arrays of a reference run by name."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(os.path.join(GOLDENS, f"{name}.npz")) as file:
            return dict(file)

    return load


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """Trains `configs/mae.py:tiny` for a few steps with the command; returns the directory."""
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    train("configs/mae.py:tiny", workdir, "--config.train.duration=6 steps")
    return workdir


def train(config: str, workdir, *overrides: str) -> str:
    """Runs the training command as a user does, on one device; returns what it printed."""
    command = [sys.executable, "-m", "maskjax.train", f"--config={config}", f"--workdir={workdir}"]
    result = subprocess.run(
        [*command, *overrides], capture_output=True, text=True, timeout=600, cwd=REPOSITORY
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
