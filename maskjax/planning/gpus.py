"""GPUs for a compiler that has none before it: a description, options, and a check of memory.

The compiler of GPUs needs neither a GPU nor CUDA if it is told what the GPU is like. It differs
from that of TPUs in three ways: it accepts programs that no GPU can hold, it gives no estimate of
time that could be used, and it tunes its kernels by measuring them, which it cannot do here.
"""

import dataclasses

from maskjax.planning.chips import Chip
from maskjax.planning.compiling import Compiled

# Without a GPU there is nothing to choose the tiles of Triton's matrix products by, and the
# compiler fails ("Couldn't find output tile sizes"); those of cuBLAS it takes without trying.
OPTIONS = {"xla_gpu_enable_triton_gemm": False}

# JAX takes this share of a GPU's memory unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
DEFAULT_SHARE = 0.75


@dataclasses.dataclass(frozen=True)
class Processor:
    """What a kernel depends on.

    Sources: NVIDIA's white papers on the A100 and H100 architectures, CUDA programming guide
    ("Technical Specifications per Compute Capability"). The H200 has the processor of the H100.

    Attributes:
      capability: compute capability, (major, minor).
      cores: multiprocessors.
      units: float32 units of a multiprocessor.
      clock: boost clock, GHz.
      l2: bytes.
      shared: shared memory of a multiprocessor, bytes.
      float32: FLOP/s of products in full float32, without tensor cores.
    """

    capability: tuple[int, int]
    cores: int
    units: int
    clock: float
    l2: int
    shared: int
    float32: float


_AMPERE = Processor((8, 0), 108, 64, 1.41, 40 * 2**20, 164 * 2**10, 19.5e12)
_HOPPER = Processor((9, 0), 132, 128, 1.98, 50 * 2**20, 228 * 2**10, 67e12)


def processor(chip: Chip) -> Processor:
    """Returns the processor of a GPU."""
    return _AMPERE if chip.name.startswith("a100") else _HOPPER


def target(chip: Chip) -> str:
    """Returns a GPU in the compiler's words: a `GpuTargetConfigProto` as text.

    Without `runtime_version` the compiler takes CUDA for too old and refuses.
    """
    own = processor(chip)
    info = {
        "name": f'"{chip.kind}"',
        "device_vendor": '"NVIDIA Corporation"',
        "cuda_compute_capability": "{{ major: {} minor: {} }}".format(*own.capability),
        "core_count": own.cores,
        "fpus_per_core": own.units,
        "clock_rate_ghz": own.clock,
        "l2_cache_size": own.l2,
        "memory_bandwidth": int(chip.bandwidth),
        "device_memory_size": int(chip.capacity),
        "shared_memory_per_core": own.shared,
        "shared_memory_per_block": 48 * 2**10,
        "shared_memory_per_block_optin": own.shared - 2**10,
        "registers_per_core_limit": 2**16,
        "registers_per_block_limit": 2**16,
        "threads_per_core_limit": 2048,
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "thread_dim_limit_x": 1024,
        "thread_dim_limit_y": 1024,
        "thread_dim_limit_z": 64,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 2**16 - 1,
        "block_dim_limit_z": 2**16 - 1,
        **dict.fromkeys(
            ("driver_version", "runtime_version", "compile_time_toolkit_version"), '"12.8.0"'
        ),
    }
    lines = "\n".join(f"  {key}: {value}" for key, value in info.items())
    return (
        f'gpu_device_info {{\n{lines}\n}}\nplatform_name: "CUDA"\n'
        "dnn_version_info { major: 9 minor: 10 patch: 0 }\n"
        f'device_description_str: "{chip.kind}"\n'
    )


def checked(compiled: Compiled, chip: Chip) -> Compiled:
    """Returns a compiled program with what it takes of a GPU, refused if that is too much.

    The temporaries are allocated as blocks that live as long as the step, so the sum of all counts
    and not, as on TPUs, the peak of what is alive.
    """
    given = dict(compiled.memory)
    if "temp" in given:
        given["peak"] = given["argument"] + given["output"] - given["alias"] + given["temp"]
    needed = given.get("peak", given.get("assigned"))
    result = dataclasses.replace(compiled, memory=given)
    if needed is None or needed <= chip.capacity:
        return result
    return dataclasses.replace(result, needed=needed, available=chip.capacity)
