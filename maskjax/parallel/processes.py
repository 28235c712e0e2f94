"""Several processes as one: joining them, agreeing before the first step, ending together.

`join` comes before anything touches a device. Everything else works in a single process too, where
it costs nothing.
"""

import errno
import itertools
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from jax._src import distributed  # the key-value store has no public name; Orbax uses it likewise

from maskjax.errors import UserError
from maskjax.parallel.discovery import Plan

# Seconds until a process that does not come, that fell silent, or that does not end is given up.
# JAX's own 300, 100 and 300 would leave the others of a lost host waiting for more than a minute.
TIMEOUTS = (120, 50, 600)
TIMEOUTS_VARIABLE = "MASKJAX_TIMEOUTS"
RUN_ID_VARIABLE = "MASKJAX_RUN_ID"

_WAIT = 1800  # seconds for what another process says; it may be reading a large checkpoint
_keys = (f"maskjax/{number}" for number in itertools.count())  # in step on all processes


def join(plan: Plan | None, say: Callable[[str], None] = print) -> None:
    """Joins the other processes; returns when all are there. Nothing may have used a device yet.

    If they do not come in time, JAX's runtime ends the process itself (SIGABRT), without an
    exception: therefore the sentence before.

    Args:
      plan: from `plan`; None: nothing to do.
      say: told whom this process waits for.

    Raises:
      UserError: what would otherwise end in a time-out: names that do not resolve, a port in use.
    """
    if plan is None:
        return
    start, heartbeat, shutdown = _timeouts(os.environ.get(TIMEOUTS_VARIABLE))
    timeouts: dict[str, Any] = dict(
        initialization_timeout=start,
        heartbeat_timeout_seconds=heartbeat,
        shutdown_timeout_seconds=shutdown,
    )
    if plan.coordinator is None:
        say(f"Joining the other processes, found by JAX; at most {start} s.")
        try:
            jax.distributed.initialize(**timeouts)
        except (ValueError, OSError) as error:
            # A TPU machine outside of Google's cloud, where nothing tells about others.
            if "TPU_WORKER_HOSTNAMES" in os.environ or not _nothing_found(error):
                raise
            say("There are no other processes.")
        return
    check_network(plan)
    say(
        f"Process {plan.process} of {plan.processes} ({plan.how}) on {_host()} joins at "
        f"{plan.coordinator}; all have to be there within {start} s."
    )
    jax.distributed.initialize(
        plan.coordinator,
        plan.processes,
        plan.process,
        local_device_ids=plan.device_ids,
        cluster_detection_method="deactivate",  # the plan is complete
        **timeouts,
    )


def joined() -> bool:
    """Returns whether `join` connected this process to a coordinator."""
    return jax.distributed.is_initialized()


def is_first() -> bool:
    """Returns whether this process writes the files of the run and speaks for all."""
    return distributed.global_state.process_id == 0  # also of a process that is alone


def say(*values: object) -> None:
    """Prints, in the first process alone."""
    if is_first():
        print(*values, flush=True)


def _client() -> Any:
    """Returns JAX's key-value store, which is there when the processes have joined."""
    return distributed.global_state.client


def from_first(text: str) -> str:
    """Returns the text of the first process in all of them. All have to call it, in turn."""
    if not joined():
        return text
    key, client = next(_keys), _client()
    if is_first():
        client.key_value_set(key, text)
        return text
    return client.blocking_key_value_get(key, _WAIT * 1000)


def gather(text: str) -> list[str]:
    """Returns the texts of all processes, in their order. All have to call it, in turn."""
    if not joined():
        return [text]
    key, state, client = next(_keys), distributed.global_state, _client()
    if not is_first():
        client.key_value_set(f"{key}/{state.process_id}", text)
        return json.loads(from_first(""))
    others = range(1, state.num_processes)
    texts = [client.blocking_key_value_get(f"{key}/{i}", _WAIT * 1000) for i in others]
    return json.loads(from_first(json.dumps([text, *texts])))


def agree(facts: Mapping[str, object]) -> None:
    """Checks that all processes state the same facts: versions, configuration, devices.

    Args:
      facts: by name; compared as text.

    Raises:
      UserError: in all processes; it names those that differ from the first, and in what.
    """
    here = {name: str(value) for name, value in facts.items()}
    first = json.loads(from_first(json.dumps(here)))
    report = {"host": _host(), "different": _different(here, first)}
    reports = [json.loads(text) for text in gather(json.dumps(report))]
    if sentence := disagreement(reports):
        raise UserError(sentence)


def disagreement(reports: list[dict]) -> str | None:
    """Returns the sentence about the processes that differ from the first, or None.

    Args:
      reports: of each process: `host`, and `different`, {name: [value there, value of the first]}.
    """
    odd = [number for number, report in enumerate(reports) if report["different"]]
    if not odd:
        return None
    parts = []
    for number in odd[:3]:
        name, (here, there) = next(iter(reports[number]["different"].items()))
        more = len(reports[number]["different"]) - 1
        parts.append(
            f"process {number} on {reports[number]['host']} has {name} = {here}, not {there}"
            + (f" (and {more} more)" if more else "")
        )
    rest = f", and so on for {len(odd)} of {len(reports)} processes" if odd[3:] else ""
    return (
        f"The processes differ from process 0 on {reports[0]['host']}: {'; '.join(parts)}{rest}; "
        "start all with the same command, installation and kind of machine."
    )


def check_shared(directory: Path) -> None:
    """Checks that all processes see the same directory, by a file that the first one writes.

    Raises:
      UserError: in all processes; it names those that do not see it.
    """
    if not joined():
        return
    mark = directory / from_first(f".seen-by-all-{os.getpid()}-{time.time_ns()}")
    if is_first():
        mark.touch()
    from_first("written")
    until = time.monotonic() + 10  # a network file system may take a moment
    while not (seen := mark.exists()) and time.monotonic() < until:
        time.sleep(0.5)
    blind = [f"{i} on {host}" for i, host in enumerate(gather("" if seen else _host())) if host]
    if is_first():
        mark.unlink()
    if blind:
        raise UserError(
            f"The processes {', '.join(blind)} do not see what process 0 writes to {directory}: "
            "choose a --workdir on a file system that all machines share."
        )


def leave() -> None:
    """Ends the connection when this process has nothing more to do; waits for the others."""
    if joined():
        sys.stdout.flush()
        jax.distributed.shutdown()


def abort(code: int) -> None:
    """Ends this process at once if it is one of several; else does nothing.

    A normal exit would wait for the others, which wait for this process.
    """
    if not joined():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    if is_first():
        # With the coordinator all others end. Those that fail for the same reason say so first.
        time.sleep(1)
        sys.stderr.flush()
    os._exit(code)


def is_loss(error: Exception) -> bool:
    """Returns whether an error is what remains of a connection to another process."""
    signs = r"Gloo|NCCL|coordination|[Hh]eartbeat|Socket closed|Connection (reset|closed)"
    return isinstance(error, jax.errors.JaxRuntimeError) and bool(re.search(signs, str(error)))


def run_id(environ: Mapping[str, str] = os.environ) -> str:
    """Returns what tells this start from others at the same time, or ''."""
    if RUN_ID_VARIABLE in environ:
        return environ[RUN_ID_VARIABLE]
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    return ".".join(environ[name] for name in names if name in environ)


def check_network(plan: Plan, environ: Mapping[str, str] = os.environ) -> None:
    """Checks what can be checked before the processes talk to each other.

    Args:
      plan: with a coordinator.
      environ: the environment variables.

    Raises:
      UserError: a name that does not resolve, a port in use.
    """
    assert plan.coordinator is not None
    host, _, port = plan.coordinator.rpartition(":")
    address = _resolve(host.strip("[]"))
    if address is None:
        raise UserError(
            f"The name '{host}' of the coordinator does not resolve on {_host()}: give "
            "--coordinator an address, or enter the name in DNS or /etc/hosts of every machine."
        )
    if plan.process == 0 and not _free(int(port)):
        # JAX would not notice: two coordinators can share a port, and then two runs mix.
        raise UserError(
            f"Port {port} is in use on {_host()}: choose another one for the coordinator."
        )
    if "cpu" in environ.get("JAX_PLATFORMS", "").split(","):
        # Processes on CPUs call each other by the names of their machines.
        own = _resolve(_host())
        if own is None or (own.startswith("127.") and not address.startswith(("127.", "::1"))):
            stands = "does not resolve" if own is None else f"stands for {own} there"
            raise UserError(
                f"The name '{_host()}' of this machine {stands}, and the other processes could "
                "not reach it: enter its address on the network in /etc/hosts."
            )


def _nothing_found(error: Exception) -> bool:
    return isinstance(error, OSError) or "coordinator_address" in str(error)


def _timeouts(text: str | None) -> tuple[int, int, int]:
    if text is None:
        return TIMEOUTS
    if not re.fullmatch(r"\d+,\d+,\d+", text):
        raise UserError(
            f"{TIMEOUTS_VARIABLE} is '{text}': give three numbers of seconds, to start, between "
            "signs of life, and to end, such as 120,50,600."
        )
    start, heartbeat, shutdown = map(int, text.split(","))
    return start, heartbeat, shutdown


def _different(here: Mapping[str, str], first: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    names = [*first, *(name for name in here if name not in first)]
    pairs = {name: (here.get(name, "nothing"), first.get(name, "nothing")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _host() -> str:
    return socket.gethostname()


def _resolve(host: str) -> str | None:
    try:
        return str(socket.getaddrinfo(host, None)[0][4][0])
    except OSError:
        return None


def _free(port: int) -> bool:
    for family, address in ((socket.AF_INET6, "::"), (socket.AF_INET, "")):
        try:
            with socket.socket(family) as probe:
                # What is left of a program that has ended does not count.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, port))
                probe.listen()
        except OSError as error:  # others mean that the machine has no IPv6, or no IPv4
            if error.errno == errno.EADDRINUSE:
                return False
    return True
