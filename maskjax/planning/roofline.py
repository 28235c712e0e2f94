"""From counts to time: what no step can beat, and what a step will probably take."""

import dataclasses

from maskjax.planning.chips import Chip

# Share of the published hours of five runs by which the expectation was off at most is 18 %
# (docs/scaling.md); quoted is more, since layouts and recomputation of those runs are not known.
UNCERTAINTY = 0.25


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of one step.

    Attributes:
      compute: hardware FLOPs at the peak.
      memory: traffic at the bandwidth of the memory.
      interconnect: bytes at the bandwidth of the links; None: not known.
      cycles: the compiler's estimate of the compute units, with waiting for memory; None: it gives
        none for these devices.
    """

    compute: float
    memory: float
    interconnect: float | None
    cycles: float | None

    @property
    def bound(self) -> float:
        """What no step beats, however well everything overlaps."""
        return max(self.compute, self.memory, self.interconnect or 0.0)

    @property
    def limit(self) -> str:
        """What the bound comes from."""
        return {
            self.compute: "compute",
            self.memory: "memory",
            self.interconnect: "interconnect",
        }[self.bound]

    @property
    def expected(self) -> tuple[float, float] | None:
        """With collectives hidden completely, and not at all; None without cycles."""
        if self.cycles is None:
            return None
        return max(self.cycles, self.bound), self.cycles + (self.interconnect or 0.0)


def times(
    chip: Chip,
    peak: float,
    flops: float,
    traffic: float,
    interconnect: float | None,
    cycles: float | None,
) -> Times:
    """Returns the times of a step.

    Args:
      chip: of the device.
      peak: FLOP/s of a device.
      flops: hardware FLOPs of a device.
      traffic: bytes to and from the memory of a device.
      interconnect: seconds, or None.
      cycles: of a device, or None.
    """
    return Times(
        compute=flops / peak,
        memory=traffic / (chip.bandwidth / chip.devices),
        interconnect=interconnect,
        cycles=None if cycles is None or chip.clock is None else cycles / chip.clock,
    )


def rates(
    seconds: float, batch_size: int, steps: int, model_flops: float, peak: float, chips: int
) -> dict[str, float]:
    """Returns what follows from the time of a step.

    Args:
      seconds: of a step.
      batch_size: over all devices.
      steps: of the run.
      model_flops: of a step, over all devices.
      peak: FLOP/s of all devices.
      chips: of the slice.
    """
    hours = steps * seconds / 3600
    return {
        "step_seconds": seconds,
        "examples_per_second": batch_size / seconds,
        "mfu": model_flops / (seconds * peak),
        "hours": hours,
        "chip_hours": hours * chips,
    }
