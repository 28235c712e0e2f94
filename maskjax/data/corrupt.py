"""Records that cannot be read: a few are reported, too many stop the run."""

import sys
from collections.abc import Mapping

import numpy as np

from maskjax.data.records import Records
from maskjax.errors import UserError


class CorruptRecords:
    """Collects the unreadable records of the batches it is shown, on the host.

    Attributes:
      bad: numbers of the records found unreadable, in the order they were met.
    """

    def __init__(self, records: Records, limit: float) -> None:
        """Initialises the collection.

        Args:
          records: what the batches were read from.
          limit: greatest share of distinct unreadable records, in [0, 1].
        """
        if not 0 <= limit <= 1:
            raise UserError(
                f"data.corrupt_limit is {limit}: give a share of the records in [0, 1]."
            )
        self.bad: dict[int, str] = {}
        self._records = records
        self._limit = limit

    def update(self, batch: Mapping[str, np.ndarray]) -> None:
        """Takes note of the unreadable records of a batch; prints a line for each new one.

        Args:
          batch: what `train_batches` or `eval_batches` gave; only `_mask` and `_index` are read.
            Padding (index -1) is not counted.

        Raises:
          UserError: more than the allowed share of all records is unreadable.
        """
        unreadable = np.asarray(batch["_index"])[~np.asarray(batch["_mask"], bool)]
        for i in map(int, unreadable):
            if i >= 0 and i not in self.bad:
                self.bad[i] = self._records.describe(i)
                print(f"unreadable: {self.bad[i]} ({self._reason(i)})", file=sys.stderr)
        count, total = len(self.bad), len(self._records)
        if count > self._limit * total:
            first = "; ".join(list(self.bad.values())[:3])
            raise UserError(
                f"{count} of {total} records ({count / total:.2%}) cannot be read, more than the "
                f"{self._limit:.2%} that data.corrupt_limit allows; the first: {first}. Repair or "
                f"remove them, or raise the limit."
            )

    def _reason(self, i: int) -> str:
        # The worker that met the record could only mask it; reading it once more tells why.
        try:
            self._records[i]
        except Exception as error:  # whatever the decoder raises is what is wanted here
            return f"{type(error).__name__}: {error}".splitlines()[0]
        return "no error when it was read again"
