"""Inputs that evaluation sees several times: clips and crops of a video."""

from collections.abc import Mapping
from typing import Any, Protocol, cast

import numpy as np

from maskjax.data.inputs import Input
from maskjax.errors import UserError


class ManyViews(Input, Protocol):
    """An input of which evaluation reads several views; what they give is averaged.

    Attributes:
      views: V, how many; 1: `read` alone says what evaluation sees.
    """

    views: int

    def read_view(self, value: Any, view: int) -> np.ndarray:
        """Brings the value of one record to `shape(False)`, as view 0 <= `view` < V sees it."""
        ...


def view_count(inputs: Mapping[str, Input]) -> int:
    """Returns how many views evaluation takes of an example.

    Raises:
      UserError: two inputs want different numbers above 1.
    """
    counts = {name: getattr(each, "views", 1) for name, each in inputs.items()}
    several = sorted({count for count in counts.values() if count > 1})
    if len(several) > 1:
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UserError(
            f"The inputs have different numbers of views in evaluation ({shown}): give them equal "
            "numbers, or one view."
        )
    return several[0] if several else 1


def read_view(each: Input, value: Any, view: int) -> np.ndarray:
    """Returns a view of a record's value; an input without views is the same in all of them."""
    if getattr(each, "views", 1) == 1:
        return each.read(value, None)
    return cast(ManyViews, each).read_view(value, view)
