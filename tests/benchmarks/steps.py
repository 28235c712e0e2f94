"""Whole training steps of maskjax and of a plain PyTorch MAE, side by side.

    python tests/benchmarks/steps.py --config=configs/mae.py:B/16 --config.train.batch_size=8

Both draw masks, predict, differentiate and update by AdamW, on one batch of images that is already
where it is needed and is not augmented. Steps of both take turns, so that a busy machine slows down
both; the ratio of the medians is the result. PyTorch has the shapes of the configuration and is the
better of eager and compiled. On a GPU both compute in bfloat16, with parameters in float32.
"""

import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
import torch
from absl import flags
from torch_mae import MAE

from maskjax import cli
from maskjax.config import ConfigDict
from maskjax.parallel.devices import peak_flops
from maskjax.training.run import prepare

CONFIG = cli.define_config()
ROUNDS = flags.DEFINE_integer("rounds", 10, "Steps of each that are measured, after two.")
THREADS = flags.DEFINE_integer("threads", 2, "Of PyTorch on a CPU; XLA takes all cores it may use.")
COMPILE = flags.DEFINE_bool("compile", True, "Whether torch.compile is tried as well.")


def of_maskjax(config: ConfigDict) -> tuple[Callable[[], float], int]:
    """Returns a function that takes a step and returns its loss, and the FLOPs of a step."""
    batch_size = config.train.batch_size
    run = prepare(config, records=range(10 * batch_size))
    shape = (batch_size, *run.system.inputs["image"].shape(False))
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with jax.set_mesh(run.mesh):
        state = run.init_state()
        batch = {"image": jax.device_put(images)}
        step = run.jitted_step.lower(state, batch).compile()
    flops = run.model_flops(state.variables, batch)

    def once() -> float:
        nonlocal state
        state, metrics = step(state, batch)
        return float(metrics["loss"])

    return once, flops


def of_torch(config: ConfigDict, compiled: bool) -> Callable[[], float]:
    """Returns a function that takes a step and returns its loss."""
    encoder, decoder = config.system.encoder, config.system.decoder
    size, gpu = config.data.inputs.image.size[0], torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    model = MAE(
        *(size, encoder.patch_size[0], encoder.width, encoder.depth, encoder.heads),
        *(decoder.width, decoder.depth, decoder.heads),
    ).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True
    )
    images = torch.randn(config.train.batch_size, 3, size, size, device=device)
    forward = torch.compile(model) if compiled else model

    def once() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=gpu):
            loss = forward(images)
        loss.backward()
        optimizer.step()
        return loss.item()

    once()
    return once


def main() -> None:
    """Measures and prints."""
    torch.set_num_threads(THREADS.value)
    config = cli.parsed_config(CONFIG)
    with config.unlocked():
        config.data.inputs.image.decode_size = None
        config.data.inputs.image.augment.crop = "none"
        config.data.inputs.image.augment.flip = False
    ours, flops = of_maskjax(config)
    steps = {"maskjax": ours, "torch, eager": of_torch(config, False)}
    if COMPILE.value:
        try:
            steps["torch, compiled"] = of_torch(config, True)
        except Exception as error:  # no compiler on this machine, or another of its reasons
            print(f"torch.compile does not work here: {str(error).splitlines()[0]}")
    seconds = {name: [] for name in steps}
    for turn in range(ROUNDS.value + 2):
        for name, step in steps.items():
            began = time.perf_counter()
            loss = step()
            if turn >= 2:
                seconds[name].append(time.perf_counter() - began)
            assert np.isfinite(loss)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    device, batch_size = jax.devices()[0], config.train.batch_size
    print(
        f"{config.name}, batch {batch_size}, {device.device_kind}, jax {jax.__version__}, "
        f"torch {torch.__version__}, medians of {ROUNDS.value} steps"
    )
    for name, median in medians.items():
        row = f"{name:>16}  {median:.4f} s  {batch_size / median:8.1f} images/s"
        row += f"  {flops / median / 1e9:7.0f} GFLOP/s"
        if peak := peak_flops(device):
            row += f"  {flops / median / peak:.1%} MFU"
        print(row)
    best = min(median for name, median in medians.items() if name != "maskjax")
    print(f"maskjax / best torch: {medians['maskjax'] / best:.2f}")


if __name__ == "__main__":
    cli.run(main)
