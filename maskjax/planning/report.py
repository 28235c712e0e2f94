"""A plan as text and as JSON. Facts and predictions are kept apart."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import maskjax
from maskjax.parallel.mesh import batch_shards, describe_mesh
from maskjax.planning import memory, roofline
from maskjax.planning.chips import GIB
from maskjax.planning.planner import Plan
from maskjax.planning.search import Change


def text(plan: Plan) -> str:
    """Returns the report of a plan."""
    return "\n\n".join(
        part for part in (_head(plan), _facts(plan), _predictions(plan), _warnings(plan)) if part
    )


def as_json(plan: Plan) -> dict[str, Any]:
    """Returns a plan as plain values; bytes, FLOPs and seconds, per device unless they say more."""
    times = plan.times
    predictions: dict[str, Any] = {}
    if times is not None:
        predictions = {
            "seconds": {
                "compute": times.compute,
                "memory": times.memory,
                "interconnect": times.interconnect,
                "kernels": times.kernels,
            },
            "parts": dict(plan.parts),
            "without_estimate": dict(plan.without_estimate),
            "bound": {"limit": times.limit} | plan.rates(times.bound),
        }
        if times.expected:
            name = roofline.name_of_kernels(plan.settings.slice.chip)
            predictions[name] = [plan.rates(seconds) for seconds in times.expected]
            if name == roofline.EXPECTED:
                predictions["uncertainty"] = roofline.UNCERTAINTY
    return {
        "maskjax": maskjax.__version__,
        "versions": plan.versions,
        "config": plan.config.to_dict(),
        "topology": plan.settings.slice.name,
        "chips": plan.settings.slice.num_chips,
        "devices": plan.devices,
        "mesh": dict(plan.mesh),
        "examples": plan.settings.examples,
        "steps": plan.steps,
        "compiler_options": plan.settings.options,
        "compile_seconds": plan.compile_seconds,
        "facts": {
            "parameters": plan.parameters,
            "memory": memory.as_json(plan.memory),
            "model_flops_all_devices": plan.model_flops,
            "hardware_flops_all_devices": plan.hardware_flops,
            "peak_flops": plan.peak_flops,
            "collectives": plan.collectives and {k: dict(v) for k, v in plan.collectives.items()},
            "loops": {"count": plan.loops[0], "most_trips": plan.loops[1]},
        },
        "estimated_traffic": plan.traffic,
        "predictions": predictions,
        "warnings": list(plan.warnings),
    }


def changes(found: Sequence[Change]) -> str:
    """Returns what would make a configuration fit."""
    if not found:
        return "No single change of remat, micro-batches, batch or fsdp makes it fit."
    rows = [f"  {change.what}: {change.flags}" for change in found]
    return "\n".join(["FACT: it fits with any one of these", *rows])


def _head(plan: Plan) -> str:
    config, slice_ = plan.config, plan.settings.slice
    shards = batch_shards(plan.mesh)
    micro = config.train.batch_size // config.train.accumulate
    device = "device" if slice_.chip.devices == 1 else "device (half a chip)"
    place = "GPUs" if slice_.chip.is_gpu else "slice"
    rows = {
        "configuration": f"{config.name}, {plan.parameters:,} parameters",
        place: f"{slice_.name}, {slice_.num_chips} {slice_.chip.unit}s, {plan.devices} devices "
        f"({slice_.chip.kind}); all figures are per {device} unless they say otherwise",
        "mesh": describe_mesh(plan.mesh),
        "batch": f"{config.train.batch_size:,} = {shards} x {config.train.accumulate} "
        f"micro-batch(es) x {micro // shards}",
        "duration": f"{config.train.duration} = {plan.steps:,} steps; "
        f"{plan.settings.examples:,} examples ({plan.settings.examples_from}), "
        f"{plan.steps_per_epoch:,} steps an epoch",
        "remat": _networks(plan, "remat"),
        "scan": _networks(plan, "scan"),
        "compiler": plan.versions
        + ("" if plan.settings.windowed_einsum else ", windowed einsum off"),
    }
    return _aligned(rows)


def _networks(plan: Plan, key: str) -> str:
    found = {
        name: network[key]
        for name, network in plan.config.system.items()
        if hasattr(network, "keys") and key in network
    }
    return ", ".join(f"{name} {value}" for name, value in found.items()) or "-"


def _facts(plan: Plan) -> str:
    found = plan.memory
    rows: list[tuple[str, float | None]] = [
        ("parameters", found.parameters),
        ("optimiser", found.optimiser),
        ("statistics, teachers, counters", found.other),
    ]
    if found.state is not None:
        rows += [
            ("padding to tiles", found.state - found.by_hand),
            ("batch", found.batch),
            ("activations, gradients, temporaries", found.activations),
        ]
    if found.peak is not None:
        rows.append(("peak", found.peak))
    if found.needed is not None:
        rows.append(("needed", found.needed))
    rows.append(("capacity", found.capacity))
    if found.headroom is not None:
        rows.append(("headroom", found.headroom))
    lines = [
        f"{name:<37}{value / GIB:>9.3f} GiB"
        for name, value in rows
        if value is not None and (value or name != rows[2][0])
    ]
    verdict = "It fits: the compiler accepts it."
    if not found.fits:
        verdict = "It does NOT fit."
    elif found.peak is not None:
        verdict = f"It fits: {found.peak / found.capacity:.0%} of the capacity."
    if plan.settings.slice.chip.is_gpu:
        verdict += " The check is the planner's own: the sum of all buffers of the step."
    model, hardware = plan.model_flops, plan.hardware_flops
    flops = (
        f"FLOPs of a step over all devices: model {model / 1e12:,.2f} T (three forward passes), "
        f"hardware {hardware / 1e12:,.2f} T, {hardware / model:.3f} of it."
    )
    parts = ["FACTS: memory, FLOPs, collectives", *lines, verdict, "", flops]
    if plan.collectives is not None:
        parts += ["", _collectives(plan, plan.collectives)]
    return "\n".join(parts)


def _collectives(plan: Plan, found: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        (
            kind,
            f"{row['ops']:,.0f}",
            f"{row['runs']:,.0f}",
            f"{row['bytes'] / 1e6:,.1f}",
            f"{row['wire'] / 1e6:,.1f}",
        )
        for kind, row in found.items()
    ]
    if not rows:
        return "No collectives."
    total = sum(row["wire"] for row in found.values())
    loops, trips = plan.loops
    return (
        table(("collective", "in the text", "runs a step", "MB", "MB sent"), rows)
        + f"\nEach device sends {total / 1e6:,.1f} MB a step. The text has {loops} loops, of at "
        f"most {trips} trips."
    )


def _predictions(plan: Plan) -> str:
    times = plan.times
    if times is None or plan.traffic is None:
        return ""
    slice_ = plan.settings.slice
    columns = {f"bound ({times.limit})": times.bound}
    name = roofline.name_of_kernels(slice_.chip)
    if times.expected:
        columns |= dict(zip((f"{name}, fast", f"{name}, slow"), times.expected, strict=True))
    rates = [plan.rates(seconds) for seconds in columns.values()]
    rows = [
        ("step, ms", *(f"{r['step_seconds'] * 1e3:,.1f}" for r in rates)),
        ("examples/s", *(f"{r['examples_per_second']:,.0f}" for r in rates)),
        ("MFU", *(f"{r['mfu']:.1%}" for r in rates)),
        ("hours", *(f"{r['hours']:,.1f}" for r in rates)),
        (f"{slice_.chip.unit}-hours", *(f"{r['chip_hours']:,.0f}" for r in rates)),
    ]
    intensity = plan.hardware_flops / plan.devices / plan.traffic
    ridge = plan.peak_flops / (slice_.chip.bandwidth / slice_.chip.devices)
    interconnect = 0.0 if times.interconnect is None else times.interconnect
    lines = [
        "PREDICTION: nothing of this was run",
        table(("", *columns), rows),
        f"The bound is the most of: compute {times.compute * 1e3:,.1f} ms at "
        f"{plan.peak_flops / 1e12:,.1f} TFLOP/s; memory {times.memory * 1e3:,.1f} ms for about "
        f"{plan.traffic / 1e9:,.1f} GB (known within half); interconnect "
        f"{interconnect * 1e3:,.1f} ms.",
        f"Arithmetic intensity {intensity:,.0f} FLOPs a byte; compute and memory balance at "
        f"{ridge:,.0f}.",
    ]
    if times.expected:
        lines += _kernels(plan)
    lines.append(
        "Reading and decoding the data, the host, checkpoints and evaluation are not in it."
    )
    return "\n".join(lines)


def _kernels(plan: Plan) -> list[str]:
    """Returns what the times of the kernels are and how they come about."""
    parts = ", ".join(f"{n} {s * 1e3:,.1f}" for n, s in plan.parts.items() if s > 5e-5)
    lacking = sum(plan.without_estimate.values())
    clock = plan.settings.slice.chip.clock
    if clock is not None:
        return [
            f"Expected: the compiler's cycles of every fusion at {clock / 1e9:.2f} GHz, with the "
            "collectives hidden (fast) or added (slow); right within "
            f"{roofline.UNCERTAINTY:.0%} where it could be compared.",
            f"Of these cycles, in ms: {parts}. {lacking:,.0f} small operations a step have none.",
        ]
    return [
        "Kernels: one after the other, each at the peak or at the full bandwidth, with the "
        "collectives hidden (fast) or added (slow). Real kernels reach neither, so a step takes "
        "longer; by how much was not measured.",
        f"Of these, in ms: {parts}."
        + (f" Of {lacking:,.0f} library calls only the traffic is in it." if lacking else ""),
    ]


def _warnings(plan: Plan) -> str:
    return "\n".join(f"WARNING: {sentence}" for sentence in plan.warnings)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns aligned columns, the first to the left."""
    lines = [list(map(str, head)), *(list(map(str, row)) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _aligned(rows: Mapping[str, str]) -> str:
    width = max(map(len, rows))
    return "\n".join(f"{name:>{width}}  {value}" for name, value in rows.items())
