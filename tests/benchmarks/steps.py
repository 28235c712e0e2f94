"""Whole training steps of maskjax and of a plain PyTorch MAE, side by side.

    python tests/benchmarks/steps.py --config=configs/mae.py:B/16 --config.train.batch_size=8

Both draw masks, predict, differentiate and update by AdamW, on one batch of images that is already
where it is needed and is not augmented. PyTorch has the shapes of the configuration and is the
better of eager and compiled. On a GPU both compute in bfloat16, with parameters in float32.

Each is a process of its own, since threads of PyTorch spin for a while after a step and would take
a core from the next one. The processes take turns, so that a busy machine slows down all of them;
the ratio of the medians is the result. A turn is two steps, of which the second one is measured: in
a training steps follow each other, but while others have their turn, a virtual machine may give the
memory that a step has freed back to its host, and the next step waits until it is there again.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from absl import flags
from torch_mae import MAE

from maskjax import cli
from maskjax.config import ConfigDict
from maskjax.parallel.devices import keep_memory, peak_flops
from maskjax.training.run import prepare

CONFIG = cli.define_config()
ROUNDS = flags.DEFINE_integer("rounds", 10, "Turns that are measured, after two.")
ONLY = flags.DEFINE_string("only", None, "Which takes steps, two for each line that it reads.")
THREADS = flags.DEFINE_integer("threads", 2, "Of PyTorch on a CPU; XLA takes all cores it may use.")
COMPILE = flags.DEFINE_bool("compile", True, "Whether torch.compile is tried as well.")


def of_maskjax(config: ConfigDict) -> tuple[Callable[[], float], int]:
    """Returns a function that takes a step and returns its loss, and the FLOPs of a step."""
    batch_size = config.train.batch_size
    if config.parallel.keep_memory:
        keep_memory()  # as training does
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


def prepared(config: ConfigDict, name: str) -> tuple[Callable[[], float], dict[str, Any]]:
    """Returns a function that takes a step of one of the three, and what is known of it."""
    if name == "maskjax":
        step, flops = of_maskjax(config)
        device = jax.devices()[0]
        known = dict(flops=flops, device=device.device_kind, peak=peak_flops(device))
        return step, known | dict(version=f"jax {jax.__version__}")
    torch.set_num_threads(THREADS.value)
    step = of_torch(config, compiled=name == "torch, compiled")
    return step, dict(version=f"torch {torch.__version__}")


def take_steps(config: ConfigDict, name: str) -> None:
    """Takes two steps for every line that comes in; says how many seconds the second one took."""
    step, known = prepared(config, name)
    print(json.dumps(known), flush=True)
    for _ in sys.stdin:
        step()
        began = time.perf_counter()
        loss = step()
        seconds = time.perf_counter() - began
        assert np.isfinite(loss)
        print(seconds, flush=True)


class Contender:
    """A process that takes steps when it is told to.

    Attributes:
      known: what it says of itself.
    """

    def __init__(self, name: str):
        """Starts it and waits until it is ready.

        Raises:
          RuntimeError: it ended before that.
        """
        self._process = subprocess.Popen(
            [sys.executable, *sys.argv, f"--only={name}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.known = json.loads(self._line())

    def step(self) -> float:
        """Takes a turn; returns the seconds of its second step."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line[:1] in "{0123456789":  # others are of libraries
                return line
        raise RuntimeError("ended")


def main() -> None:
    """Measures and prints."""
    config = cli.parsed_config(CONFIG)
    with config.unlocked():
        config.data.inputs.image.decode_size = None
        config.data.inputs.image.augment.crop = "none"
        config.data.inputs.image.augment.flip = False
    if ONLY.value:
        take_steps(config, ONLY.value)
        return
    contenders = {name: Contender(name) for name in ("maskjax", "torch, eager")}
    if COMPILE.value:
        try:
            contenders["torch, compiled"] = Contender("torch, compiled")
        except RuntimeError:  # no compiler on this machine, or another reason, which stands above
            print("torch.compile does not work here")
    seconds = {name: [] for name in contenders}
    for turn in range(ROUNDS.value + 2):
        for name, contender in contenders.items():
            took = contender.step()
            if turn >= 2:
                seconds[name].append(took)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    ours, batch_size = contenders["maskjax"].known, config.train.batch_size
    print(
        f"{config.name}, batch {batch_size}, {ours['device']}, {ours['version']}, "
        f"{contenders['torch, eager'].known['version']}, medians of {ROUNDS.value} turns"
    )
    for name, median in medians.items():
        row = f"{name:>16}  {median:.4f} s  {batch_size / median:8.1f} images/s"
        row += f"  {ours['flops'] / median / 1e9:7.0f} GFLOP/s"
        if ours["peak"]:
            row += f"  {ours['flops'] / median / ours['peak']:.1%} MFU"
        print(row)
    best = min(median for name, median in medians.items() if name != "maskjax")
    print(f"maskjax / best torch: {medians['maskjax'] / best:.2f}")


if __name__ == "__main__":
    cli.run(main)
