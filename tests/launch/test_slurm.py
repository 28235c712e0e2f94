"""The shipped Slurm script on a Slurm of two nodes: stopped in mid-run, queued again, finished."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from slurm_cluster import Cluster, missing

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "slurm" / "train.sbatch"
STEPS = 150
CONFIG = f"""
import runpy

def get_config():
    config = runpy.run_path({str(ROOT / "configs" / "mae.py")!r})["get_config"]("tiny")
    config.system.encoder.depth = 1
    config.system.decoder.width = 8
    config.data.inputs.image.augment.crop = "shift"
    config.data.threads = 2
    config.data.test_split = None
    config.train.duration = "{STEPS} steps"
    config.train.batch_size = 64
    config.checkpoint.every = "1000 steps"
    config.log.every = "1 steps"
    config.log.tensorboard = False
    config.log.pictures = 0
    return config
"""
SIZE = ["--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1", "--cpus-per-task=1"]
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if reason := missing():
        pytest.skip(reason)
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture
def submit(cluster, cache, tmp_path):
    """Returns a function that submits the script, and gives the number of the job and its log."""
    config = tmp_path / "config.py"
    config.write_text(CONFIG)
    variables = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MASKJAX_TIMEOUTS": "60,20,60",
    }

    def submit(workdir, *flags, **extra):
        log = Path(f"{workdir}.log")
        arguments = [f"--output={log}", *SIZE, str(SCRIPT), f"--config={config}"]
        job = cluster(
            "sbatch", "--parsable", *arguments, f"--workdir={workdir}", *flags, **variables, **extra
        )
        return job.strip(), log

    return submit


def finish(cluster, job):
    cluster.wait(lambda: cluster.job(job)["JobState"] in ENDED, 300)
    return cluster.job(job)


def losses(workdir):
    path = workdir / "metrics.jsonl"
    read = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line["train/loss"] for line in read if "train/loss" in line]


def test_stopped_and_queued_again(cluster, submit, tmp_path):
    job, log = submit(tmp_path / "run")
    cluster.wait(lambda: len(losses(tmp_path / "run")) > 5, 120)
    cluster("scancel", "--signal=TERM", job)
    # Its turn comes again after some seconds; meanwhile another one runs, undisturbed.
    other, _ = submit(tmp_path / "straight")
    assert finish(cluster, other)["JobState"] == "COMPLETED", log.read_text()
    ended = finish(cluster, job)
    text = log.read_text()
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1"), text
    assert "2 x cpu in 2 process(es)" in text
    assert "Ended with code 75 at checkpoint" in text and "queued again." in text
    assert f"Job {job}, restart 1," in text
    assert "its checkpoint is the newest" in text
    assert len(losses(tmp_path / "run")) == STEPS
    np.testing.assert_array_equal(losses(tmp_path / "run"), losses(tmp_path / "straight"))


def test_not_queued_again_without_progress(cluster, submit, tmp_path):
    job, log = submit(tmp_path / "run", "--config.train.batch_size=7")
    ended = finish(cluster, job)
    assert (ended["JobState"], ended["Restarts"]) == ("FAILED", "0"), log.read_text()
    assert "A batch of 7 is not divisible by 2 devices" in log.read_text()
    assert "no further than checkpoint -1; not queued again" in log.read_text()


def test_options_are_possible(cluster):
    """Slurm accepts what the script asks for; it says so of a size that there is not."""
    cluster("sbatch", "--test-only", *SIZE, str(SCRIPT), "--workdir=x")
    with pytest.raises(AssertionError, match="not available"):
        cluster("sbatch", "--test-only", "--nodes=3", *SIZE[1:], str(SCRIPT), "--workdir=x")
