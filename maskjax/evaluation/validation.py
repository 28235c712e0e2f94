"""Choosing a setting of a probe on training examples that are held out."""

from typing import Any

import numpy as np

from maskjax.errors import UserError


def check_choice(evaluator: Any, what: str) -> None:
    """Checks the settings of an evaluator that chooses among the values of its field `what`.

    Args:
      evaluator: with `validation_share`.
      what: name of the field.

    Raises:
      UserError: an impossible share, or several values and nothing to choose by.
    """
    name, share = type(evaluator).__name__, evaluator.validation_share
    if not 0 <= share < 1:
        raise UserError(f"{name} needs a validation_share in [0, 1), not {share}.")
    if share == 0 and len(getattr(evaluator, what)) > 1:
        raise UserError(
            f"{name} cannot choose among several {what} without validation examples: give one, or "
            "a validation_share above 0."
        )


def hold_out(labels: np.ndarray, share: float, seed: int, what: str) -> np.ndarray:
    """Marks the examples that a setting is chosen by, bool [n]: `stratified_split`.

    Args:
      labels: int [n].
      share: in (0, 1).
      seed: of the split.
      what: is chosen, for the message.

    Raises:
      UserError: there is none that could be held out.
    """
    held_out = stratified_split(labels, share, seed)
    if not held_out.any():
        raise UserError(
            "Every class has a single training example, so none can be held out: give one "
            f"{what} and validation_share = 0."
        )
    return held_out


def stratified_split(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Marks a share of each class: at least one example of it, and never all.

    Args:
      labels: int [n].
      share: in (0, 1).
      seed: the split depends on nothing else.

    Returns:
      bool [n], True for the held-out examples.
    """
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(share * len(members))), len(members) - 1)
        held_out[members[:count]] = True
    return held_out
