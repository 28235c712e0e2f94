"""How many tokens a ratio hides, and whether that leaves something to see and something to do."""

import math

from maskjax.errors import UserError

# Keeps products such as 0.29 * 100 = 28.999... on their side of the integer.
_SLACK = 1e-9


def floor_share(total: int, ratio: float) -> int:
    """Returns floor(total ratio)."""
    return math.floor(total * ratio + _SLACK)


def ceil_share(total: int, ratio: float) -> int:
    """Returns ceil(total ratio)."""
    return math.ceil(total * ratio - _SLACK)


def check_hidden(hidden: int, total: int, setting: str, what: str = "tokens") -> None:
    """Refuses a mask that leaves nothing to see or nothing to predict.

    Args:
      hidden: number of masked units.
      total: number of units.
      setting: the argument and its value, as the user would write it, e.g. "ratio=0.99".
      what: the units, in the plural.

    Raises:
      UserError: not 0 < hidden < total.
    """
    if not 0 < hidden < total:
        masks = "none" if hidden <= 0 else "all"
        raise UserError(
            f"system.mask.{setting} masks {masks} of the {total} {what}: choose it so that some "
            "are visible and some are masked."
        )
