"""From counts to time: what no step can beat, and what a step will probably take."""

import dataclasses

from maskjax.planning.chips import Chip

# What the times of all kernels together are called: of TPUs' compiler, and of our own bounds.
EXPECTED, KERNELS = "expected", "kernels"

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
      kernels: of all kernels one after the other, without collectives: on TPUs by the compiler's
        cycles, on GPUs each at its own bound; None: not known.
    """

    compute: float
    memory: float
    interconnect: float | None
    kernels: float | None

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
        """Kernels with collectives hidden completely, and not at all; None if not known."""
        if self.kernels is None:
            return None
        fast = max(self.kernels, self.bound)
        return fast, max(fast, self.kernels + (self.interconnect or 0.0))


def name_of_kernels(chip: Chip) -> str:
    """Returns what `Times.expected` is called: what is expected, or a bound of every kernel."""
    return KERNELS if chip.clock is None else EXPECTED


def times(
    chip: Chip,
    peak: float,
    flops: float,
    traffic: float,
    interconnect: float | None,
    kernels: float | None,
) -> Times:
    """Returns the times of a step.

    Args:
      chip: of the device.
      peak: FLOP/s of a device.
      flops: hardware FLOPs of a device.
      traffic: bytes to and from the memory of a device.
      interconnect: seconds, or None.
      kernels: seconds, or None.
    """
    return Times(
        compute=flops / peak,
        memory=traffic / (chip.bandwidth / chip.devices),
        interconnect=interconnect,
        kernels=kernels,
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
