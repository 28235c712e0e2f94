"""A number of every record, for evaluators: a similarity score, an age, a speed."""

import dataclasses
from typing import Any

import numpy as np

from maskjax.data.unvaried import Unvaried


@dataclasses.dataclass(frozen=True)
class Scalar(Unvaried):
    """One number per example, not seen by models; evaluators read it at the path `batch.NAME`.

    Attributes:
      optional: whether records may lack it.
    """

    optional: bool = False

    view = "scalar"
    dtype = np.dtype(np.float32)

    def read(self, value: Any, rng: np.random.Generator | None) -> np.ndarray:
        """A number -> float32 []."""
        del rng
        return np.asarray(value, np.float32)
