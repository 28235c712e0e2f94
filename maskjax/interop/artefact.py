"""The encoder as a `jax.export` artefact, and its weights as safetensors."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from safetensors.numpy import save_file

import maskjax
from maskjax.errors import UserError
from maskjax.interop.reduced import reduce_weights, restore_weights, weight_files
from maskjax.loading import Loaded
from maskjax.paths import get_path

PROGRAM, WEIGHTS, DESCRIPTION = "encoder.jax_export", "weights.safetensors", "export.json"
_TOLERANCE = 1e-5


def export_encoder(
    run: Loaded,
    out: str | Path,
    outputs: Sequence[str] = ("encoder.mean",),
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    weights: str = "float32",
) -> float:
    """Writes the encoder of a run, and checks that what was written computes the same.

    The program takes the array of the input, e.g. uint8 images [b, H, W, C], with any b (a dict of
    arrays, if the system has several inputs), holds its weights, and returns {path: array} for the
    outputs named. Its weights are also written by themselves, under their paths
    ("encoder/embed/kernel"). With fewer bits, kernels are restored to float32 where they are used:
    the artefact is smaller, the arithmetic is the same. What that changes is measured on the
    examples that the pictures of the run show, and written to `export.json`.

    Args:
      run: from `maskjax.load`.
      out: directory, created.
      outputs: paths into what `encode` returns.
      platforms: out of "cpu", "cuda", "rocm" and "tpu".
      weights: "float32", "bfloat16" or "int8", see `reduced.reduce_weights`.

    Returns:
      The greatest difference between the artefact and `run.encode`, relative to the largest value.

    Raises:
      UserError: an output that does not exist, a directory that cannot be written, or no examples
        to measure fewer bits on.
      RuntimeError: the artefact computes something else than the run with these weights.
    """
    out, inputs = Path(out), run.system.inputs
    only = next(iter(inputs)) if len(inputs) == 1 else None
    reduced = reduce_weights(run.variables, weights)
    examples = None if weights == "float32" else run.read()  # before time is spent: may be lacking

    def encode(data: Any) -> dict[str, jax.Array]:
        batch = data if only is None else {only: data}
        encoded = run.system.encode(restore_weights(reduced), batch)
        return {path: get_path(encoded, path) for path in outputs}

    (batch,) = export.symbolic_shape("b")
    shapes = _shapes(run, batch)
    shapes = shapes if only is None else shapes[only]
    program = export.export(jax.jit(encode), platforms=tuple(platforms))(shapes).serialize()
    description: dict[str, Any] = {
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
        "weights": weights,
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / PROGRAM).write_bytes(program)
        save_file(weight_files(reduced["params"]), out / WEIGHTS)
        if examples is None:
            worst = _check(run, out, outputs)
        else:
            description["error"] = _measure(run, restore_weights(reduced), examples, out, outputs)
            worst = max(each["largest"] for each in description["error"].values())
            description["examples"] = len(examples["label"])
        (out / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}): choose another --out."
        ) from None
    return worst


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
    errors = _differences(_called(out, data), run.encode(data), outputs)
    worst = max(each["largest"] for each in errors.values())
    _refuse(worst, out)
    return worst


def _measure(
    run: Loaded, restored: Any, examples: Mapping[str, Any], out: Path, outputs: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Returns {output: differences to the run}, on examples that it reads.

    The files have to compute what the run computes with the restored weights.
    """
    data = {name: examples[name] for name in run.system.inputs}
    artefact, encode = _called(out, data), jax.jit(run.system.encode)
    same = _differences(artefact, encode(restored, data), outputs)
    _refuse(max(each["largest"] for each in same.values()), out)
    return _differences(artefact, encode(run.variables, data), outputs)


def _called(out: Path, data: Mapping[str, Any]) -> Mapping[str, jax.Array]:
    program = export.deserialize(bytearray((out / PROGRAM).read_bytes()))
    return program.call(next(iter(data.values())) if len(data) == 1 else data)


def _differences(
    artefact: Mapping[str, Any], encoded: Mapping[str, Any], outputs: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Returns {output: differences relative to the values}: the `largest`, and the `rms`."""
    errors = {}
    for path in outputs:
        wanted = np.asarray(get_path(encoded, path), np.float32)
        difference = np.asarray(artefact[path], np.float32) - wanted
        errors[path] = {
            "largest": float(np.abs(difference).max() / np.abs(wanted).max()),
            "rms": float(np.linalg.norm(difference) / np.linalg.norm(wanted)),
        }
    return errors


def _refuse(worst: float, out: Path) -> None:
    if not worst <= _TOLERANCE:
        raise RuntimeError(
            f"The artefact in {out} differs from the run by {worst:.1e}, more than {_TOLERANCE:g}."
        )
