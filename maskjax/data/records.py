"""What a source gives when it is opened: records by number."""

import difflib
from collections.abc import Iterable
from typing import Any, Protocol

from maskjax.errors import UserError


class Records(Protocol):
    """One split of a data set, readable in any order and from any thread or process.

    Implementations can be pickled: worker processes get a copy.
    """

    @property
    def num_classes(self) -> int | None:
        """Number of classes if every record has a label, None if none has."""

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """Name of every class, or None."""

    def __len__(self) -> int:
        """Returns the number of records."""

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Reads record `i`.

        Returns:
          `image`: uint8 [h, w, c] of any size; `label`: int in [0, num_classes), if there are
          labels.

        Raises:
          Exception: of any kind, if the record cannot be read.
        """

    def describe(self, i: int) -> str:
        """Returns what a person needs to find record `i`: a file name, or data set and number."""


def unknown_split(split: str, where: str, known: Iterable[str]) -> UserError:
    """Returns the error for a split that does not exist; it names the nearest that does."""
    known = list(known)
    close = difflib.get_close_matches(split, known, n=1, cutoff=0.4)
    hint = f"did you mean '{close[0]}'? There" if close else "there"
    return UserError(f"{where} has no split '{split}'; {hint} are: {', '.join(known) or 'none'}.")
