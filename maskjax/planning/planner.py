"""A plan: one configuration on one slice, compiled and measured."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from maskjax.config import ConfigDict
from maskjax.parallel.devices import peak_flops
from maskjax.planning import (
    chips,
    collectives,
    compiling,
    costs,
    memory,
    probe,
    roofline,
    topology,
)
from maskjax.planning.compiling import Compiled, compile_lowered
from maskjax.planning.hlo import HloError, parse
from maskjax.planning.interconnect import bandwidth
from maskjax.planning.memory import Memory
from maskjax.planning.program import Program, lower
from maskjax.planning.roofline import Times
from maskjax.planning.topology import Slice

# With these off, the collectives of FSDP stay whole instead of becoming many permutes that
# overlap with pieces of the matrix products.
WINDOWED_EINSUM = (
    "xla_tpu_enable_windowed_einsum_for_all_gather",
    "xla_tpu_enable_windowed_einsum_for_reduce_scatter",
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is planned for, besides the configuration.

    Attributes:
      slice: of a TPU pod.
      examples: of the training split.
      examples_from: where that number is from, for the report.
      windowed_einsum: whether the compiler may use it.
      quick: whether the compiler is stopped before it makes machine code.
      cache: directory of compiled programs, or None.
      say: is told what takes time.
    """

    slice: Slice
    examples: int
    examples_from: str = "as given"
    windowed_einsum: bool = True
    quick: bool = False
    cache: Path | None = None
    say: Callable[[str], None] = print

    @property
    def options(self) -> dict[str, bool]:
        """Options of the compiler."""
        return {} if self.windowed_einsum else dict.fromkeys(WINDOWED_EINSUM, False)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is known of a configuration on a slice. Counts are of one step.

    Attributes:
      config: that was planned.
      settings: likewise.
      versions: of compiler and JAX.
      mesh: sizes by axis.
      steps: of the run.
      steps_per_epoch: of the data.
      parameters: number of trained values.
      memory: per device.
      model_flops: over all devices.
      hardware_flops: over all devices.
      peak_flops: FLOP/s of a device.
      collectives: {kind: {"ops", "runs", "bytes", "wire"}}, per device; None: not known.
      loops: number of loops in the program, and the most trips of one.
      traffic: bytes to and from the memory of a device; None: not known.
      cycles: {part of the step: cycles}, per device.
      without_estimate: {op: runs} that `cycles` lacks.
      times: of a step; None: not known.
      compile_seconds: that the compiler took, when it ran.
      warnings: sentences.
    """

    config: ConfigDict
    settings: Settings
    versions: str
    mesh: Mapping[str, int]
    steps: int
    steps_per_epoch: int
    parameters: int
    memory: Memory
    model_flops: int
    hardware_flops: int
    peak_flops: float
    collectives: Mapping[str, Mapping[str, float]] | None
    loops: tuple[int, int]
    traffic: float | None
    cycles: Mapping[str, float]
    without_estimate: Mapping[str, float]
    times: Times | None
    compile_seconds: float
    warnings: tuple[str, ...]

    @property
    def devices(self) -> int:
        """JAX devices of the slice."""
        return math.prod(self.mesh.values())

    def rates(self, seconds: float) -> dict[str, float]:
        """Returns what follows from the time of a step: `roofline.rates`."""
        return roofline.rates(
            seconds,
            self.config.train.batch_size,
            self.steps,
            self.model_flops,
            self.peak_flops * self.devices,
            self.settings.slice.num_chips,
        )


def plan(config: ConfigDict, settings: Settings) -> Plan:
    """Compiles the step of a configuration for a slice, and measures the result.

    Raises:
      UserError: a mistake in the configuration, or a mesh that does not fit the slice.
    """
    slice_ = settings.slice
    devices = list(topology.describe(slice_).devices)
    versions = topology.versions(slice_, devices)
    program = lower(config, devices, settings.examples)
    settings.say(f"compiling {describe(config)} for {slice_.name} ...")
    compiled = _compile(program, config, settings, versions)
    peak = peak_flops(devices[0])
    assert peak is not None  # known of every TPU
    warnings = list(program.warnings)
    found = memory.memory(program.run, compiled, slice_.chip.capacity)
    measured: dict[str, Any] = dict(
        collectives=None, loops=(0, 0), traffic=None, cycles={}, without_estimate={}, times=None
    )
    if compiled.fits:
        measured, more = _measure(program, compiled, settings, peak)
        warnings += more
    warnings += _of_state(program, found)
    run = program.run
    params = run.abstract_state().variables["params"]
    return Plan(
        config=run.config,
        settings=settings,
        versions=versions,
        mesh=dict(run.mesh.shape),
        steps=run.total_steps,
        steps_per_epoch=run.clock.steps_per_epoch,
        parameters=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
        memory=found,
        model_flops=program.model_flops,
        hardware_flops=program.hardware_flops,
        peak_flops=peak,
        compile_seconds=compiled.seconds,
        warnings=tuple(warnings),
        **measured,
    )


def fits(config: ConfigDict, settings: Settings) -> bool:
    """Returns whether the compiler accepts the step of a configuration, without planning it.

    Raises:
      UserError: the configuration is not possible on the slice.
    """
    return probe.quick(config, settings.slice, settings.examples, settings.options).fits


def _compile(program: Program, config: ConfigDict, settings: Settings, versions: str) -> Compiled:
    """Compiles, or reads what an earlier compilation gave."""

    def compile_quickly() -> Compiled:
        return probe.quick(config, settings.slice, settings.examples, settings.options)

    key = compiling.program_key(program.lowered, settings.options, versions)
    if settings.quick:
        return compiling.cached(settings.cache, f"{key}.quick", compile_quickly)
    return compiling.cached(
        settings.cache, key, lambda: compile_lowered(program.lowered, settings.options)
    )


def describe(config: ConfigDict) -> str:
    """Names a configuration in a few words."""
    sizes = ", ".join(f"{axis} {size}" for axis, size in config.parallel.mesh.items() if size != 1)
    return f"{config.name}, batch {config.train.batch_size}, mesh {sizes or 'of one'}"


def _measure(
    program: Program, compiled: Compiled, settings: Settings, peak: float
) -> tuple[dict[str, Any], list[str]]:
    """Returns the fields of a plan that are read from the compiled program, and warnings."""
    mesh, slice_, warnings = program.run.mesh, settings.slice, []
    devices = list(mesh.devices.flat)
    try:
        text = parse(compiled.text)
        found = collectives.collectives(text, len(devices))
    except HloError as error:
        unknown = dict.fromkeys(("collectives", "traffic", "times"))
        sentence = (
            f"The compiled program could not be read ({error}), so collectives and times are not "
            "known; memory and FLOPs are."
        )
        return unknown | dict(loops=(0, 0), cycles={}, without_estimate={}), [sentence]
    cycles = costs.cycles(text)
    traffic = costs.traffic(text)
    table = collectives.table(found)
    times = roofline.times(
        slice_.chip,
        peak,
        program.hardware_flops / len(devices),
        traffic,
        collectives.seconds(found, bandwidth(slice_, devices)),
        sum(cycles.values()) or None,
    )
    fields = dict(
        collectives=table,
        loops=(len(text.loops), max((trips for _, trips in text.loops), default=0)),
        traffic=traffic,
        cycles=cycles,
        without_estimate=costs.without_estimate(text),
        times=times,
    )
    unsplit = memory.unsplit_activations(text, program.run)
    for place, size in list(unsplit.items())[:3]:
        warnings.append(
            f"Every device holds {size / chips.GIB:.2f} GiB for the whole batch at '{place}': a "
            "constraint (parallel.sharding.constrain_batch) is missing there."
        )
    if program.run.mesh.shape["fsdp"] > 1:
        permutes = table.get("collective-permute", {}).get("runs", 0)
        if permutes > 100:
            warnings.append(
                f"The collectives of FSDP became {permutes:,.0f} permutes (windowed einsum): "
                "compare with --windowed_einsum=false; in training, LIBTPU_INIT_ARGS="
                f"'{' '.join(f'--{name}=false' for name in WINDOWED_EINSUM)}'."
            )
        gathered, reduced = (
            table.get(k, {}).get("bytes", 0.0) for k in ("all-gather", "all-reduce")
        )
        if not table.get("reduce-scatter") and reduced > gathered and mesh.shape["fsdp"] > 16:
            warnings.append(
                f"Split {mesh.shape['fsdp']} ways the weights are so thin that most of them "
                "travels as all-reduces, at twice the traffic: try parallel.mesh.fsdp=16 with the "
                "rest in data."
            )
    by_hand = memory.shard_bytes(program.run.abstract_state())
    padding = compiled.memory.get("alias", 0) - by_hand
    if padding > 0.1 * by_hand:
        worst = list(memory.badly_padded(text).items())[:3]
        names = "; ".join(
            f"{name} {padded / 2**20:.1f} instead of {size / 2**20:.1f} MiB"
            for name, (size, padded) in worst
        )
        warnings.append(
            f"Padding to tiles adds {padding / 2**20:.1f} MiB to the state of a device"
            + (f": {names}." if names else ".")
        )
    if slice_.chip.name in chips.UNPROVEN_CLOCKS:
        warnings.append(
            f"The clock of {slice_.chip.name} is not published: its expected times rest on a "
            "calibration by one matrix product that nothing has confirmed."
        )
    return fields, warnings


def _of_state(program: Program, found: Memory) -> list[str]:
    """Returns warnings that need no compiled program."""
    warnings = []
    if whole := memory.whole_leaves(program.run):
        names = ", ".join(f"{name} ({size / 2**20:.1f} MiB)" for name, size in whole.items())
        warnings.append(
            f"FSDP leaves {len(whole)} large leaves whole on every device, since no axis of them "
            f"is divisible by {program.run.mesh.shape['fsdp']}: {_cut(names)}."
        )
    config = program.run.config
    for name, network in config.system.items():
        if getattr(network, "get", None) and network.get("scan") and network.get("remat") == "none":
            warnings.append(
                f"system.{name} loops over its blocks (scan) without remat: the loop stacks every "
                "intermediate of every block. Set remat='dots_with_no_batch_dims', or unroll."
            )
    if found.peak and found.peak > memory.COMFORTABLE * found.capacity:
        warnings.append(
            f"The peak is above {memory.COMFORTABLE:.0%} of the capacity, which leaves little for "
            "batches that are fetched ahead and for evaluation."
        )
    tensor = program.run.mesh.shape["tensor"]
    specs = [leaf.sharding.spec for leaf in jax.tree.leaves(program.run.abstract_state())]
    if tensor > 1 and not any("tensor" in spec for spec in specs):
        warnings.append(
            "No parameter is split over the mesh axis 'tensor': its devices repeat the same work. "
            "Set parallel.mesh.tensor=1."
        )
    return warnings


def _cut(text: str, length: int = 400) -> str:
    return text if len(text) <= length else text[:length].rpartition(", ")[0] + ", ..."
