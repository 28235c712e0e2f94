"""What a run computes, as `jax.export` artefacts that hold their weights."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from maskjax.data import Image, Input
from maskjax.errors import UserError
from maskjax.interop.reduced import restore_weights
from maskjax.loading import Loaded, draw_and_reconstruct
from maskjax.paths import get_path

ENCODER, RECONSTRUCTION = "encoder", "reconstruction"
PROGRAMS = (ENCODER, RECONSTRUCTION)
SUFFIX = ".jax_export"


@dataclasses.dataclass(frozen=True)
class Program:
    """A function that can become an artefact.

    Attributes:
      name: of the file, without `SUFFIX`.
      compute: (variables, {input: [b, ...]}, *further) -> {output: array}, pure.
      outputs: names of what is returned, in the order in which they are shown.
      further: values of the further arguments, with which the artefact is checked.
    """

    name: str
    compute: Callable[..., dict[str, jax.Array]]
    outputs: tuple[str, ...]
    further: tuple[np.generic, ...] = ()


def program_of(run: Loaded, name: str, outputs: Sequence[str]) -> Program:
    """Returns a program of a run.

    Args:
      run: from `maskjax.load`.
      name: one of `PROGRAMS`.
      outputs: of the encoder, paths into what `encode` returns.

    Raises:
      UserError: there is no such program, or the system predicts nothing that could be shown.
    """
    system = run.system
    if name == ENCODER:

        def encode(variables: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
            encoded = system.encode(variables, batch)
            return {path: get_path(encoded, path) for path in outputs}

        return Program(ENCODER, encode, tuple(outputs))
    if name != RECONSTRUCTION:
        raise UserError(f"--programs are out of {', '.join(PROGRAMS)}, not '{name}'.")
    if not system.shows_predictions:
        raise UserError(
            f"{run.config.name} ({type(system).__name__}) predicts nothing that a reconstruction "
            "could show: leave 'reconstruction' out of --programs."
        )

    def reconstruct(
        variables: Any, batch: Mapping[str, jax.Array], seed: jax.Array
    ) -> dict[str, jax.Array]:
        found = draw_and_reconstruct(system, variables, batch, jax.random.key(seed))
        return {title: found[title] for title in system.titles}

    return Program(RECONSTRUCTION, reconstruct, system.titles, (np.uint32(1),))


def trace(
    program: Program,
    reduced: Any,
    shapes: Mapping[str, jax.ShapeDtypeStruct],
    platforms: Sequence[str],
) -> export.Exported:
    """Returns the artefact of a program, not yet serialised.

    It holds the weights that it needs and no others: those of a frozen teacher, for example, are no
    part of a prediction.

    Args:
      program: what it computes.
      reduced: variables, from `reduce_weights`.
      shapes: of the inputs, from `input_shapes`.
      platforms: out of "cpu", "cuda", "rocm" and "tpu".
    """
    only = next(iter(shapes)) if len(shapes) == 1 else None
    leaves, tree = jax.tree.flatten(reduced)

    def compute(leaves: Any, data: Any, *further: jax.Array) -> dict[str, jax.Array]:
        variables = restore_weights(jax.tree.unflatten(tree, leaves))
        return program.compute(variables, data if only is None else {only: data}, *further)

    data = shapes if only is None else shapes[only]
    further = [jax.ShapeDtypeStruct(value.shape, value.dtype) for value in program.further]
    weights = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    needed = _needed(jax.make_jaxpr(compute)(weights, data, *further).jaxpr)

    def exported(data: Any, *further: jax.Array) -> dict[str, jax.Array]:
        held = [
            leaf if i in needed else jnp.zeros(leaf.shape, leaf.dtype)
            for i, leaf in enumerate(leaves)
        ]
        return compute(held, data, *further)

    return export.export(jax.jit(exported), platforms=platforms)(data, *further)


def call(out: Path, program: Program, data: Mapping[str, Any]) -> Mapping[str, jax.Array]:
    """Runs an artefact that was written."""
    exported = export.deserialize(bytearray((out / (program.name + SUFFIX)).read_bytes()))
    return exported.call(next(iter(data.values())) if len(data) == 1 else data, *program.further)


def describe(program: Program, exported: export.Exported) -> dict[str, Any]:
    """Returns what `export.json` says of a program: its outputs and its further arguments."""
    found = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    return {
        "file": program.name + SUFFIX,
        "outputs": {name: _shape(found[name]) for name in program.outputs},
        **({"seed": "uint32"} if program.further else {}),
    }


def describe_input(data: Input) -> dict[str, Any]:
    """Returns what `export.json` says of an input; of images also how pictures become them."""
    shape = {"shape": ["b", *data.shape(False)], "dtype": data.dtype.name}
    return shape | ({"fit": list(data.fitted_size)} if isinstance(data, Image) else {})


def inputs_of(run: Loaded) -> dict[str, Input]:
    """Returns the inputs that programs take, by name."""
    return {name: run.system.input(name) for name in run.system.reads}


def input_shapes(run: Loaded, batch_size: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns {input: shape and dtype} of a number of examples, which may be symbolic."""
    return {
        name: jax.ShapeDtypeStruct((batch_size, *each.shape(False)), each.dtype)
        for name, each in inputs_of(run).items()
    }


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Returns {output: differences relative to the values}: the `largest`, and the `rms`."""
    errors = {}
    for name, values in wanted.items():
        values = np.asarray(values, np.float32)
        difference = np.asarray(found[name], np.float32) - values
        errors[name] = {
            "largest": float(np.abs(difference).max() / (np.abs(values).max() or 1.0)),
            "rms": float(np.linalg.norm(difference) / (np.linalg.norm(values) or 1.0)),
        }
    return errors


def _needed(jaxpr: Any) -> set[int]:
    """Returns the numbers of the arguments that the results depend on."""
    read = {id(variable) for variable in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if equation.effects or any(id(variable) in read for variable in equation.outvars):
            read.update(map(id, equation.invars))
    return {i for i, variable in enumerate(jaxpr.invars) if id(variable) in read}


def _shape(array: Any) -> dict[str, Any]:
    """Returns shape and dtype for JSON; a symbolic size is its name."""
    sizes = [size if isinstance(size, int) else str(size) for size in array.shape]
    return {"shape": sizes, "dtype": array.dtype.name}
