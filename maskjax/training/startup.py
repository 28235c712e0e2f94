"""The report at the start of a run: what runs, on what, how large, how long, from where."""

import datetime
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax
import jax
import optax

import maskjax
from maskjax.config import build
from maskjax.parallel import processes
from maskjax.parallel.mesh import batch_shards, describe_mesh
from maskjax.training.layout import count_bytes, describe_layout, format_bytes
from maskjax.training.run import Run
from maskjax.training.schedules import Warmup

STARTUP_FILE = "startup.txt"


def startup_report(run: Run, resumed: str) -> str:
    """Returns the report as text.

    Args:
      run: what is about to start.
      resumed: where it starts and why, one sentence.
    """
    config, mesh, state = run.config, run.mesh, run.abstract_state
    params = state.variables["params"]
    shards = batch_shards(mesh.shape)
    micro = config.train.batch_size // config.train.accumulate
    devices = mesh.devices.ravel()
    rows = {
        "versions": f"maskjax {maskjax.__version__}, Python {platform.python_version()}, "
        f"jax {jax.__version__}, flax {flax.__version__}, optax {optax.__version__}",
        "devices": f"{len(devices)} x {devices[0].device_kind} in "
        f"{jax.process_count()} process(es)",
        "mesh": describe_mesh(mesh.shape),
        "parameters": f"{_count(params):,} ("
        + ", ".join(f"{name} {_count(tree):,}" for name, tree in _modules(params).items())
        + ")",
        "memory": f"parameters {_size(params)}, optimiser {_size(state.opt_state)}",
        "whole": f"on every device {describe_layout(mesh, params)}",
        "batch": f"{config.train.batch_size} = {shards} device(s) x {config.train.accumulate} "
        f"micro-batch(es) x {micro // shards}",
        "learning rate": _peak(build(config.schedule), config.train.batch_size),
        "data": f"{len(run.records):,} examples, {run.clock.steps_per_epoch:,} steps an epoch",
        "duration": f"{run.total_steps:,} steps, "
        f"{run.total_steps / run.clock.steps_per_epoch:.1f} epochs",
        "start": resumed,
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:>{width}}  {text}" for name, text in rows.items())


def _peak(schedule: Warmup, batch_size: int) -> str:
    """Says how high the learning rate gets, and what follows from the size of the batch."""
    peak = f"at most {schedule.peak(batch_size):.4g}"
    if not schedule.reference_batch:
        return peak
    return f"{peak} = {schedule.base_lr:.4g} x {batch_size} / {schedule.reference_batch}"


def keep_report(workdir: Path, report: str) -> None:
    """Appends a report to those of earlier starts of the run, by the first process alone."""
    if processes.is_first():
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
        with (workdir / STARTUP_FILE).open("a") as file:
            file.write(f"{now}\n{report}\n\n")


def _modules(params: Mapping[str, Any]) -> dict[str, Any]:
    return dict(params)


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _size(tree: Any) -> str:
    return format_bytes(count_bytes(tree))
