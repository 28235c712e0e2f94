"""Runs what `maskjax.export` wrote on pictures, with jax, numpy, pillow and flatbuffers alone.

    python serve.py EXPORTED OUT PICTURE...

Writes `OUT/NAME.npy` for every output of the encoder, a row for each picture, and `OUT/PICTURE.png`
with its reconstruction, if that was exported.
"""

import json
import sys
from pathlib import Path

import numpy as np
from jax import export
from PIL import Image, ImageOps

exported, out, *files = (Path(name) for name in sys.argv[1:])
description = json.loads((exported / "export.json").read_text())
(data,), programs = description["inputs"].values(), description["programs"]
(_, height, width, channels), fit = data["shape"], data["fit"]  # both as height, width


def read(file: Path) -> np.ndarray:
    """Returns the centre of a picture, upright: uint8 [height, width, channels]."""
    image = ImageOps.exif_transpose(Image.open(file)).convert("L" if channels == 1 else "RGB")
    image = np.asarray(ImageOps.fit(image, fit[::-1], Image.Resampling.BICUBIC))
    top, left = (fit[0] - height) // 2, (fit[1] - width) // 2
    return image[top : top + height, left : left + width].reshape(height, width, channels)


def run(name: str, *arguments: np.ndarray | np.uint32) -> dict[str, np.ndarray]:
    """Returns the outputs of a program for all pictures."""
    program = export.deserialize(bytearray((exported / programs[name]["file"]).read_bytes()))
    return {key: np.asarray(value) for key, value in program.call(*arguments).items()}


images = np.stack([read(file) for file in files])
out.mkdir(parents=True, exist_ok=True)
for name, features in run("encoder", images).items():
    np.save(out / f"{name}.npy", features)
if "reconstruction" in programs:
    shown = run("reconstruction", images, np.uint32(0))  # the seed of the masks
    rows = np.concatenate([shown[title] for title in programs["reconstruction"]["outputs"]], axis=2)
    for file, row in zip(files, np.round(255 * rows).astype(np.uint8), strict=True):
        Image.fromarray(row[..., 0] if channels == 1 else row).save(out / f"{file.stem}.png")
