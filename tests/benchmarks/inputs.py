"""Images per second and core of the data pipeline, by source and by where images are cropped.

    python tests/benchmarks/inputs.py

One core is used, whatever the machine has, and seconds are those of the processor, of all threads
and worker processes, so that other programs disturb little. The pictures are made here, the same
ones each time: random fields with the spectrum of photographs (amplitude 1 / frequency) and a
little noise, 500 x 375 pixels, as JPEG of quality 90. They are read from the memory of the
operating system, not from a disk. Every source is read as training reads it and gives 224 x 224
pixels; where the device crops, the host gives 256 x 256 and the crop is timed by itself. Then a
network that takes hardly any time is trained on each, and its log says which share of a step it
waited for data. Needs Linux, tensorflow_datasets and array_record, but not TensorFlow.
"""

import contextlib
import io
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from absl import flags
from PIL import Image

from maskjax import cli
from maskjax.config import ConfigDict, build, default_config, part
from maskjax.data import train_batches
from maskjax.data.decode import decode_image, fit
from maskjax.training.loop import train
from maskjax.training.run import prepare
from maskjax.training.writers import METRICS_FILE, read_metrics

IMAGES = flags.DEFINE_integer("images", 256, "That are made, and read in each round.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Of which the median is taken.")
BATCH, STEPS = 32, 16
SOURCES = ("JPEG files", "ArrayRecord of JPEG", "ArrayRecord of uint8")
CASES = tuple((name, place) for name in SOURCES for place in ("host", "device"))
# data.workers and data.threads
READERS = {"1 thread": (0, 0), "8 threads": (0, 8), "1 worker": (1, 0), "2 workers": (2, 0)}


def make_pictures(folder: Path, count: int) -> list[bytes]:
    """Writes JPEG files and returns their contents."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(375)[:, None], np.fft.rfftfreq(500)[None, :])
    frequency[0, 0] = np.inf
    # Luminance, then two differences of colours, which are weaker in photographs.
    mix = np.array([[1, 0.3, 0.1], [1, -0.1, -0.15], [1, -0.2, 0.3]])
    folder.mkdir(parents=True)
    contents = []
    for i in range(count):
        waves = np.fft.rfft2(rng.normal(size=(3, 375, 500))) / frequency
        field = np.fft.irfft2(waves, (375, 500)).transpose(1, 2, 0) @ mix.T
        field = 128 + 50 * field / field.std() + rng.normal(0, 6, field.shape)
        buffer = io.BytesIO()
        Image.fromarray(field.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        contents.append(buffer.getvalue())
        (folder / f"{i:05d}.jpg").write_bytes(contents[-1])
    return contents


def write_tfds(root: Path, name: str, feature: object, values: Iterator[object]) -> None:
    """Writes the split `train` of a data set in ArrayRecord format, without TensorFlow."""
    import tensorflow_datasets as tfds

    folder = root / name / "1.0.0"
    folder.mkdir(parents=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=name, version=tfds.core.Version("1.0.0"), data_dir=str(folder), module_name=""
    )
    features = tfds.features.FeaturesDict({"image": feature})
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    writer = tfds.core.SequentialWriter(info, 10**6, file_format="array_record")
    writer.initialize_splits(["train"])
    writer.add_examples({"train": [{"image": value} for value in values]})
    writer.close_all()


def make_sources(root: Path, contents: list[bytes]) -> dict[str, ConfigDict]:
    """Returns the section `data.source` of each."""
    import tensorflow_datasets as tfds

    write_tfds(root, "jpeg", tfds.features.Image(), map(io.BytesIO, contents))
    # As bytes: else TFDS writes every pixel as an integer of its own.
    pixels = tfds.features.Tensor(shape=(256, 256, 3), dtype=np.uint8, encoding="bytes")
    write_tfds(root, "pixels", pixels, (fit(decode_image(c), (256, 256), 3) for c in contents))
    parts = (
        part("data.ImageFolder", path=str(root / "folder")),
        part("data.TFDS", name="jpeg", data_dir=str(root)),
        part("data.TFDS", name="pixels", data_dir=str(root), fields=dict(image="image")),
    )
    return dict(zip(SOURCES, parts, strict=True))


def configuration(source: ConfigDict, place: str) -> ConfigDict:
    """Returns MAE's crops of a source, for a network that takes hardly any time."""
    c = default_config()
    c.data.source = source
    augment = part("data.Augment", place=place, crop="resized", scale=(0.2, 1.0), flip=True)
    c.data.inputs.image = part("data.Image", decode_size=(256, 256), augment=augment)
    c.system.encoder = part("models.ViT", patch_size=(32, 32), width=64, depth=2, heads=2)
    c.system.decoder = part("models.MAEDecoder", width=32, depth=1, heads=2)
    c.train.duration, c.train.batch_size = f"{STEPS} steps", BATCH
    c.checkpoint.every, c.log.every = f"{STEPS} steps", f"{STEPS // 2} steps"
    c.log.tensorboard = False
    return c


def cpu_seconds() -> float:
    """Returns what this process and its workers have used of a processor."""
    ticks = 0
    for worker in multiprocessing.active_children():
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def images_per_second(config: ConfigDict, workers: int, threads: int) -> float:
    """Reads as training does, and nothing else."""
    records = build(config.data.source).open(config.data.train_split)
    count, rates = IMAGES.value // BATCH, []
    options = dict(batch_size=BATCH, seed=0, workers=workers, threads=threads, prefetch=64)
    with train_batches(records, build(config.data.inputs), **options) as batches:
        for _ in range(4 + 2 * workers):  # what was read ahead
            next(batches)
        for _ in range(ROUNDS.value):
            began = cpu_seconds()
            for _ in range(count):
                assert next(batches)["_mask"].all()
            rates.append(count * BATCH / (cpu_seconds() - began))
    return statistics.median(rates)


def milliseconds(once: Callable[[], object], images: int) -> float:
    """Returns the time of one image, of a function that treats several."""
    once()
    seconds = []
    for _ in range(ROUNDS.value):
        began = cpu_seconds()
        once()
        seconds.append(cpu_seconds() - began)
    return 1e3 * statistics.median(seconds) / images


def parts_of_the_work(contents: list[bytes], config: ConfigDict) -> dict[str, float]:
    """Returns milliseconds an image of each part."""
    decoded = [decode_image(content) for content in contents]
    fitted = np.stack([fit(image, (256, 256), 3) for image in decoded])
    image, rng = build(config.data.inputs)["image"], np.random.default_rng(0)
    crop, key, placed = jax.jit(image.on_device), jax.random.key(0), jax.device_put(fitted)
    work = {
        "JPEG to pixels": lambda: [decode_image(content) for content in contents],
        "crop on the host": lambda: [image.augment.on_host(rng, x, (224, 224)) for x in decoded],
        "fit to 256 x 256": lambda: [fit(x, (256, 256), 3) for x in decoded],
        "crop on the device": lambda: crop(key, placed).block_until_ready(),
    }
    return {name: milliseconds(once, BATCH) for name, once in work.items()}


def waiting(config: ConfigDict, workdir: Path, ahead: bool) -> float:
    """Trains; returns the share of a step spent waiting for data, of the second half."""
    if not ahead:
        config.data.threads = config.data.prefetch = 0
    workdir.mkdir()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        train(prepare(config), workdir, lambda *_: {}, lambda *_: None)
    shares = [line.get("train/data_wait_share") for line in read_metrics(workdir / METRICS_FILE)]
    return [share for share in shares if share is not None][-1]


def main() -> None:
    """Measures and prints."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        contents = make_pictures(root / "folder" / "train", IMAGES.value)
        size = sum(map(len, contents)) / len(contents) / 1e3
        print(f"{len(contents)} pictures of {size:.0f} kB, one core, jax {jax.__version__}")
        sources = make_sources(root, contents)
        configs = {(name, place): configuration(sources[name], place) for name, place in CASES}
        for name, each in parts_of_the_work(contents[:BATCH], configs[CASES[1]]).items():
            print(f"{name:>18}: {each:.2f} ms an image")
        print(f"{'images/s':>30}", *(f"{reader:>14}" for reader in READERS))
        for case, config in configs.items():
            rates = [images_per_second(config, *READERS[reader]) for reader in READERS]
            print(f"{', '.join(case):>30}", *(f"{rate:14.0f}" for rate in rates), flush=True)
        jax.config.update("jax_compilation_cache_dir", str(root / "compiled"))
        for i, (case, config) in enumerate(configs.items()):
            ahead, not_ahead = (waiting(config, root / f"{i}{a}", a) for a in (True, False))
            print(f"{', '.join(case):>30}: waits {ahead:.0%}, {not_ahead:.0%} if nothing is ahead")


if __name__ == "__main__":
    cli.run(main)
