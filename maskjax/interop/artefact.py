"""A run as `jax.export` artefacts, which need nothing but jax, and its weights as safetensors."""

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
from maskjax.interop import programs as parts
from maskjax.interop.programs import ENCODER, RECONSTRUCTION, SUFFIX, Program
from maskjax.interop.reduced import reduce_weights, restore_weights, weight_files
from maskjax.loading import Loaded

WEIGHTS, DESCRIPTION = "weights.safetensors", "export.json"
_TOLERANCE = 1e-5


def export_run(
    run: Loaded,
    out: str | Path,
    outputs: Sequence[str] = ("encoder.mean",),
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    weights: str = "float32",
    programs: Sequence[str] | None = None,
) -> float:
    """Writes what a run computes, and checks that what was written computes the same.

    A program takes the array of the input, e.g. uint8 images [b, H, W, C], with any b (a dict of
    arrays, if the system has several inputs), holds its weights, and returns {name: array}:

    - `encoder.jax_export`: the outputs named.
    - `reconstruction.jax_export`: takes a second argument, uint32 [], the seed of the masks that it
      draws, and returns what `run.reconstruct` returns, e.g. `original`, `masked`, `prediction` and
      `paste-back`, float32 [b, H, W, C] in [0, 1].

    The weights are also written by themselves, under their paths ("encoder/embed/kernel"). With
    fewer bits, kernels are restored to float32 where they are used: the artefact is smaller, the
    arithmetic is the same. What that changes is measured on the examples that the pictures of the
    run show, and written to `export.json`.

    Args:
      run: from `maskjax.load`.
      out: directory, created.
      outputs: of the encoder, paths into what `encode` returns.
      platforms: out of "cpu", "cuda", "rocm" and "tpu".
      weights: "float32", "bfloat16" or "int8", see `reduced.reduce_weights`.
      programs: "encoder", "reconstruction" or both; None: both if the system predicts something
        that can be shown, else the encoder.

    Returns:
      The greatest difference between an artefact and the run, relative to the largest value.

    Raises:
      UserError: an output or program that does not exist, a directory that cannot be written, or no
        examples to measure fewer bits on.
      RuntimeError: an artefact computes something else than the run with these weights.
    """
    out = Path(out)
    if programs is None:
        programs = [ENCODER, *[RECONSTRUCTION] * run.system.shows_predictions]
    chosen = [parts.program_of(run, name, outputs) for name in programs]
    reduced = reduce_weights(run.variables, weights)
    examples = None if weights == "float32" else run.read()  # before time is spent: may be lacking
    (batch,) = export.symbolic_shape("b")
    shapes = parts.input_shapes(run, batch)
    platforms = tuple(platforms)
    exported = {program: parts.trace(program, reduced, shapes, platforms) for program in chosen}
    description: dict[str, Any] = {
        "maskjax": maskjax.__version__,
        "jax": jax.__version__,
        "run": run.config.name,
        "step": run.step,
        "inputs": {name: parts.describe_input(each) for name, each in parts.inputs_of(run).items()},
        "platforms": list(platforms),
        "weights": weights,
        "programs": {program.name: parts.describe(program, e) for program, e in exported.items()},
    }
    if RECONSTRUCTION in description["programs"] and (note := run.system.picture_note()):
        description["programs"][RECONSTRUCTION]["note"] = note
    if examples is not None:
        description["examples"] = len(examples["label"])
    worst = 0.0
    try:
        out.mkdir(parents=True, exist_ok=True)
        save_file(weight_files(reduced["params"]), out / WEIGHTS)
        for program, artefact in exported.items():
            (out / (program.name + SUFFIX)).write_bytes(artefact.serialize())
            errors = _measure(run, program, out, restore_weights(reduced), examples)
            if examples is not None:
                description["programs"][program.name]["error"] = errors
            worst = max(worst, *(each["largest"] for each in errors.values()))
        (out / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}): choose another --out."
        ) from None
    return worst


def reload_line(run: Loaded, out: Path) -> str:
    """Returns the shell line that runs the encoder with jax alone."""
    zeros = {
        name: f"np.zeros({shape.shape}, np.{shape.dtype.name})"
        for name, shape in parts.input_shapes(run, 1).items()
    }
    inner = ", ".join(f"'{name}': {value}" for name, value in zeros.items())
    data = next(iter(zeros.values())) if len(zeros) == 1 else f"{{{inner}}}"
    return (
        'python -c "import jax.export, numpy as np; '
        f"encode = jax.export.deserialize(open('{out / (ENCODER + SUFFIX)}', 'rb').read()); "
        f'print(encode.call({data}))"'
    )


def _measure(
    run: Loaded, program: Program, out: Path, restored: Any, examples: Mapping[str, Any] | None
) -> dict[str, dict[str, float]]:
    """Returns {output: differences to the run}.

    The files have to compute what the run computes with the restored weights, at a batch size of
    their own: on examples, or on numbers that are none where there are no fewer bits.
    """
    if examples is None:
        rng = np.random.default_rng(0)
        data = {
            name: rng.integers(0, 128, shape.shape).astype(shape.dtype)
            for name, shape in parts.input_shapes(run, 3).items()
        }
    else:
        data = {name: examples[name] for name in run.system.reads}
    artefact, compute = parts.call(out, program, data), jax.jit(program.compute)
    same = parts.differences(artefact, compute(restored, data, *program.further))
    worst = max(each["largest"] for each in same.values())
    if not worst <= _TOLERANCE:
        raise RuntimeError(
            f"The {program.name} in {out} differs from the run by {worst:.1e}, more than "
            f"{_TOLERANCE:g}."
        )
    if examples is None:
        return same
    return parts.differences(artefact, compute(run.variables, data, *program.further))
