"""Where the time goes until the first step of a training, each time in a new process.

    python tests/benchmarks/startup.py configs/quickstart.py configs/mae.py:S/16

MAE of ImageNet gets a batch of 8 and noise in a file, the others their own data. All start several
times without JAX's cache of compiled programs, and as often with one that an earlier start has
filled. Seconds are those of the processor, of all threads: on one core what passes on the clock, if
nothing else runs. The median of every part is shown, and of the sums.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def child(name: str, folder: str) -> dict[str, float]:
    """Does what the command does up to the first step; returns the seconds of each part.

    Args:
      name: of the configuration.
      folder: with the noise.
    """
    seconds, began = {}, 0.0

    def mark(part: str) -> None:
        nonlocal began
        now = time.process_time()
        seconds[part], began = now - began, now

    mark("Python")
    import flax.linen  # noqa: F401
    import jax

    mark("import of jax and flax")
    import grain  # noqa: F401
    import ml_collections  # noqa: F401
    import optax  # noqa: F401
    import orbax.checkpoint  # noqa: F401

    mark("import of grain, ml_collections, optax, orbax")
    import maskjax.pretraining
    from maskjax.config import part
    from maskjax.data import train_batches
    from maskjax.parallel.sharding import place_batch
    from maskjax.training.run import prepare

    mark("import of maskjax")
    config = maskjax.load_config(str(ROOT / name))
    if config.data.source.get("name") == "imagenet2012":
        with config.unlocked():
            config.data.source = part("data.Arrays", path=f"{folder}/noise.npy")
            config.data.train_split, config.train.batch_size = "all", 8
    run = prepare(config)
    mark("configuration, data, shapes")
    with jax.set_mesh(run.mesh):
        state = jax.block_until_ready(run.init_state())
        mark("initial state")
        size, data = config.train.batch_size, config.data
        with train_batches(
            run.records, run.system.inputs, batch_size=size, seed=0, threads=data.threads
        ) as batches:
            batch = {key: value for key, value in next(batches).items() if key != "_index"}
        batch = place_batch(run.mesh, batch)
        mark("first batch")
        lowered = run.jitted_step.lower(state, batch)
        mark("tracing the step")
        step = lowered.compile()
        mark("compiling the step")
        jax.block_until_ready(step(state, batch))
        mark("first step")
    return seconds


def start(name: str, folder: str, cache: str | None) -> dict[str, float]:
    """Starts once, in a new process."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION")}
    if cache:
        environment["JAX_COMPILATION_CACHE_DIR"] = cache
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    command = [sys.executable, __file__, name, "--child", folder]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def measure(name: str, folder: str, rounds: int) -> None:
    """Starts one configuration several times and prints."""
    caches = {"without a cache": None, "with a cache": f"{folder}/cache"}
    start(name, folder, caches["with a cache"])  # fills it
    starts = {kind: [] for kind in caches}
    for _ in range(rounds):
        for kind, cache in caches.items():
            starts[kind].append(start(name, folder, cache))
    print(f"\n{name:<46}", *(f"{kind:>16}" for kind in caches))
    rows = {
        part: [[one[part] for one in each] for each in starts.values()]
        for part in starts["with a cache"][0]
    }
    rows["together"] = [[sum(one.values()) for one in each] for each in starts.values()]
    for part, values in rows.items():
        print(f"{part:<46}", *(f"{statistics.median(each):16.2f}" for each in values), flush=True)


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("configs", nargs="+", help="FILE[:ARG]")
    parser.add_argument("--rounds", type=int, default=3, help="Starts of each kind.")
    parser.add_argument("--child", help="Starts one itself; the folder with the noise.")
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(given.configs[0], given.child)))
        return
    from importlib.metadata import version

    import numpy as np

    print(f"jax {version('jax')}, flax {version('flax')}, medians of {given.rounds}, in seconds")
    with tempfile.TemporaryDirectory() as folder:
        noise = np.random.default_rng(0).integers(0, 256, (64, 256, 256, 3), dtype=np.uint8)
        np.save(f"{folder}/noise.npy", noise)
        for name in given.configs:
            measure(name, folder, given.rounds)


if __name__ == "__main__":
    main()
