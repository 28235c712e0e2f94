"""Starts commands of maskjax as a user does, but in copies of a process that has imported it.

Imports are most of what a command does that fails, or trains for a few steps. Whole commands, with
their imports, are those of `conftest.train`, of the README and of launch/local.py.
"""

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import jax

REPOSITORY = Path(__file__).parents[1]

_context = multiprocessing.get_context("forkserver")
# Not the commands themselves: every one of them defines flags, which would meet. The last two are
# imported when they are needed: by the digits and by the report.
_context.set_forkserver_preload(
    ["maskjax.cli", "maskjax.pretraining", "sklearn.datasets", "matplotlib.backends.backend_svg"]
)


class Started:
    """A command that runs, to be used like a `subprocess.Popen`.

    Args:
      command: what `python -m maskjax.COMMAND` would run, or the file of a program.
      *flags: its flags.
      devices: how many it sees.
      environment: variables to be set.
    """

    def __init__(
        self,
        command: str,
        *flags: str,
        devices: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.args = [command if command.endswith(".py") else f"maskjax.{command}", *flags]
        self._folder = tempfile.TemporaryDirectory()
        self._process = _context.Process(
            target=_run, args=(self.args, devices, dict(environment or {}), self._folder.name)
        )
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


def run(command: str, *flags: str, devices: int = 1) -> subprocess.CompletedProcess:
    """Runs a command to its end, e.g. run("eval", "--workdir=...")."""
    started = Started(command, *flags, devices=devices)
    printed = started.communicate(timeout=600)
    return subprocess.CompletedProcess(started.args, started.returncode or 0, *printed)


def run_as(
    processes: int, command: str, *flags: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess:
    """Runs a command as one process or several of one device each, as launch/local.py does.

    Returns:
      What all of them printed, one after the other, and the largest of their return codes.
    """
    with socket.socket() as probe:
        probe.bind(("", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    started = []
    for i in range(processes):
        own = [f"--coordinator={address}", f"--processes={processes}", f"--process={i}"]
        own = own if processes > 1 else []
        started.append(Started(command, *flags, *own, environment=environment))
    until = time.monotonic() + 600
    printed = [one.communicate(timeout=max(until - time.monotonic(), 1)) for one in started]
    code = max(abs(one.returncode or 0) for one in started)
    out, err = ("".join(texts) for texts in zip(*printed, strict=True))
    return subprocess.CompletedProcess(started[0].args, code, out, err)


def _run(args: list[str], devices: int, environment: dict[str, str], folder: str) -> None:
    """What the copy does."""
    os.environ.update(environment)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(os.path.join(folder, name), os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    os.chdir(REPOSITORY)
    jax.config.update("jax_num_cpu_devices", devices)
    sys.argv = args
    if args[0].endswith(".py"):
        runpy.run_path(args[0], run_name="__main__")
    else:
        runpy.run_module(args[0], run_name="__main__", alter_sys=True)
