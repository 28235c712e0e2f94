"""Looking into an encoder: where its heads attend, and what its patch features have in common."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from maskjax.errors import UserError
from maskjax.loading import Data, Loaded
from maskjax.models.watching import unrolled, watch_attention
from maskjax.report.reconstructions import check_png, write_sheet
from maskjax.report.views.spectrogram import colours


@dataclasses.dataclass(frozen=True)
class Maps:
    """What an encoder makes of n pictures, on its grid of h x w patches, nothing masked.

    Attributes:
      original: float32 [n, H, W, C] in [0, 1], as the model sees them.
      attention: float32 [n, heads, h, w], weights by which the class token reads the patches (the
        mean, where there are several); without a class token, the mean over all patches that read.
        None if the encoder has no attention.
      class_tokens: how many tokens stand before those of the patches.
      block: number of the block, from 0; -1 without attention.
      blocks: how many there are.
      features: float32 [n, h, w, D], patch tokens after the encoder's last norm.
    """

    original: np.ndarray
    attention: np.ndarray | None
    class_tokens: int
    block: int
    blocks: int
    features: np.ndarray


def look(
    run: Loaded, data: Data | None = None, *, block: int = -1, most: int | None = None
) -> Maps:
    """Encodes pictures and keeps attention weights and patch features.

    Args:
      run: from `maskjax.load`.
      data: as `Loaded.read` takes it.
      block: whose attention; negative numbers count from the last, -1.
      most: as in `Loaded.read`.

    Raises:
      UserError: the encoder has no grid of image patches, there is no such block, or the data
        cannot be read.
    """
    system = run.system
    grid: Any = getattr(system, "grid", None)
    encoder: Any = getattr(system, "encoder", None)
    images = [each for each in system.inputs.values() if each.view == "image"]
    if encoder is None or len(system.inputs) != 1 or not images or len(grid.shape) != 2:
        raise UserError(
            f"{type(system).__name__} encodes no grid of patches of one image: there are no maps "
            "of this run."
        )
    name = next(iter(system.inputs))
    batch = run.read(data, most)
    plain = dataclasses.replace(system, encoder=unrolled(encoder))
    blocks, class_tokens = 0, 0

    def see(variables: Any, batch: Any) -> dict[str, jax.Array | None]:
        nonlocal blocks, class_tokens
        with watch_attention() as seen:
            out = plain.encode(variables, batch)["encoder"]
        # Some systems encode by a teacher as well, after the encoder itself.
        weights = seen[: getattr(encoder, "depth", len(seen))]
        if out.get("patches") is None or out["patches"].shape[1] != grid.num_tokens:
            raise UserError(
                f"What {type(encoder).__name__} returns is no grid of patches: there are no maps "
                "of this run."
            )
        blocks = len(weights)
        if blocks and not -blocks <= block < blocks:
            raise UserError(
                f"There is no block {block}: the encoder has the blocks 0 to {blocks - 1}."
            )
        chosen: Any = weights[block] if blocks else None
        class_tokens = chosen.shape[-1] - grid.num_tokens if blocks else 0
        view = system.input(name)
        return {
            "original": view.denormalise(view.normalise(batch[name])).clip(0.0, 1.0),
            "attention": _read_patches(chosen, class_tokens) if blocks else None,
            "features": out["patches"].astype(np.float32),
        }

    found = jax.device_get(jax.jit(see)(run.variables, {name: batch[name]}))
    n = len(found["original"])
    attention = found["attention"]
    return Maps(
        original=found["original"],
        attention=attention if attention is None else attention.reshape(n, -1, *grid.shape),
        class_tokens=class_tokens,
        block=block % blocks if blocks else -1,
        blocks=blocks,
        features=found["features"].reshape(n, *grid.shape, -1),
    )


def principal_components(features: np.ndarray, count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Projects features on the directions of their largest variance.

    The sign of a direction, which is arbitrary, is that of its largest entry.

    Args:
      features: float [..., D].
      count: number of directions.

    Returns:
      float64 [..., count], centred projections, zero where there are fewer directions than that;
      and float64 [count], the share of the variance that each of them holds.
    """
    rows = features.reshape(-1, features.shape[-1]).astype(np.float64)
    rows = rows - rows.mean(axis=0)
    _, scales, directions = np.linalg.svd(rows, full_matrices=False)
    largest = np.abs(directions).argmax(axis=1)[:, None]
    directions = directions * np.sign(np.take_along_axis(directions, largest, axis=1))
    missing = max(count - len(scales), 0)
    projected = np.pad(rows @ directions[:count].T, ((0, 0), (0, missing)))
    shares = np.pad(scales[:count] ** 2 / max((scales**2).sum(), 1e-30), (0, missing))
    return projected.reshape(*features.shape[:-1], count), shares


def draw_maps(
    run: Loaded,
    out: str | Path,
    data: Data | None = None,
    *,
    block: int = -1,
    most: int | None = None,
) -> Path:
    """Draws for each picture the attention of every head and three components of its patches.

    Args:
      run: from `maskjax.load`.
      out: the PNG file to write.
      data, block, most: as in `look`.

    Returns:
      The file.

    Raises:
      UserError: as `look`; or the file cannot be written.
    """
    out = check_png(out)
    maps = look(run, data, block=block, most=most)
    size = maps.original.shape[1:3]
    channels = [0, 1, 2] if maps.original.shape[-1] >= 3 else [0, 0, 0]
    sheet = {"original": np.round(255 * maps.original[..., channels]).astype(np.uint8)}
    notes = []
    if maps.attention is not None:
        for head, weights in enumerate(np.moveaxis(maps.attention, 1, 0), start=1):
            largest = weights.max(axis=(1, 2), keepdims=True)
            sheet[f"head {head}"] = _enlarge(colours(weights / np.maximum(largest, 1e-30)), size)
        whose = "the class token" if maps.class_tokens else "all patches, on average,"
        notes.append(
            f"Heads: how much {whose} attends to each patch, in block {maps.block + 1} of "
            f"{maps.blocks}; black is none, the brightest of every map is its own largest weight."
        )
    components, shares = principal_components(maps.features)
    sheet["components"] = _enlarge(_stretch(components), size)
    shown = ", ".join(f"{100 * share:.0f} %" for share in shares)
    notes.append(
        "Components: the first three principal components of the patch features of all these "
        f"pictures, as red, green and blue; they hold {shown} of the variance."
    )
    return write_sheet(out, sheet, " ".join(notes))


def _read_patches(weights: jax.Array, class_tokens: int) -> jax.Array:
    """[B, heads, S, S] -> [B, heads, N]: who reads the patches, which follow the class tokens."""
    patches = weights[..., class_tokens:]
    return (patches[:, :, :class_tokens] if class_tokens else patches).mean(axis=2)


def _stretch(components: np.ndarray) -> np.ndarray:
    """[n, h, w, 3] -> uint8; each channel from its 1st to its 99th percentile over all pictures."""
    low, high = np.percentile(components, (1, 99), axis=(0, 1, 2))
    scaled = (components - low) / np.maximum(high - low, 1e-30)
    return np.round(255 * scaled.clip(0, 1)).astype(np.uint8)


def _enlarge(cells: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Repeats the cells of [n, h, w, 3] up to the size of the pictures, a multiple of theirs."""
    factors = size[0] // cells.shape[1], size[1] // cells.shape[2]
    return cells.repeat(factors[0], axis=1).repeat(factors[1], axis=2)
