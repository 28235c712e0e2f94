"""Where the time of a run goes."""

import contextlib
import time
from collections.abc import Generator, Mapping


class Stopwatch:
    """Divides the time of a process among activities, of which there is one at any moment.

    So the seconds of all activities add up to the time that has passed.
    """

    def __init__(self, activity: str) -> None:
        """Starts with an activity, which is always returned to."""
        self._activity, self._began = activity, time.perf_counter()
        self._seconds: dict[str, float] = {}

    def begin(self, activity: str) -> str:
        """Passes on to another activity; returns the one that ends."""
        now, before = time.perf_counter(), self._activity
        self._seconds[before] = self._seconds.get(before, 0.0) + now - self._began
        self._activity, self._began = activity, now
        return before

    @contextlib.contextmanager
    def on(self, activity: str) -> Generator[None]:
        """Spends the time of a block on an activity, then returns to the present one."""
        before = self.begin(activity)
        try:
            yield
        finally:
            self.begin(before)

    def seconds(self, *activities: str) -> float:
        """Returns what has been spent on some activities until now."""
        self.begin(self._activity)
        return sum(self._seconds.get(activity, 0.0) for activity in activities)

    def all(self) -> dict[str, float]:
        """Returns the seconds of every activity until now, the longest first."""
        self.begin(self._activity)
        return dict(sorted(self._seconds.items(), key=lambda item: -item[1]))

    def __str__(self) -> str:
        """The total, and the share of every activity that took at least a hundredth of it."""
        seconds = self.all()
        return f"{sum(seconds.values()):,.1f} s: {shares(seconds)}"


def shares(seconds: Mapping[str, float]) -> str:
    """Says what share of the time each activity took, e.g. "training 63 %, evaluating 21 %".

    The longest first; what took less than a hundredth is left out.
    """
    total = sum(seconds.values())
    each = sorted(((100 * s / total, name) for name, s in seconds.items()), reverse=True)
    return ", ".join(f"{name} {share:.0f} %" for share, name in each if share >= 1)
