"""Two thousand steps: the memory of the process does not grow, and the step is compiled once."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maskjax.training.writers import METRICS_FILE, read_metrics

pytestmark = pytest.mark.long
STEPS = 2000
SETTLED = 1000  # steps after which the memory of saving in the background is what it will be


def resident(process):
    """Returns the resident memory of a process in bytes."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_does_not_grow(tmp_path):
    flags = {
        "workdir": tmp_path,
        "config": "configs/mae.py:tiny",
        "config.system.encoder.depth": 1,
        "config.train.duration": f"{STEPS} steps",
        "config.train.batch_size": 8,
        "config.checkpoint.every": "200 steps",
        "config.data.threads": 2,
        "config.log.every": "20 steps",
        "config.log.pictures": 0,
        "config.data.test_split": None,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "maskjax.train", *(f"--{k}={v}" for k, v in flags.items())],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    memory = {}  # by the last step in the log
    try:
        until = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < until:
            steps = [line["step"] for line in read_metrics(tmp_path / METRICS_FILE)]
            if steps and steps[-1] < STEPS:
                memory[steps[-1]] = max(memory.get(steps[-1], 0), resident(process))
            time.sleep(0.05)
    finally:
        process.kill()
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert output.count("The step was compiled") == 1
    early = max(bytes for step, bytes in memory.items() if SETTLED <= step < SETTLED + 200)
    late = max(bytes for step, bytes in memory.items() if step >= STEPS - 200)
    assert late < 1.02 * early, memory
