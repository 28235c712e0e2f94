"""Durations with a unit: one resolver for every place that has one."""

import dataclasses
import math
import re

from maskjax.errors import UserError

_PATTERN = re.compile(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*(steps?|epochs?|examples?|percent|%)\s*")
_TOO_LONG = 1e15  # of any unit


@dataclasses.dataclass(frozen=True)
class Clock:
    """What converts durations to steps.

    Attributes:
      batch_size: examples a step.
      steps_per_epoch: whole batches in the training split.
      total_steps: of the run; None while it is being resolved itself.
    """

    batch_size: int
    steps_per_epoch: int
    total_steps: int | None = None

    @property
    def length(self) -> int:
        """Returns `total_steps`, which has to be resolved."""
        assert self.total_steps is not None
        return self.total_steps

    def steps(self, duration: str, key: str) -> int:
        """Returns a duration in steps, rounded to the nearest.

        Args:
          duration: a number and one unit: "40 epochs", "500 steps", "1e6 examples" or "5 percent"
            of the run.
          key: the config key, for the message.

        Raises:
          UserError: no number with exactly one of these units.
        """
        match = _PATTERN.fullmatch(str(duration))
        if not match:
            raise UserError(
                f"{key} = '{duration}' is not a duration: write one number and one unit, such as "
                "'40 epochs', '500 steps', '1e6 examples' or '5 percent'."
            )
        try:
            value = float(match[1])
        except ValueError:
            value = math.inf
        if not value < _TOO_LONG:
            raise UserError(
                f"{key} = '{duration}': '{match[1]}' is no number, or too large: correct it."
            )
        unit = match[2].rstrip("s")
        if unit in ("percent", "%"):
            if self.total_steps is None:
                raise UserError(f"{key} = '{duration}': the whole run cannot be given in percent.")
            return round(value / 100 * self.total_steps)
        per_unit = {
            "step": 1,
            "epoch": self.steps_per_epoch,
            "example": 1 / self.batch_size,
        }
        return round(value * per_unit[unit])

    def interval(self, duration: str | None, key: str) -> int | None:
        """Returns a period in steps, at least 1; None stays None."""
        return None if duration is None else max(1, self.steps(duration, key))
