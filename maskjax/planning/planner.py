"""A plan: one configuration on one slice, compiled and measured."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from maskjax.config import ConfigDict
from maskjax.errors import UserError
from maskjax.parallel.devices import peak_flops
from maskjax.planning import (
    cautions,
    collectives,
    compiling,
    costs,
    gpus,
    kernels,
    memory,
    probe,
    roofline,
    topology,
)
from maskjax.planning.compiling import Compiled, compile_lowered
from maskjax.planning.hlo import HloError, parse
from maskjax.planning.hlo import Program as Text
from maskjax.planning.interconnect import bandwidth
from maskjax.planning.memory import Memory
from maskjax.planning.program import Program, lower
from maskjax.planning.roofline import Times
from maskjax.planning.topology import Slice
from maskjax.training.run import Run


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is planned for, besides the configuration.

    Attributes:
      slice: the devices.
      examples: of the training split.
      examples_from: where that number is from, for the report.
      windowed_einsum: whether the compiler of TPUs may use it.
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
        """Options of the compiler.

        Raises:
          UserError: it has no such option.
        """
        if self.slice.chip.is_gpu:
            if not self.windowed_einsum:
                raise UserError(
                    "Windowed einsum is of TPUs' compiler: leave --windowed_einsum out for GPUs."
                )
            return dict(gpus.OPTIONS)
        return {} if self.windowed_einsum else dict.fromkeys(cautions.WINDOWED_EINSUM, False)


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
      parts: {part of the step: seconds of its kernels}, per device.
      without_estimate: {op: runs} that `parts` lacks.
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
    parts: Mapping[str, float]
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
    settings.say(f"compiling {_describe(program.run)} for {slice_.name} ...")
    compiled = _compile(program, config, settings, versions)
    peak = peak_flops(devices[0])
    assert peak is not None  # known of every chip that is planned for
    warnings = list(program.warnings)
    found = memory.memory(program.run, compiled, slice_.chip.capacity)
    measured: dict[str, Any] = dict(
        collectives=None, loops=(0, 0), traffic=None, parts={}, without_estimate={}, times=None
    )
    if compiled.fits:
        measured, more = _measure(program, compiled, settings, peak)
        warnings += more
    warnings += cautions.of_state(program, found, slice_)
    run = program.run
    params = run.abstract_state.variables["params"]
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
    """Returns whether the step of a configuration fits, without planning it.

    Raises:
      UserError: the configuration is not possible on the slice.
    """
    found = probe.quick(config, settings.slice, settings.examples, settings.options)
    return _checked(found, settings.slice).fits


def _compile(program: Program, config: ConfigDict, settings: Settings, versions: str) -> Compiled:
    """Compiles, or reads what an earlier compilation gave."""

    def compile_quickly() -> Compiled:
        return probe.quick(config, settings.slice, settings.examples, settings.options)

    def compile_fully() -> Compiled:
        return compile_lowered(program.lowered, settings.options)

    if settings.slice.chip.is_gpu:
        versions += gpus.target(settings.slice.chip)
    key = compiling.program_key(program.lowered, settings.options, versions)
    if settings.quick:
        found = compiling.cached(settings.cache, f"{key}.quick", compile_quickly)
    else:
        found = compiling.cached(settings.cache, key, compile_fully)
    return _checked(found, settings.slice)


def _checked(compiled: Compiled, slice_: Slice) -> Compiled:
    """Returns a compiled program that is refused if it does not fit: TPUs' compiler does it."""
    return gpus.checked(compiled, slice_.chip) if slice_.chip.is_gpu else compiled


def _describe(run: Run) -> str:
    """Names a run in a few words."""
    sizes = ", ".join(f"{axis} {size}" for axis, size in run.mesh.shape.items() if size != 1)
    config = run.config
    return f"{config.name}, batch {config.train.batch_size}, mesh {sizes or 'of one'}"


def _measure(
    program: Program, compiled: Compiled, settings: Settings, peak: float
) -> tuple[dict[str, Any], list[str]]:
    """Returns the fields of a plan that are read from the compiled program, and warnings."""
    slice_, devices = settings.slice, list(program.run.mesh.devices.flat)
    try:
        text = parse(compiled.text)
        found = collectives.collectives(text, len(devices))
    except HloError as error:
        unknown = dict.fromkeys(("collectives", "traffic", "times"))
        sentence = (
            f"The compiled program could not be read ({error}), so collectives and times are not "
            "known; memory and FLOPs are."
        )
        return unknown | dict(loops=(0, 0), parts={}, without_estimate={}), [sentence]
    parts, lacking = _parts(text, slice_, peak)
    traffic = costs.traffic(text)
    table = collectives.table(found)
    times = roofline.times(
        slice_.chip,
        peak,
        program.hardware_flops / len(devices),
        traffic,
        collectives.seconds(found, bandwidth(slice_, devices)),
        sum(parts.values()) or None,
    )
    fields = dict(
        collectives=table,
        loops=(len(text.loops), max((trips for _, trips in text.loops), default=0)),
        traffic=traffic,
        parts=parts,
        without_estimate=lacking,
        times=times,
    )
    return fields, cautions.of_compiled(text, program, compiled, table, slice_)


def _parts(text: Text, slice_: Slice, peak: float) -> tuple[dict[str, float], dict[str, float]]:
    """Returns {part of the step: seconds of its kernels}, and what has no estimate."""
    clock = slice_.chip.clock
    if clock is None:
        return kernels.seconds(text, slice_.chip, peak), kernels.without_flops(text)
    seconds = {name: cycles / clock for name, cycles in costs.cycles(text).items()}
    return seconds, costs.without_estimate(text)
