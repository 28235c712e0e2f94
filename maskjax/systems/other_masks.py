"""A system with other masks than it was trained with, to look at what it predicts of them."""

import dataclasses
from typing import Any

import jax

from maskjax.data import batch_shapes
from maskjax.errors import UserError
from maskjax.masking import Fixed, Hidden, Mask, Separate, hidden_tokens
from maskjax.systems.system import System


def with_ratio(system: System, ratio: float) -> System:
    """Returns the system with another mask ratio.

    Args:
      system: whose sampler, or each of its samplers, has an argument `ratio`.
      ratio: share of hidden tokens, rounded as the sampler rounds it.

    Raises:
      UserError: the sampler has no ratio, or no mask can be drawn with this one.
    """
    return _checked(system, _with_ratio(system, getattr(system, "mask", None), ratio))


def given_mask(system: System, mask: Any) -> tuple[int, ...]:
    """Reads a mask for the examples of a system.

    Args:
      system: that hides tokens of one grid.
      mask: as `masking.hidden_tokens` takes it.

    Returns:
      The numbers of the hidden tokens, ascending.

    Raises:
      UserError: the system has masks of another kind, or this is no mask of its grid.
    """

    def draw(variables: Any, batch: Any) -> Any:
        return system.sample_masks(jax.random.key(0), variables, batch)

    drawn = jax.eval_shape(draw, system.shapes, batch_shapes(system.inputs, 1, train=False))
    plain = any(isinstance(each, Mask | Hidden) for each in drawn.values())
    if not plain or not hasattr(system, "mask") or not hasattr(system, "grid"):
        raise UserError(
            f"{type(system).__name__} does not hide tokens of one grid, so a mask cannot be given "
            "to it: leave out the mask; its own are drawn by a seed."
        )
    grid: Any = system.grid
    return hidden_tokens(mask, grid)


def with_hidden(system: System, hidden: tuple[int, ...]) -> System:
    """Returns the system with one mask for all examples, of `given_mask`."""
    return _checked(system, Fixed(hidden))


def _with_ratio(system: System, sampler: Any, ratio: float) -> Any:
    if isinstance(sampler, Separate):
        each = {name: _with_ratio(system, s, ratio) for name, s in sampler.samplers.items()}
        return dataclasses.replace(sampler, samplers=each)
    if not hasattr(sampler, "ratio"):
        what = "its masks" if sampler is None else f"the masks of {type(sampler).__name__}"
        raise UserError(
            f"The system is {type(system).__name__}, and {what} have no ratio that can be changed: "
            "leave out the mask ratio; another seed draws other masks."
        )
    # A number of tokens would win over the share.
    count = {"count": None} if getattr(sampler, "count", None) is not None else {}
    return dataclasses.replace(sampler, ratio=ratio, **count)


def _checked(system: System, sampler: Any) -> System:
    system = dataclasses.replace(system, mask=sampler)
    system.check()
    return system
