"""The training step of a configuration, lowered for devices that are not there.

It is the step that `training/loop.py` compiles, with the same layout; only the records are missing,
of which nothing but their number is needed.
"""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from maskjax.config import ConfigDict, build, flatten
from maskjax.data import batch_shapes
from maskjax.errors import UserError
from maskjax.parallel.flops import count_flops
from maskjax.parallel.sharding import batch_sharding
from maskjax.training.run import Run, prepare

IMAGENET = 1_281_167  # examples of ImageNet-1k's training split


@dataclasses.dataclass(frozen=True)
class Program:
    """A step ready to be compiled.

    Attributes:
      run: system, mesh, optimiser and durations; its records have a length and nothing else.
      batch: shapes with shardings.
      lowered: of `jit(step).lower(state, batch)`.
      model_flops: of one step over all devices: three forward passes.
      hardware_flops: of one step over all devices, as written, with what is computed again.
      warnings: sentences about what had to be assumed.
    """

    run: Run
    batch: Mapping[str, jax.ShapeDtypeStruct]
    lowered: Any
    model_flops: int
    hardware_flops: int
    warnings: tuple[str, ...]


def lower(config: ConfigDict, devices: list[Any], examples: int) -> Program:
    """Traces and lowers the training step of a configuration.

    Args:
      config: resolved; it is not changed.
      devices: of the slice.
      examples: of the training split.

    Raises:
      UserError: as `training.run.prepare`, for example a batch that the mesh does not divide.
    """
    config = for_accelerators(config)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        run = prepare(config, devices, records=range(examples))
    said = tuple(str(w.message) for w in caught if issubclass(w.category, UserWarning))
    shapes = batch_shapes(run.system.inputs, config.train.batch_size, train=True)
    shapes["label"] = jax.ShapeDtypeStruct((config.train.batch_size,), jnp.int32)
    sharding = batch_sharding(run.mesh)
    batch = {
        name: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)
        for name, shape in shapes.items()
    }
    state, step = run.abstract_state, run.jitted_step
    with jax.set_mesh(run.mesh):
        lowered = step.lower(state, batch)
        model = run.model_flops(state.variables, batch)
        hardware = count_flops(step, state, batch)
    return Program(run, batch, lowered, model, hardware, said)


def for_accelerators(config: ConfigDict) -> ConfigDict:
    """Returns a copy in which the precision "auto" is what it is on accelerators, bfloat16."""
    config = config.copy_and_resolve_references()
    automatic = [
        key
        for key, value in flatten(config).items()
        if key.rpartition(".")[2] == "dtype" and value == "auto"
    ]
    with config.unlocked():
        config.update_from_flattened_dict(dict.fromkeys(automatic, "bfloat16"))
    return config


def number_of_examples(config: ConfigDict) -> tuple[int, str]:
    """Returns how many examples the training split has, and where the number is from."""
    try:
        return len(build(config.data.source).open(config.data.train_split)), "of the data source"
    except UserError:
        return IMAGENET, "of ImageNet-1k, since the data source is not on this machine"
