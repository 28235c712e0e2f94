"""Named sets of devices: `v5e:4x4`, `h200:8`. The devices exist for the compiler alone."""

import dataclasses
import importlib.metadata
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any

from maskjax.errors import UserError
from maskjax.planning import chips, gpus
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
_PLUGINS = ("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13")


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice of a TPU pod, or some nodes of GPUs.

    Attributes:
      chip: of which it consists.
      shape: chips along the axes of the torus; number of GPUs.
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
    """Reads GENERATION:AxB or GENERATION:AxBxC of TPUs, GENERATION:N of GPUs.

    Raises:
      UserError: no such generation, or no such slice of it.
    """
    known = ", ".join(chip.name for chip in chips.TPUS + chips.GPUS)
    match = re.fullmatch(r"([\w-]+):(\d+(?:x\d+)*)", name.strip())
    chip = chips.find(match[1]) if match else None
    if match is None or chip is None:
        raise UserError(
            f"There is no topology '{name}': write GENERATION:CHIPSxCHIPS, e.g. v5e:4x4 or "
            f"v5p:4x4x8, or GENERATION:GPUS, e.g. h200:8, with a generation out of {known}."
        )
    shape = tuple(map(int, match[2].split("x")))
    (_check_nodes if chip.is_gpu else _check_torus)(chip, shape, name)
    return Slice(chip, shape)


def _check_nodes(chip: Chip, shape: tuple[int, ...], name: str) -> None:
    """Raises UserError if GPUs cannot be lent in this number."""
    if len(shape) > 1:
        raise UserError(f"GPUs have no torus: instead of '{name}' write their number, as h200:8.")
    if shape[0] > chip.largest[0]:
        raise UserError(f"{name} is not planned: choose at most {chip.largest[0]:,} GPUs.")
    if not shape[0] or (shape[0] > chip.node and shape[0] % chip.node):
        raise UserError(
            f"{name} is not possible: nodes have {chip.node} GPUs, so choose 1 to {chip.node} of "
            f"them, or a multiple of {chip.node}."
        )


def _check_torus(chip: Chip, shape: tuple[int, ...], name: str) -> None:
    """Raises UserError if there is no such slice of TPUs."""
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


def prepare_environment(chip: Chip) -> None:
    """Sets what the compiler of a chip reads when it is loaded; JAX itself stays on the CPU.

    To be called before the first use of JAX.

    Raises:
      UserError: the compiler is not installed.
    """
    if chip.is_gpu and _cuda_plugin() is None:
        raise UserError(
            "Planning for GPUs needs their compiler: run `pip install 'maskjax[plan-gpu]'`. It "
            "needs neither a GPU nor CUDA."
        )
    if not chip.is_gpu and importlib.util.find_spec("libtpu") is None:
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
    if slice_.chip.is_gpu:  # it names the device and no version
        plugin = _cuda_plugin() or ""
        package = f"jax-{plugin.rpartition('_')[2]}-pjrt"
        compiler = f"{package} {importlib.metadata.version(package)}"
    return f"{slice_.name}, jax {jax.__version__}, jaxlib {jaxlib.__version__}, {compiler}"


def describe(slice_: Slice) -> Any:
    """Returns the description of a slice by its compiler, with `devices`.

    Raises:
      UserError: the compiler is not installed, or does not know the slice.
    """
    prepare_environment(slice_.chip)
    from jax.experimental import topologies

    chip = slice_.chip
    package = "jax-cuda12-plugin" if chip.is_gpu else "libtpu"
    try:
        found = topologies.get_topology_desc(
            platform="cuda" if chip.is_gpu else "tpu",
            topology_name=slice_.name,
            **(_of_gpus(slice_) if chip.is_gpu else _of_tpus(slice_)),
        )
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{package} does not know {slice_.name}: {reason}. Is it of the version of jaxlib?"
        ) from None
    expected = slice_.num_chips * chip.devices
    if len(found.devices) != expected:
        raise UserError(
            f"{package} shows {len(found.devices)} devices for {slice_.name}, not {expected}: "
            f"install another version of {package}."
        )
    return found


def _of_tpus(slice_: Slice) -> dict[str, Any]:
    """Returns what libtpu wants to know besides the name."""
    options: dict[str, Any] = dict(slice_.chip.options)
    if slice_.num_chips == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    return options


def _of_gpus(slice_: Slice) -> dict[str, Any]:
    """Returns what the compiler of GPUs wants to know: one GPU in words, and their number."""
    per_node = min(slice_.num_chips, slice_.chip.node)
    return {
        "target_config": gpus.target(slice_.chip),
        "topology": f"1x{slice_.num_chips // per_node}x{per_node}",
    }


def _cuda_plugin() -> str | None:
    """Returns the module of the installed compiler of GPUs, or None."""
    for name in _PLUGINS:
        try:
            if importlib.util.find_spec(name):
                return name
        except ModuleNotFoundError:  # not even the package above it
            continue
    return None
