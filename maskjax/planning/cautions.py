"""What surprises in a plan, in sentences: for every one, what to do about it."""

from collections.abc import Mapping
from typing import Any

import jax

from maskjax.planning import chips, gpus, memory
from maskjax.planning.compiling import Compiled
from maskjax.planning.hlo import Program as Text
from maskjax.planning.memory import Memory
from maskjax.planning.program import Program
from maskjax.planning.topology import Slice

# With these off, the collectives of FSDP stay whole instead of becoming many permutes that
# overlap with pieces of the matrix products.
WINDOWED_EINSUM = (
    "xla_tpu_enable_windowed_einsum_for_all_gather",
    "xla_tpu_enable_windowed_einsum_for_reduce_scatter",
)
# More of them than this are no collectives that were meant as permutes.
_MANY_PERMUTES = 100


def of_compiled(
    text: Text,
    program: Program,
    compiled: Compiled,
    collectives: Mapping[str, Mapping[str, float]],
    slice_: Slice,
) -> list[str]:
    """Returns sentences about what the compiler made of a step.

    Args:
      text: the parsed result.
      program: that was compiled.
      compiled: likewise.
      collectives: their table.
      slice_: for which.
    """
    found = [
        f"Every device holds {size / chips.GIB:.2f} GiB for the whole batch at '{place}': a "
        "constraint (parallel.sharding.constrain_batch) is missing there."
        for place, size in list(memory.unsplit_activations(text, program.run).items())[:3]
    ]
    found += _of_fsdp(program.run.mesh.shape["fsdp"], collectives, slice_)
    by_hand = memory.shard_bytes(program.run.abstract_state)
    padding = compiled.memory.get("alias", 0) - by_hand
    if padding > 0.1 * by_hand:
        worst = list(memory.badly_padded(text).items())[:3]
        names = "; ".join(
            f"{name} {padded / 2**20:.1f} instead of {size / 2**20:.1f} MiB"
            for name, (size, padded) in worst
        )
        found.append(
            f"Padding to tiles adds {padding / 2**20:.1f} MiB to the state of a device"
            + (f": {names}." if names else ".")
        )
    if slice_.chip.name in chips.UNPROVEN_CLOCKS:
        found.append(
            f"The clock of {slice_.chip.name} is not published: its expected times rest on a "
            "calibration by one matrix product that nothing has confirmed."
        )
    return found


def _of_fsdp(
    shards: int, collectives: Mapping[str, Mapping[str, float]], slice_: Slice
) -> list[str]:
    found = []
    if shards == 1 or slice_.chip.is_gpu:
        return found
    permutes = collectives.get("collective-permute", {}).get("runs", 0)
    if permutes > _MANY_PERMUTES:
        found.append(
            f"The collectives of FSDP became {permutes:,.0f} permutes (windowed einsum): "
            "compare with --windowed_einsum=false; in training, LIBTPU_INIT_ARGS="
            f"'{' '.join(f'--{name}=false' for name in WINDOWED_EINSUM)}'."
        )
    gathered, reduced = (
        collectives.get(kind, {}).get("bytes", 0.0) for kind in ("all-gather", "all-reduce")
    )
    if not collectives.get("reduce-scatter") and reduced > gathered and shards > 16:
        found.append(
            f"Split {shards} ways the weights are so thin that most of them travels as "
            "all-reduces, at twice the traffic: try parallel.mesh.fsdp=16 with the rest in data."
        )
    return found


def of_state(program: Program, found: Memory, slice_: Slice) -> list[str]:
    """Returns sentences that need no compiled program.

    Args:
      program: the step.
      found: its memory.
      slice_: for which.
    """
    sentences = []
    run = program.run
    if whole := memory.whole_leaves(run):
        names = ", ".join(f"{name} ({size / 2**20:.1f} MiB)" for name, size in whole.items())
        sentences.append(
            f"FSDP leaves {len(whole)} large leaves whole on every device, since no axis of them "
            f"is divisible by {run.mesh.shape['fsdp']}: {_cut(names)}."
        )
    for name, network in run.config.system.items():
        if _value(network, "scan") and _value(network, "remat") == "none":
            sentences.append(
                f"system.{name} loops over its blocks (scan) without remat: the loop stacks every "
                "intermediate of every block. Set remat='hidden', or unroll."
            )
    if found.fits and found.peak:
        sentences += _of_peak(found.peak / found.capacity, slice_)
    specs = [leaf.sharding.spec for leaf in jax.tree.leaves(run.abstract_state)]
    if run.mesh.shape["tensor"] > 1 and not any("tensor" in spec for spec in specs):
        sentences.append(
            "No parameter is split over the mesh axis 'tensor': its devices repeat the same work. "
            "Set parallel.mesh.tensor=1."
        )
    return sentences


def _of_peak(share: float, slice_: Slice) -> list[str]:
    if share > memory.COMFORTABLE:
        return [
            f"The peak is above {memory.COMFORTABLE:.0%} of the capacity, which leaves little for "
            "batches that are fetched ahead and for evaluation"
            + (", for CUDA, NCCL and cuBLAS." if slice_.chip.is_gpu else ".")
        ]
    if slice_.chip.is_gpu and share > memory.COMFORTABLE * gpus.DEFAULT_SHARE:
        return [
            f"JAX takes {gpus.DEFAULT_SHARE:.0%} of a GPU's memory unless told otherwise, and the "
            "step needs nearly that or more: train with XLA_PYTHON_CLIENT_MEM_FRACTION=0.95."
        ]
    return []


def _value(network: Any, key: str) -> Any:
    return network.get(key) if hasattr(network, "get") else None


def _cut(text: str, length: int = 400) -> str:
    return text if len(text) <= length else text[:length].rpartition(", ")[0] + ", ..."
