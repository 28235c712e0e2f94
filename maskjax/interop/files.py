"""Reading and writing files of weights: safetensors, PyTorch, numpy."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from maskjax.errors import UserError

# Where programs put the weights among what else they save.
_WRAPPERS = ("model", "state_dict", "module", "base_model", "teacher", "target_encoder")
_PREFIX = "module."  # of models trained on several devices
WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Returns {name: array} of a file or of a directory as Hugging Face writes it.

    PyTorch's files are read without running anything that they hold (`weights_only`).

    Args:
      path: `.safetensors`, `.npz`, `.pth`, `.pt` or `.bin`; or a directory with
        `model.safetensors`, in one piece or with an index.

    Raises:
      UserError: there is no such file, it cannot be read, or PyTorch is needed and not installed.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _directory(path)
    if not path.exists():
        raise UserError(f"There is no file {path}: correct --file.")
    readers = {".safetensors": _safetensors, ".npz": _npz}
    readers |= dict.fromkeys((".pth", ".pt", ".bin"), _torch)
    if path.suffix not in readers:
        raise UserError(
            f"{path} is of an unknown kind: --file takes {', '.join(readers)}, or a directory with "
            f"{WEIGHTS}."
        )
    return readers[path.suffix](path)


def write_weights(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes a safetensors file that PyTorch's programs read."""
    save_file(arrays, path, metadata={"format": "pt"})


def _directory(path: Path) -> dict[str, np.ndarray]:
    if (path / WEIGHTS).exists():
        return _safetensors(path / WEIGHTS)
    if (path / _INDEX).exists():
        pieces = set(json.loads((path / _INDEX).read_text())["weight_map"].values())
        return {k: v for piece in sorted(pieces) for k, v in _safetensors(path / piece).items()}
    raise UserError(f"{path} has neither {WEIGHTS} nor {_INDEX}: name the file itself.")


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}).") from None


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read as .npz ({error}).") from None


def _torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ModuleNotFoundError:
        raise UserError(
            f"{path.suffix} files are read with PyTorch, which is not installed: run "
            "`pip install torch`, or convert the file to safetensors."
        ) from None
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of many kinds, of many lines
        raise UserError(
            f"{path} cannot be read as weights alone ({str(error).splitlines()[0]})."
        ) from None
    for wrapper in _WRAPPERS:
        if isinstance(held, dict) and isinstance(held.get(wrapper), dict):
            held = held[wrapper]
            break
    arrays = {
        name.removeprefix(_PREFIX): value.float().numpy()
        for name, value in (held.items() if isinstance(held, dict) else ())
        if isinstance(value, torch.Tensor)
    }
    if not arrays:
        raise UserError(f"{path} holds no weights by name.")
    return arrays


def _numpy_scalars() -> list[Any]:
    """Returns what makes a number of numpy: some programs save an accuracy beside the weights."""
    scalar, (dtype, _) = np.float64(0).__reduce__()
    kinds = (np.float32, np.float64, np.int32, np.int64)
    return [
        scalar,
        (scalar, "numpy.core.multiarray.scalar"),  # its name before numpy 2
        type(dtype),
        np.dtype,
        *(type(np.dtype(kind)) for kind in kinds),
    ]
