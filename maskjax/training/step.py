"""The training step: augment, mask, predict, differentiate, update."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax

from maskjax.parallel.devices import on_cpu
from maskjax.systems import System
from maskjax.systems.system import FORWARD_STREAMS
from maskjax.training.gradients import Metrics, loss_and_gradients
from maskjax.training.schedules import Schedule
from maskjax.training.state import TrainState
from maskjax.training.streams import STREAMS, stream

T = TypeVar("T")


def make_train_step(
    system: System,
    optimizer: optax.GradientTransformation,
    schedule: Schedule,
    total_steps: int,
    accumulate: int,
) -> Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, Metrics]]:
    """Returns the pure function of one step, to be jitted with the state donated.

    Args:
      system: the method.
      optimizer: gradients -> direction of descent.
      schedule: step -> learning rate.
      total_steps: of the run; samplers see the share that is done.
      accumulate: micro-batches a step.
    """

    def train_step(state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        key = jax.random.wrap_key_data(state.rng)
        keys = {name: stream(key, name, state.step) for name in STREAMS}
        params = state.variables["params"]

        batch = system.augment(keys["augment"], batch)
        progress = state.step / total_steps
        masks = system.sample_masks(keys["mask"], state.variables, batch, progress)
        loss, grads, metrics, stats = loss_and_gradients(
            system, state.variables, batch, masks, {n: keys[n] for n in FORWARD_STREAMS}, accumulate
        )
        learning_rate: Any = schedule(state.step)

        def advanced() -> tuple[dict[str, Any], Any]:
            direction, opt_state = optimizer.update(grads, state.opt_state, params)
            update = jax.tree.map(lambda d: -learning_rate * d, direction)
            variables = {**state.variables, "params": optax.apply_updates(params, update)}
            if stats:
                variables["stats"] = stats
            return system.update(variables, progress), opt_state  # what follows: a teacher

        # A step with a non-finite loss or gradient changes nothing but the step counter, so that
        # what is saved is always sound; the loop decides whether to stop, go on or roll back. With
        # a finite norm no square of a gradient overflows, so the moments and the update are finite.
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm) & jnp.isfinite(learning_rate)
        variables, opt_state = _if(finite, advanced, (state.variables, state.opt_state))
        metrics |= {
            "loss": loss,
            "learning_rate": learning_rate,
            "gradient_norm": norm,
            "finite": finite,
        }
        state = dataclasses.replace(
            state, step=state.step + 1, variables=variables, opt_state=opt_state
        )
        return state, metrics

    return train_step


def _if(condition: jax.Array, new: Callable[[], T], old: T) -> T:
    """Returns what `new` does if the condition holds, else `old`."""
    if on_cpu():
        # XLA would copy the moments before it chose from them; a branch updates them in place.
        return jax.lax.cond(condition, new, lambda: old)
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new(), old)
