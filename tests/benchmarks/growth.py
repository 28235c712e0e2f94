"""How time and memory of a training step of MAE grow with depth, width, tokens, batch and devices.

    python tests/benchmarks/growth.py --rows=growth.json --picture=growth.svg

Each axis is a series of steps that differ in one size. The slope of a figure is that of a straight
line through its logarithms: 1 is proportional, 2 is with the square. What is
compared with the slope of the model's FLOPs (`Run.model_flops`, counted from the jaxpr):
  seconds: of the processor, over all threads, so that other programs disturb little; the median
    of warm steps. Not for several devices: those are simulated.
  bytes: arguments (parameters, moments, batch) and temporaries, by the compiler, of one device.
  compiled FLOPs: XLA's own count, of one device.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from maskjax import cli
from maskjax.config import ConfigDict, default_config, part
from maskjax.data import batch_shapes
from maskjax.training.run import prepare

ROUNDS = flags.DEFINE_integer("rounds", 3, "Steps that are measured, after one.")
ROWS = flags.DEFINE_string("rows", "growth.json", "Where figures are kept; those there are taken.")
PICTURE = flags.DEFINE_string("picture", None, "A file for the picture, .svg or .png.")

# Of the networks: width and depth of the encoder, the decoder has half of the width; patches of 8.
BASE = dict(depth=2, width=192, image=128, batch=8)
AXES = {
    "depth": [1, 2, 4, 8],
    "width": [96, 192, 384, 768],
    "tokens": [64, 128, 192, 256],  # side of the image
    "batch": [4, 8, 16, 32],
    "data": [1, 2, 4, 8],
    "fsdp": [1, 2, 4, 8],
}
SIMULATED = ("data", "fsdp")


def configuration(axis: str, size: int) -> tuple[ConfigDict, int]:
    """Returns a configuration and the number of devices."""
    sizes = BASE | {"image" if axis == "tokens" else axis: size}
    depth, width, image = sizes["depth"], sizes["width"], sizes["image"]
    c = default_config()
    c.data.inputs.image = part("data.Image", size=(image, image))
    # Heads of 32, so that a wider network has more of them.
    encoder = dict(width=width, depth=depth, heads=width // 32, patch_size=(8, 8))
    decoder = dict(width=width // 2, depth=depth, heads=width // 64 or 1)
    c.system.encoder, c.system.decoder = (
        part("models.ViT", **encoder),
        part("models.MAEDecoder", **decoder),
    )
    c.train.duration = "100 steps"
    c.train.batch_size = 64 if axis in SIMULATED else sizes["batch"]
    if axis in SIMULATED:
        c.parallel.mesh.update({"data": 1, axis: size})
        c.parallel.fsdp_min_size = 1024
    return c, size if axis in SIMULATED else 1


def measure(axis: str, size: int) -> dict[str, float]:
    """Returns what a step of one size takes."""
    config, devices = configuration(axis, size)
    batch_size = config.train.batch_size
    run = prepare(config, jax.devices()[:devices], records=range(10 * batch_size))
    batch: Any = batch_shapes(run.system.inputs, batch_size, train=True)
    with jax.set_mesh(run.mesh):
        step = run.jitted_step.lower(run.abstract_state, batch).compile()
    memory = step.memory_analysis()
    found = {
        "x": config.data.inputs.image.size[0] ** 2 // 64 if axis == "tokens" else size,
        "FLOPs of the model": run.model_flops(run.abstract_state.variables, batch) / devices,
        "compiled FLOPs": step.cost_analysis()["flops"],
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "bytes": memory.argument_size_in_bytes + memory.temp_size_in_bytes,
    }
    if axis not in SIMULATED:
        found["seconds"] = seconds(run, step, batch)
    return found


def seconds(run: Any, step: Any, shapes: Any) -> float:
    """Returns the median of warm steps."""
    rng = np.random.default_rng(0)
    batch = {
        name: jax.device_put(rng.integers(0, 256, each.shape).astype(each.dtype))
        for name, each in shapes.items()
    }
    with jax.set_mesh(run.mesh):
        state, each = run.init_state(), []
        for _ in range(ROUNDS.value + 1):
            began = time.process_time()
            state, metrics = step(state, batch)
            metrics["loss"].block_until_ready()
            each.append(time.process_time() - began)
    return statistics.median(each[1:])


def slope(rows: list[dict[str, float]], name: str) -> float:
    """Returns the slope through the logarithms."""
    x, y = (np.log([row[key] for row in rows]) for key in ("x", name))
    return float(np.polyfit(x, y, 1)[0])


def draw(series: dict[str, list[dict[str, float]]], file: Path) -> None:
    """Draws every axis in a panel: figures in units of those of the smallest size."""
    import matplotlib
    from matplotlib.figure import Figure

    shown = {"FLOPs of the model": "k--", "seconds": "C0o-", "bytes": "C1s-"}
    with matplotlib.rc_context({"font.size": 9, "svg.hashsalt": "growth", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 5), layout="constrained")
        for panel, (axis, rows) in zip(figure.subplots(2, 3).flat, series.items(), strict=True):
            x = [row["x"] for row in rows]
            for name, form in shown.items():
                if name in rows[0]:
                    y = [row[name] / rows[0][name] for row in rows]
                    panel.plot(x, y, form, markersize=4, label=name)
            panel.set_xscale("log", base=2)
            panel.set_yscale("log", base=2)
            panel.set_xticks(x, [f"{each:g}" for each in x])
            panel.yaxis.set_major_formatter("{x:.3g}")
            panel.minorticks_off()
            panel.set_xlabel(f"devices ({axis})" if axis in SIMULATED else axis)
            panel.grid(color="0.9")
            panel.set_title("of one device" if axis in SIMULATED else "of a step", loc="left")
        figure.axes[0].legend(frameon=False)
        figure.supylabel("times that of the smallest size")
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def main() -> None:
    """Measures, prints and draws."""
    jax.config.update("jax_num_cpu_devices", 8)
    file = Path(ROWS.value)
    known = json.loads(file.read_text()) if file.exists() else {}
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, medians of {ROUNDS.value} steps")
    for axis, sizes in AXES.items():
        for size in sizes:
            if f"{axis} {size}" not in known:
                known[f"{axis} {size}"] = measure(axis, size)
                file.write_text(json.dumps(known, indent=1))
        rows = [known[f"{axis} {size}"] for size in sizes]
        print(f"\n{axis:>20}", *(f"{row['x']:>12}" for row in rows), "       slope")
        for name in rows[0]:
            if name != "x":
                values = (f"{row[name]:12.4g}" for row in rows)
                print(f"{name:>20}", *values, f"{slope(rows, name):12.2f}", flush=True)
    if PICTURE.value:
        series = {axis: [known[f"{axis} {n}"] for n in sizes] for axis, sizes in AXES.items()}
        draw(series, Path(PICTURE.value))


if __name__ == "__main__":
    cli.run(main)
