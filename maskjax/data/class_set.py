"""Several classes of every record: the tags of a sound, what is in a picture."""

import dataclasses
import re
from typing import Any

import numpy as np

from maskjax.data.unvaried import Unvaried
from maskjax.errors import UserError

_SEPARATORS = re.compile(r"[\s,;]+")


@dataclasses.dataclass(frozen=True)
class ClassSet(Unvaried):
    """Any number of classes per example, not seen by models: terms and evaluators read them.

    The batch has uint8 [B, classes], 1 where an example is of a class, at the path `batch.NAME`.

    Attributes:
      classes: V, number of classes.
      optional: whether records may lack it.

    Raises:
      UserError: no classes.
    """

    classes: int
    optional: bool = False

    view = "classes"
    dtype = np.dtype(np.uint8)

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise UserError(f"data.ClassSet needs at least one class, not {self.classes}.")

    @property
    def size(self) -> tuple[int, ...]:
        """(classes,)."""
        return (self.classes,)

    def read(self, value: Any, rng: np.random.Generator | None) -> np.ndarray:
        """The classes of a record -> uint8 [classes].

        Args:
          value: their numbers from 0, in any order, also none: integers [n], or a string of them
            with blanks, commas or semicolons between; or a map, bool [classes].
          rng: no influence.

        Raises:
          UserError: a number that is no class or occurs twice, or a map of another length.
        """
        del rng
        if isinstance(value, str):
            value = [int(number) for number in _SEPARATORS.split(value.strip()) if number]
        value = np.asarray(value)
        if value.dtype == bool:
            if value.shape != (self.classes,):
                raise UserError(
                    f"A map of classes has the shape {value.shape}, but data.ClassSet was told "
                    f"{self.classes} classes: set its classes."
                )
            return value.astype(np.uint8)
        numbers = value.astype(np.int64).reshape(-1)
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < self.classes:
            raise UserError(
                f"A record has the classes {', '.join(map(str, numbers))}, but data.ClassSet was "
                f"told {self.classes}, from 0 to {self.classes - 1}: set its classes."
            )
        found = np.zeros(self.classes, np.uint8)
        found[numbers] = 1
        if found.sum() < len(numbers):
            raise UserError(
                "A record names a class twice: give the numbers of its classes, or a boolean map."
            )
        return found
