"""Settings of all tests: eight simulated CPU devices, and strict shapes."""

import fcntl
import gc
import json
import os
import shutil
import subprocess
import sys
from importlib import metadata

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the time of most tests is compilation: without optimisation, and with XLA's older emitter
# of loops, it takes a third of it. A flag that XLA does not know would end the process.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    + " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    * metadata.version("jaxlib").startswith("0.10."),
)

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from maskjax.training.checkpoints import Checkpoints
from maskjax.training.pretrained import CHECKPOINTS
from maskjax.training.writers import METRICS_FILE

# Tracing makes many objects, few of them garbage: looking for it as often as Python does by default
# takes a fifth of the time.
gc.set_threshold(100_000, 50, 100)
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

REPOSITORY = os.path.dirname(os.path.dirname(__file__))
GOLDENS = os.path.join(REPOSITORY, "tests", "goldens")
# What has to be equal, bit for bit, however often a run was interrupted.
REPRODUCIBLE = ("train/loss", "train/gradient_norm", "train/learning_rate", "train/terms/")


def pytest_collection_modifyitems(items):
    """Long tests come first: none is left to run alone at the end, beside an idle core."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Compiled programs are shared between tests, and with the commands that tests run.

    Returns where they are kept.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each process has a directory of its own below one
        base = base.parent
    options = {
        "jax_compilation_cache_dir": str(base / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in options.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
    compilation_cache.reset_cache()
    return options["jax_compilation_cache_dir"]


@pytest.fixture(scope="session")
def golden():
    """Returns a function that loads the arrays of a reference run by name."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(os.path.join(GOLDENS, f"{name}.npz")) as file:
            return dict(file)

    return load


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, cache):
    """Trains `configs/mae.py:tiny` for a few steps with the command; returns the directory.

    It is trained once. Each process of tests has a copy, since some evaluate it once more.
    """
    trained = f"{os.path.dirname(cache)}/tiny"
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    with open(f"{trained}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(f"{trained}/report.html"):  # the last that a run writes
            train("configs/mae.py:tiny", trained, "--config.train.duration=6 steps")
    shutil.copytree(trained, workdir)
    return workdir


def train(config: str, workdir, *overrides: str) -> str:
    """Runs the training command as a user does, on one device; returns what it printed."""
    command = [sys.executable, "-m", "maskjax.train", f"--config={config}", f"--workdir={workdir}"]
    result = subprocess.run(
        [*command, *overrides], capture_output=True, text=True, timeout=600, cwd=REPOSITORY
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


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
