"""Named slices of TPUs: `v5e:4x4`. Their devices exist for the compiler alone."""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any

from maskjax.errors import UserError
from maskjax.planning import chips
from maskjax.planning.chips import Chip

# Read when libtpu is loaded. The first two silence warnings (any valid type serves all slices); the
# third saves a query to a cloud that is not there; without the last one a second process on this
# machine fails over a lock file. Delete that file never: it belongs to a living process.
ENVIRONMENT = {
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
_BLOCK = 2  # chips of one host along the first two axes


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice of a TPU pod.

    Attributes:
      chip: of which it consists.
      shape: chips along the axes of the torus.
    """

    chip: Chip
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """As the user writes it, e.g. v5e:4x4."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def num_chips(self) -> int:
        """Number of chips."""
        return math.prod(self.shape)

    def wraps(self, axis: int) -> bool:
        """Whether an axis of the torus is closed, so that it carries twice as much."""
        if self.chip.axes == 3:  # closed in all directions from one cube of 4 x 4 x 4 on
            return all(n >= self.chip.wraps for n in self.shape)
        return self.shape[axis] >= self.chip.wraps


def parse(name: str) -> Slice:
    """Reads GENERATION:AxB or GENERATION:AxBxC.

    Raises:
      UserError: no such generation, or no such slice of it.
    """
    known = ", ".join(chip.name for chip in chips.TPUS)
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name.strip())
    chip = chips.find(match[1]) if match else None
    if match is None or chip is None:
        raise UserError(
            f"There is no topology '{name}': write GENERATION:CHIPSxCHIPS, e.g. v5e:4x4 or "
            f"v5p:4x4x8, with a generation out of {known}."
        )
    shape = tuple(map(int, match[2].split("x")))
    limit = "x".join(map(str, chip.largest))
    if len(shape) != chip.axes:
        raise UserError(
            f"Slices of {chip.name} have {chip.axes} axes, '{name}' has {len(shape)}: write for "
            f"example {chip.name}:{'x'.join(['4'] * chip.axes)}."
        )
    if any(n > most for n, most in zip(sorted(shape), chip.largest, strict=True)):
        raise UserError(f"There is no {name}: slices of {chip.name} have at most {limit} chips.")
    single = math.prod(shape) == 1
    if not all(shape) or (not single and any(n % _BLOCK for n in shape[:2])):
        raise UserError(
            f"A slice of {name} is not possible: hosts have 2x2 chips, so the first two numbers "
            "are even, or all are 1 for one chip."
        )
    return Slice(chip, shape)


def prepare_environment() -> None:
    """Sets what libtpu reads when it is loaded; JAX itself stays on the CPU.

    To be called before the first use of JAX.

    Raises:
      UserError: libtpu is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("Planning needs the compiler of TPUs: run `pip install 'maskjax[plan]'`.")
    os.environ |= {"JAX_PLATFORMS": "cpu"} | {
        name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()
    }
    import jax

    jax.config.update("jax_platforms", "cpu")


def versions(slice_: Slice, devices: Sequence[Any]) -> str:
    """Returns what decides the result of a compilation besides the program and its options."""
    import jax
    import jaxlib

    compiler = " ".join(devices[0].client.platform_version.split())
    return f"{slice_.name}, jax {jax.__version__}, jaxlib {jaxlib.__version__}, {compiler}"


def describe(slice_: Slice) -> Any:
    """Returns the description of a slice by libtpu, with `devices`.

    Raises:
      UserError: libtpu is not installed, or does not know the slice.
    """
    prepare_environment()
    from jax.experimental import topologies

    options: dict[str, Any] = dict(slice_.chip.options)
    if slice_.num_chips == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=slice_.name, **options)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"libtpu does not know the slice {slice_.name}: {reason}") from None
    expected = slice_.num_chips * slice_.chip.devices
    if len(found.devices) != expected:
        raise UserError(
            f"libtpu shows {len(found.devices)} devices for {slice_.name}, not {expected}: install "
            "another version of libtpu."
        )
    return found
