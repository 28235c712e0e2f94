"""What one sees while a run goes on."""

import sys
import time

from tqdm import tqdm


class Progress:
    """A progress bar on a terminal; a line now and then where there is none."""

    def __init__(self, total: int, start: int, seconds_between_lines: float = 10.0):
        """Starts at step `start` of `total`."""
        self._total, self._step = total, start
        self._start, self._began = start, time.monotonic()
        self._between, self._spoken = seconds_between_lines, self._began
        self._bar = (
            tqdm(total=total, initial=start, unit="step", dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def update(self, step: int, loss: float, examples_per_second: float) -> None:
        """Shows the loss of a step and the speed."""
        shown = f"loss {loss:.4f}, {examples_per_second:,.0f} images/s"
        if self._bar is not None:
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update(step - self._step)
            self._step = step
            return
        self._step, now = step, time.monotonic()
        if now - self._spoken >= self._between or step == self._total:
            self._spoken = now
            rate = (now - self._began) / max(1, step - self._start)
            left = tqdm.format_interval(rate * (self._total - step))
            print(f"step {step}/{self._total}: {shown}, {left} left", flush=True)

    def say(self, sentence: str) -> None:
        """Prints a line without breaking the bar."""
        if self._bar is not None:
            self._bar.write(sentence)
        else:
            print(sentence, flush=True)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
