"""Everything that a training step changes, and that a checkpoint therefore holds."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from maskjax.parallel.sharding import state_shardings
from maskjax.systems import System
from maskjax.training.streams import stream


@flax.struct.dataclass
class TrainState:
    """State of a run between two steps.

    Attributes:
      step: int32 [], steps taken; also the position in the data, which is a function of it.
      rng: uint32 key data, the root of all random streams.
      variables: of the system; `variables["params"]` are trained.
      opt_state: moments of the optimiser.
    """

    step: jax.Array
    rng: jax.Array
    variables: dict[str, Any]
    opt_state: Any


def init_state(system: System, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """Returns the state before the first step."""
    variables = system.jitted_init(stream(jax.random.key(seed), "init"))
    return _first(variables, optimizer, seed)


def _first(variables: Any, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        rng=jax.random.key_data(jax.random.key(seed)),
        variables=variables,
        opt_state=optimizer.init(variables["params"]),
    )


def abstract_state(
    system: System,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    fsdp_min_size: int,
    rules: Any = (),
) -> TrainState:
    """Returns the state as `ShapeDtypeStruct`s that carry their shardings, see `state_shardings`.

    Raises:
      UserError: a rule cannot be followed.
    """
    shapes = jax.eval_shape(lambda variables: _first(variables, optimizer, 0), system.shapes)
    shardings = state_shardings(mesh, shapes, fsdp_min_size, rules)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )
