"""Starts commands of maskjax as a user does, but in copies of a process that has imported it.

Imports are most of what a command does that fails, or trains for a few steps. Whole commands, with
their imports, are those of `conftest.train`, of the README and of several processes.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import jax

REPOSITORY = Path(__file__).parents[1]

_context = multiprocessing.get_context("forkserver")
# Not the commands themselves: every one of them defines flags, which would meet.
_context.set_forkserver_preload(["maskjax.cli", "maskjax.pretraining", "sklearn.datasets"])


class Started:
    """A command that runs, to be used like a `subprocess.Popen`."""

    def __init__(self, module: str, *flags: str, devices: int = 1) -> None:
        self.args = [f"maskjax.{module}", *flags]
        self._folder = tempfile.TemporaryDirectory()
        self._process = _context.Process(target=_run, args=(self.args, devices, self._folder.name))
        self._process.start()
        self.send_signal = lambda number: os.kill(self._process.pid, number)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits for the end; returns what was written to stdout and stderr."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0, *self._printed())
        return self._printed()

    def _printed(self) -> tuple[str, str]:
        out, err = (Path(self._folder.name) / name for name in ("stdout", "stderr"))
        return out.read_text(), err.read_text()


def run(module: str, *flags: str, devices: int = 1) -> subprocess.CompletedProcess:
    """Runs a command to its end, e.g. run("eval", "--workdir=...")."""
    started = Started(module, *flags, devices=devices)
    printed = started.communicate(timeout=600)
    return subprocess.CompletedProcess(started.args, started.returncode or 0, *printed)


def _run(args: list[str], devices: int, folder: str) -> None:
    """What the copy does."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(os.path.join(folder, name), os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    os.chdir(REPOSITORY)
    jax.config.update("jax_num_cpu_devices", devices)
    sys.argv = args
    runpy.run_module(args[0], run_name="__main__", alter_sys=True)
