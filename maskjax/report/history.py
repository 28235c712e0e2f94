"""Reading what a run wrote about itself, as far as it has come."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Series = dict[str, list[tuple[int, float]]]

_TIME = "time/"  # what a start spent its time on, one line when it ends


@dataclasses.dataclass(frozen=True)
class History:
    """The metrics of a run.

    Attributes:
      series: {metric name: [(step, value), ...]} by step. Of the values of one step, the last one
        written counts: a resumed run repeats steps.
      last: {metric name: the value written last}.
      unreadable: number of lines that are not a JSON object with a step, such as one cut off by a
        crash.
      starts: number of starts that have told what they spent their time on: all but those that
        were killed.
      spent: {activity: seconds}, the sum over these starts.
    """

    series: Series
    last: dict[str, float]
    unreadable: int
    starts: int = 0
    spent: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def step(self) -> int | None:
        """The largest step of any metric; None without metrics."""
        return max((points[-1][0] for points in self.series.values()), default=None)


def read_history(path: Path) -> History:
    """Reads metrics.jsonl. A missing file is an empty history; what is no number is left out."""
    values: dict[str, dict[int, float]] = {}
    last: dict[str, float] = {}
    spent: dict[str, float] = {}
    unreadable = starts = 0
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in text.splitlines():
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            step = int(row.pop("step"))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            unreadable += 1
            continue
        starts += any(name.startswith(_TIME) for name in row)
        for name, value in row.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                values.setdefault(name, {})[step] = last[name] = float(value)
                if name.startswith(_TIME):
                    activity = name.removeprefix(_TIME).replace("_", " ")
                    spent[activity] = spent.get(activity, 0.0) + value
    series = {name: sorted(points.items()) for name, points in values.items()}
    return History(series, last, unreadable, starts, spent)


def read_config(path: Path) -> dict[str, Any]:
    """Reads config.json as plain dicts and lists; {} if it is missing or cut off."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def read_starts(path: Path) -> list[str]:
    """Reads the start-up reports of a run, one for each start, the newest last."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return [block.strip("\n") for block in re.split(r"\n{2,}", text) if block.strip()]


def start_rows(report: str) -> dict[str, str]:
    """Returns {name: text} of the rows of a start-up report."""
    return dict(re.findall(r"^ *(\w+)  (\S.*)$", report, re.MULTILINE))
