"""The encoder as a `jax.export` artefact, and its weights as safetensors."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from safetensors.numpy import save_file

import maskjax
from maskjax.errors import UserError
from maskjax.loading import Loaded
from maskjax.paths import get_path, named_leaves

PROGRAM, WEIGHTS, DESCRIPTION = "encoder.jax_export", "weights.safetensors", "export.json"
_TOLERANCE = 1e-5


def export_encoder(
    run: Loaded,
    out: str | Path,
    outputs: Sequence[str] = ("encoder.mean",),
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
) -> float:
    """Writes the encoder of a run, and checks that what was written computes the same.

    The program takes the array of the input, e.g. uint8 images [b, H, W, C], with any b (a dict of
    arrays, if the system has several inputs), holds its weights, and returns {path: array} for the
    outputs named. Its weights are also written by themselves, in float32,
    under their paths ("encoder/embed/kernel").

    Args:
      run: from `maskjax.load`.
      out: directory, created.
      outputs: paths into what `encode` returns.
      platforms: out of "cpu", "cuda", "rocm" and "tpu".

    Returns:
      The greatest difference between the artefact and `run.encode`, relative to the largest value.

    Raises:
      UserError: an output that does not exist, a directory that cannot be written.
      RuntimeError: the artefact computes something else.
    """
    out, inputs = Path(out), run.system.inputs
    only = next(iter(inputs)) if len(inputs) == 1 else None

    def encode(data: Any) -> dict[str, jax.Array]:
        encoded = run.system.encode(run.variables, data if only is None else {only: data})
        return {path: get_path(encoded, path) for path in outputs}

    (batch,) = export.symbolic_shape("b")
    shapes = _shapes(run, batch)
    shapes = shapes if only is None else shapes[only]
    program = export.export(jax.jit(encode), platforms=tuple(platforms))(shapes).serialize()
    weights = {k: np.asarray(v) for k, v in named_leaves(run.variables["params"]).items()}
    description = {
        "maskjax": maskjax.__version__,
        "jax": jax.__version__,
        "run": run.config.name,
        "step": run.step,
        "inputs": {
            name: {"shape": ["b", *each.shape(False)], "dtype": each.dtype.name}
            for name, each in inputs.items()
        },
        "outputs": list(outputs),
        "platforms": list(platforms),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / PROGRAM).write_bytes(program)
        save_file(weights, out / WEIGHTS)
        (out / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}): choose another --out."
        ) from None
    return _check(run, out, outputs)


def reload_line(run: Loaded, out: Path) -> str:
    """Returns the shell line that runs the artefact with jax alone."""
    zeros = {
        name: f"np.zeros({shape.shape}, np.{shape.dtype.name})"
        for name, shape in _shapes(run, 1).items()
    }
    inner = ", ".join(f"'{name}': {value}" for name, value in zeros.items())
    data = next(iter(zeros.values())) if len(zeros) == 1 else f"{{{inner}}}"
    return (
        'python -c "import jax.export, numpy as np; '
        f"encode = jax.export.deserialize(open('{out / PROGRAM}', 'rb').read()); "
        f'print(encode.call({data}))"'
    )


def _shapes(run: Loaded, batch_size: Any) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        name: jax.ShapeDtypeStruct((batch_size, *each.shape(False)), each.dtype)
        for name, each in run.system.inputs.items()
    }


def _check(run: Loaded, out: Path, outputs: Sequence[str]) -> float:
    """Compares the files with the run they came from, at a batch size of their own."""
    rng = np.random.default_rng(0)
    data = {
        name: rng.integers(0, 128, shape.shape).astype(shape.dtype)
        for name, shape in _shapes(run, 3).items()
    }
    data = next(iter(data.values())) if len(data) == 1 else data
    artefact = export.deserialize(bytearray((out / PROGRAM).read_bytes())).call(data)
    encoded = run.encode(data)
    worst = 0.0
    for path in outputs:
        wanted = np.asarray(get_path(encoded, path), np.float32)
        difference = np.abs(np.asarray(artefact[path], np.float32) - wanted).max()
        worst = max(worst, float(difference / np.abs(wanted).max()))
    if not worst <= _TOLERANCE:
        raise RuntimeError(
            f"The artefact in {out} differs from the run by {worst:.1e}, more than {_TOLERANCE:g}."
        )
    return worst
