"""What is particular to a kind of device: its peak, how to compile for it, how it keeps memory."""

import ctypes
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax

from maskjax.parallel import processes

# Peak dense bfloat16 FLOP/s per JAX device, by `device_kind`. TPU: Google Cloud's pages of each
# generation; v2, v3 and 7x show a device per core, half a chip. GPU: NVIDIA's data sheets, of the
# SXM form if the name does not say PCIe.
_PEAK_FLOPS = {
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU7x": 1153.5e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
}

# Parameters of mallopt(3), from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def peak_flops(device: jax.Device) -> float | None:
    """Returns the peak of one device in FLOP/s, or None where no figure is known (as on CPU)."""
    kind = device.device_kind
    # "NVIDIA A100-SXM4-40GB", "NVIDIA H100 80GB HBM3": whole words, so that v5 is not v5p.
    matches = [n for n in _PEAK_FLOPS if kind == n or kind.startswith((f"{n} ", f"{n}-"))]
    return _PEAK_FLOPS[max(matches, key=len)] if matches else None


def run_once(drawn: Any = ()) -> dict[str, Any]:
    """Returns compiler options for a program that runs once, e.g. one that draws parameters.

    On CPUs XLA takes much longer to optimise such a program than the program to run; the large
    matrix products, if there are any, are done by a library all the same. Only many random numbers
    pay for a little optimisation: 47 millions take 6.6 s without and 1.5 s with it, and compiling
    1.7 s more.

    Args:
      drawn: tree of the arrays that are drawn, or of their shapes.
    """
    if jax.default_backend() != "cpu":
        return {}
    many = sum(leaf.size for leaf in jax.tree.leaves(drawn)) > 1e7
    options: dict[str, Any] = {"xla_backend_optimization_level": int(many)}
    if metadata.version("jaxlib").startswith("0.10."):
        # The older emitter of loops compiles in half of the time; later versions have none.
        options["xla_cpu_use_fusion_emitters"] = False
    return options


def keep_memory() -> None:
    """Makes a process that computes on CPUs keep the memory of its programs, under Linux.

    XLA takes the temporary memory of a program from the system every time it runs and gives it
    back: 1 GB for a step of a ViT-S, and the faults of its pages take a tenth of the step. glibc
    can keep what the thread that runs Python took, so programs have to run in this one: JAX has to
    be told so before its first use of a device, and the inputs of a program have to be there when
    it is called (`in_this_thread`). With other C libraries memory is not kept.

    To be called by commands, since it is about the whole process. Where several have joined, they
    have used devices to agree, and nothing changes.
    """
    if processes.joined():
        return
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None and jax.default_backend() == "cpu":
        mallopt(_M_MMAP_MAX, 0)  # the heap alone, no mappings, which end when they are freed
        mallopt(_M_TRIM_THRESHOLD, -1)  # the heap never shrinks


def in_this_thread(program: Callable) -> Callable:
    """Returns the program; after `keep_memory`, on a mesh of CPUs, one that awaits its inputs.

    Those that are called before their inputs are there run in other threads.
    """
    if not on_cpu() or jax.config.read("jax_cpu_enable_async_dispatch"):
        return program
    return lambda *inputs: program(*jax.block_until_ready(inputs))


def on_cpu() -> bool:
    """Returns whether the mesh that is set consists of CPUs; False if none is set.

    Where a plan is made for accelerators that are not there, JAX's own devices are CPUs, too.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device  # None without a mesh
    return getattr(device, "platform", None) == "cpu"
