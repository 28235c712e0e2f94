"""Where metrics go: metrics.jsonl always, TensorBoard event files on request."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from maskjax.files import replace_file

METRICS_FILE = "metrics.jsonl"


class MetricWriter:
    """Appends metrics of a run; one JSON object a line, each with a `step`."""

    def __init__(
        self,
        workdir: Path,
        start: int | None = None,
        tensorboard: bool = False,
        enabled: bool = True,
        say: Callable[[str], None] = print,
    ) -> None:
        """Opens the files.

        Args:
          workdir: of the run.
          start: step from which the run goes on; lines of later steps, which will be written
            again, are dropped. None: nothing is.
          tensorboard: write event files too.
          enabled: False: write nothing; of several processes one alone writes.
          say: told in one line what could not be written.
        """
        self._enabled, self._say = enabled, say
        self._path = workdir / METRICS_FILE
        self._events = None
        if tensorboard and enabled:
            from tensorboardX import SummaryWriter  # imports slowly

            self._events = SummaryWriter(str(workdir), purge_step=start + 1 if start else None)
        if start is not None:
            self.rewind(start)

    def rewind(self, step: int) -> None:
        """Drops what was written for steps after `step`."""
        if not self._enabled:
            return
        lines = [
            json.dumps(line) + "\n" for line in read_metrics(self._path) if line["step"] <= step
        ]
        replace_file(self._path, "".join(lines).encode())

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends one line and flushes it. A value that is not finite is written as null.

        What cannot be written (a full disk) is lost, and one line says so: no reason to end a run.
        """
        if not self._enabled:
            return
        values = {k: float(v) for k, v in metrics.items()}
        line = {"step": step} | {k: v if math.isfinite(v) else None for k, v in values.items()}
        try:
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            self._say(f"The metrics of step {step} could not be written ({error}) and are lost.")
        if self._events:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes the event files."""
        if self._events:
            self._events.close()


def read_metrics(path: Path) -> Iterator[dict]:
    """Yields the lines of a metrics file; a last line that was cut short is left out."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue
