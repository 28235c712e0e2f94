"""Real processes, killed at any moment and started again, end as if nothing had happened."""

import json
import random
import signal
import time
from pathlib import Path

import commands
import jax
import pytest

from maskjax.training.run import prepare, read_config

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
STEPS = 400
SAVE_AT_END = "--config.checkpoint.every=1000 steps"
# Everything that costs time and is not trained, saved or logged is left out.
CONFIG = f"""
import runpy

def get_config():
    config = runpy.run_path({str(ROOT / "configs" / "mae.py")!r})["get_config"]("tiny")
    config.system.encoder.depth = 1
    config.system.decoder.width = 8
    config.data.inputs.image.augment.crop = "shift"
    config.data.test_split = None
    config.data.threads = 2
    config.train.duration = "{STEPS} steps"
    config.checkpoint.every = "1 steps"
    config.log.every = "1 steps"
    config.log.tensorboard = False
    config.log.pictures = 0
    return config
"""


class Starter:
    """Starts `python -m maskjax.train` in a work directory."""

    def __init__(self, folder):
        self.config = folder / "config.py"
        self.config.write_text(CONFIG)

    def __call__(self, workdir, *flags):
        flags = (f"--config={self.config}", f"--workdir={workdir}", *flags)
        return commands.Started("train", *flags)


def finish(process):
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, output + errors
    return output


def wait_for(process, condition):
    """Polls; False if the process ends before the condition holds."""
    until = time.monotonic() + 90
    while process.poll() is None:
        if condition():
            return True
        assert time.monotonic() < until, "the process hangs"
        time.sleep(0.002)
    return False


def newest(workdir):
    folder = workdir / "checkpoints"
    steps = [int(p.name) for p in folder.iterdir() if p.name.isdigit()] if folder.exists() else []
    return max(steps, default=0)


def unfinished(workdir):
    """Checkpoints that are being written."""
    return list((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def bits(state):
    return {path: (leaf.dtype, leaf.shape, leaf.tobytes()) for path, leaf in state.items()}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return Starter(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def straight(start, tmp_path_factory):
    """The work directory of a run that nobody disturbs."""
    workdir = tmp_path_factory.mktemp("straight")
    finish(start(workdir, SAVE_AT_END))
    return workdir


@pytest.fixture
def same(saved, curves, straight):
    """Asserts that a run ended like the undisturbed one."""

    def same(workdir):
        run = prepare(read_config(straight), jax.devices()[:1])
        assert bits(saved(run, workdir, STEPS)) == bits(saved(run, straight, STEPS))
        assert [step for step, _ in curves(workdir)] == list(range(1, STEPS + 1))
        assert curves(workdir) == curves(straight)
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        assert sum("train/finished" in line for line in lines) == 1

    return same


def test_killed_at_random_moments(start, same, tmp_path):
    """Three kinds of moments: while it starts, while it trains, while it writes a checkpoint."""
    draws = random.Random(0)
    moments = ["start"] * 4 + ["train"] * 8 + ["write"] * 8
    draws.shuffle(moments)
    progressed = torn = 0
    for moment in moments:
        before = newest(tmp_path)
        process = start(tmp_path)
        if moment == "start":
            time.sleep(draws.uniform(0.0, 3.0))
        else:
            alive = wait_for(process, lambda: newest(tmp_path) > before + 1)  # noqa: B023
            assert alive, process.communicate()[0]
            time.sleep(draws.uniform(0.0, 0.3))
            if moment == "write":
                assert wait_for(process, lambda: unfinished(tmp_path))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        progressed += newest(tmp_path) > before
        torn += bool(unfinished(tmp_path))
    assert progressed >= 16
    assert torn >= 1  # at least one hit a checkpoint half written
    finish(start(tmp_path, SAVE_AT_END))
    assert not (tmp_path / "broken").exists()
    same(tmp_path)


def test_stopped_by_sigterm(start, same, tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    process = start(tmp_path, SAVE_AT_END)
    assert wait_for(process, lambda: metrics.exists() and metrics.read_bytes().count(b"\n") > 5)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 75, output
    last = json.loads(metrics.read_text().splitlines()[-1])["step"]
    assert 5 < last < STEPS
    assert newest(tmp_path) == last
    assert f"Stopped by SIGTERM: step {last} is saved" in output
    assert f"step {last}: its checkpoint is the newest" in finish(start(tmp_path, SAVE_AT_END))
    same(tmp_path)
