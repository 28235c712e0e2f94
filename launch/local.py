#!/usr/bin/env python3
"""Runs a command of maskjax as several processes on this machine.

    python launch/local.py --processes=2 --devices=2 -- \\
        python -m maskjax.train --config=configs/quickstart.py --workdir=runs/two

Each process gets the command with --coordinator, --processes and --process added; its output is
shown with its number before every line. If one process fails, the others are ended. SIGTERM and
Ctrl-C are passed on, so that the run is saved. The exit code is that of the first failure; else 75
if a process was stopped by SIGTERM after saving; else 0. Needs nothing but Python.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable

EXIT_PREEMPTED = 75
POLL = 0.05  # seconds


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    options = _parse(arguments)
    environment = _environment(options.devices)
    coordinator = f"localhost:{_free_port()}"
    lock, children, readers = threading.Lock(), [], []
    stopped: list[int] = []

    def pass_on(number: int, _: object) -> None:
        stopped.append(number)
        for child in children:
            if child.poll() is None:
                child.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    for process in range(options.processes):
        flags = [f"--coordinator={coordinator}", f"--processes={options.processes}"]
        child = subprocess.Popen(
            [*options.command, *flags, f"--process={process}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches them once, through `pass_on`
        )
        children.append(child)
        readers.append(threading.Thread(target=_copy, args=(process, child.stdout, lock)))
        readers[-1].start()
    if stopped:
        pass_on(stopped[0], None)  # to those that were started after it came
    code = _wait(children, options.grace)
    for reader in readers:
        reader.join(timeout=10)  # a grandchild may hold the pipe open
    return code


def _wait(children: list[subprocess.Popen], grace: float) -> int:
    """Waits for all. After a failure the others have `grace` seconds to end by themselves."""
    failed: list[int] = []  # in the order in which they did
    deadline = float("inf")
    while running := [i for i, child in enumerate(children) if child.poll() is None]:
        failed += _failures(children, failed)
        if failed and deadline == float("inf"):
            deadline = time.monotonic() + grace
        if time.monotonic() > deadline:
            for i in running:  # SIGTERM they do not heed: JAX takes it for a notice of preemption
                children[i].kill()
                children[i].wait()
            break
        time.sleep(POLL)
    else:
        failed += _failures(children, failed)
    if not failed:
        return max(child.returncode for child in children)  # 0, or 75
    # What the end of the coordinator does to the others (SIGABRT) is a consequence, not a cause.
    first = min(failed, key=lambda i: children[i].returncode == -signal.SIGABRT)
    code = children[first].returncode
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with code {code}"
    others = ", and the others were ended" if len(children) > 1 else ""
    print(f"error: process {first} {how}{others}: its last lines say why.", file=sys.stderr)
    return 128 - code if code < 0 else code


def _failures(children: list[subprocess.Popen], known: list[int]) -> list[int]:
    """Returns the numbers of the processes that have failed, without those that are known."""
    codes = [child.poll() for child in children]
    bad = [i for i, code in enumerate(codes) if code not in (None, 0, EXIT_PREEMPTED)]
    return [i for i in bad if i not in known]


def _copy(process: int, lines: Iterable[bytes], lock: threading.Lock) -> None:
    for line in lines:
        with lock:
            sys.stdout.write(f"[{process}] {line.decode(errors='replace')}")
            sys.stdout.flush()


def _environment(devices: int | None) -> dict[str, str]:
    # A proxy between processes of one machine would make them wait for ever.
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    kept |= {"PYTHONUNBUFFERED": "1", "MASKJAX_RUN_ID": uuid.uuid4().hex}
    if devices is not None:
        kept |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
        # Huge pages, where Linux gives them: XLA takes and gives back all its memory at every step.
        kept.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    return kept


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Runs a command of maskjax as several processes on this machine.",
        usage="local.py --processes=N [--devices=D] [--grace=SECONDS] -- COMMAND ...",
    )
    parser.add_argument("--processes", type=int, required=True, help="how many")
    parser.add_argument("--devices", type=int, help="CPU devices of each; default: accelerators")
    parser.add_argument(
        "--grace", type=float, default=15.0, help="seconds to end after another one failed"
    )
    parser.add_argument("command", nargs="+", help="what is run, after --")
    options = parser.parse_args(arguments)
    if options.processes < 1 or (options.devices is not None and options.devices < 1):
        parser.error("--processes and --devices are 1 or more")
    return options


if __name__ == "__main__":
    sys.exit(main())
