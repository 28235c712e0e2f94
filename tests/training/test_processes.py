"""Several processes on this machine train as one does: same records, losses and parameters."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import commands
import jax
import numpy as np
import pytest

from maskjax.training.run import prepare, read_config

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
STEPS = 20
EVALUATE = "--config.data.test_split=test"
CONFIG = f"""
import runpy
from maskjax.config import part

def get_config():
    config = runpy.run_path({str(ROOT / "configs" / "mae.py")!r})["get_config"]("tiny")
    config.system.encoder.depth = 1
    config.system.decoder.width = 8
    # Without the division by a deviation, which magnifies rounding in flat patches.
    with config.unlocked():
        config.system.targets.pixels = part("targets.Pixels")
        del config.eval.evaluators.linear
    config.optimizer.epsilon = 1e-6
    config.data.inputs.image.augment.crop = "shift"
    config.data.threads = 2
    config.data.test_split = None
    config.eval.batch_size = 256
    config.eval.max_train_examples = 500
    config.train.duration = "{STEPS} steps"
    config.train.batch_size = 64
    config.checkpoint.every = "1000 steps"
    config.log.every = "1 steps"
    config.log.tensorboard = False
    config.log.pictures = 2
    return config
"""
# The command, with a hook at every batch that a process reads: notes its records, does a mischief.
# Or the mischief is done in an evaluation.
COMMAND = """
import json, os, runpy, signal, sys, time
from maskjax.data.corrupt import CorruptRecords
from maskjax.evaluation import KNN

process = next((int(a.split("=")[1]) for a in sys.argv if a.startswith("--process=")), 0)
mischief = json.loads(os.environ.get("MISCHIEF", "{}"))
update, seen = CorruptRecords.update, []

def hook(self, batch):
    update(self, batch)
    seen.append(batch["_index"].tolist())
    with open(os.environ["SEEN"] + f".{process}", "w") as file:
        json.dump(seen, file)
    time.sleep(mischief.get("sleep", 0.0))
    if len(seen) == mischief.get("batch"):
        do_mischief()

def do_mischief():
    if process == mischief["process"]:
        os.kill(os.getppid() if mischief["to"] == "launcher" else os.getpid(), mischief["signal"])

def evaluated(self, *features):
    if mischief.get("evaluating") == len(seen):
        do_mischief()
        time.sleep(2)  # until all have heard of it
    return score(self, *features)

CorruptRecords.update = hook
score, KNN.score = KNN.score, evaluated
if process == 1:
    sys.argv += mischief.get("flags", [])
runpy.run_module("maskjax.train", run_name="__main__", alter_sys=True)
"""


class Starter:
    """Runs the command as one process or several, to the end."""

    def __init__(self, folder):
        self.config, self.command = folder / "config.py", folder / "command.py"
        self.config.write_text(CONFIG)
        self.command.write_text(COMMAND)

    def _arguments(self, workdir, flags, mischief):
        command = [str(self.command), f"--config={self.config}", f"--workdir={workdir}", *flags]
        environment = {
            "SEEN": str(workdir) + ".seen",
            "MISCHIEF": json.dumps(mischief),
            "MASKJAX_TIMEOUTS": "60,20,60",
        }
        return command, environment

    def __call__(self, workdir, processes, *flags, **mischief):
        """Copies of one that has imported everything."""
        command, environment = self._arguments(workdir, flags, mischief)
        return commands.run_as(processes, *command, environment=environment)

    def launch(self, workdir, *flags, **mischief):
        """Two processes as a user starts them; what they print is in stdout."""
        command, environment = self._arguments(workdir, flags, mischief)
        launcher = [sys.executable, str(ROOT / "launch" / "local.py"), "--processes=2"]
        launcher += ["--devices=1", "--grace=60", "--", sys.executable]
        return subprocess.run(
            launcher + command,
            env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def records(workdir, processes):
    """Returns the records that all processes read, [step][row]."""
    each = [json.loads(Path(f"{workdir}.seen.{i}").read_text()) for i in range(processes)]
    return np.concatenate(each, axis=1)


@pytest.fixture(scope="module")
def start(tmp_path_factory, cache):
    return Starter(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def one(start, tmp_path_factory):
    """The work directory of the run of one process."""
    workdir = tmp_path_factory.mktemp("processes") / "one"
    done = start(workdir, 1, EVALUATE)
    assert done.returncode == 0, done.stdout + done.stderr
    return workdir


@pytest.fixture(scope="module")
def two(start, tmp_path_factory):
    """The work directory of the run of two processes."""
    workdir = tmp_path_factory.mktemp("processes") / "two"
    done = start.launch(workdir, EVALUATE)
    assert done.returncode == 0, done.stdout
    return workdir


@pytest.fixture
def assert_same(saved, curves):
    """Asserts that two runs have the same losses and parameters."""

    def assert_same(workdir, other, tolerance):
        here, there = curves(workdir), curves(other)
        assert [step for step, _ in here] == [step for step, _ in there]
        for (step, values), (_, expected) in zip(here, there, strict=True):
            for name, value in expected.items():
                # The norm is a sum of squares.
                rtol = tolerance * (5 if name == "train/gradient_norm" else 1)
                np.testing.assert_allclose(values[name], value, rtol, err_msg=f"{step} {name}")
        run = prepare(read_config(other), jax.devices()[:1])
        state = saved(run, workdir, STEPS)
        for path, expected in saved(run, other, STEPS).items():
            np.testing.assert_allclose(state[path], expected, tolerance, tolerance, err_msg=path)

    return assert_same


def test_two_equal_one(one, two, assert_same):
    np.testing.assert_array_equal(records(two, 2), records(one, 1))
    assert_same(two, one, 1e-5)
    assert len(list(two.glob("pictures/*.png"))) == 1
    # One process alone has written; the figures are those of all examples.
    (here,), (there,) = ([x for x in lines(w) if "train/finished" in x] for w in (two, one))
    figures = {name for name in there if name.startswith("eval/")}
    assert {"eval/knn/accuracy", "eval/raw/knn/accuracy", "eval/random/knn/accuracy"} <= figures
    again = commands.run_as(2, "eval", f"--workdir={two}", "--nobaselines")
    assert again.returncode == 0, again.stdout + again.stderr
    assert lines(two)[-1] == {k: here[k] for k in lines(two)[-1]}
    for name in figures:
        # An example whose nearest neighbours are equally near may change sides.
        tolerance = 1 / 355 + 1e-9 if "knn" in name else 1e-4
        np.testing.assert_allclose(here[name], there[name], atol=tolerance, err_msg=name)


def test_four_equal_one(start, one, assert_same, tmp_path):
    """Every parameter is split over two processes, the batch over four."""
    mesh = ["--config.parallel.mesh.fsdp=2", "--config.parallel.fsdp_min_size=64"]
    done = start(tmp_path / "four", 4, "--config.log.pictures=0", *mesh)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 x cpu in 4 process(es)" in done.stdout
    assert "data 2, fsdp 2, tensor 1" in done.stdout
    np.testing.assert_array_equal(records(tmp_path / "four", 4), records(one, 1))
    assert_same(tmp_path / "four", one, 1e-5)


def test_sigterm_stops_all_at_one_step(start, two, assert_same, tmp_path):
    workdir = tmp_path / "run"
    done = start.launch(
        workdir, sleep=0.1, batch=5, process=1, to="launcher", signal=int(signal.SIGTERM)
    )
    assert done.returncode == 75, done.stdout
    last = lines(workdir)[-1]["step"]
    assert 5 <= last < STEPS
    assert f"Stopped by SIGTERM: step {last} is saved" in done.stdout
    assert [len(json.loads(Path(f"{workdir}.seen.{i}").read_text())) for i in (0, 1)] == [last] * 2
    done = start(workdir, 2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"step {last}: its checkpoint is the newest" in done.stdout
    assert_same(workdir, two, 1e-7)


def test_sigterm_stops_all_in_an_evaluation(start, tmp_path):
    """The second evaluator of two is not begun; the next start evaluates this step again."""
    workdir, due = tmp_path / "run", "--config.eval.every=8 steps"
    mischief = dict(evaluating=8, process=0, to="launcher", signal=int(signal.SIGTERM))
    done = start.launch(workdir, EVALUATE, due, **mischief)
    assert done.returncode == 75, done.stdout
    assert "Stopped by SIGTERM: step 8 is saved; start again to go on." in done.stdout
    assert lines(workdir)[-1].keys() & {"time/training"}
    assert not any("eval/knn/accuracy" in line for line in lines(workdir))
    done = start(workdir, 2, EVALUATE, due)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "step 8: its checkpoint is the newest" in done.stdout
    assert [x["step"] for x in lines(workdir) if "eval/knn/accuracy" in x] == [8, 16, STEPS]


@pytest.mark.parametrize("killed", [0, 1])
def test_one_dies(start, tmp_path, killed):
    """The other one, which would have a minute, ends by itself and says why."""
    done = start.launch(tmp_path / "run", batch=5, process=killed, to="itself", signal=9)
    ended = time.time()
    assert done.returncode == 137, done.stdout
    assert f"error: process {killed} was ended by SIGKILL, and the others were ended" in done.stdout
    died = Path(f"{tmp_path}/run.seen.{killed}").stat().st_mtime
    assert ended - died < 60
    if killed == 1:  # without process 0, the coordinator, JAX's runtime may end the other before
        assert "[0] error: Another process of this run is gone (" in done.stdout


def test_disagreement(start, tmp_path):
    done = start(tmp_path / "run", 2, flags=["--config.seed=7"])
    assert done.returncode == 1, done.stdout
    assert "process 1 on " in done.stderr and "has config.seed = 7, not 0" in done.stderr
    assert not list((tmp_path / "run").glob("*"))
