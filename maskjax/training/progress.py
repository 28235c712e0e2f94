"""What one sees while a run goes on."""

import sys
import time

from tqdm import tqdm


class Progress:
    """A progress bar on a terminal; a line now and then where there is none."""

    def __init__(
        self,
        total: int,
        start: int,
        batch_size: int,
        seconds_between_lines: float = 10.0,
        enabled: bool = True,
    ) -> None:
        """Starts at step `start` of `total`; shows nothing unless `enabled`."""
        self._enabled = enabled
        self._total, self._step, self._batch_size = total, start, batch_size
        self._first: tuple[int, float] | None = None  # compilation is over: speed counts from here
        self._between, self._spoken = seconds_between_lines, time.monotonic()
        self._bar = (
            tqdm(total=total, initial=start, unit="step", dynamic_ncols=True)
            if enabled and sys.stderr.isatty()
            else None
        )

    def update(self, step: int, loss: float) -> None:
        """Shows the loss of a step, the mean speed and the time left."""
        now = time.monotonic()
        if self._first is None or step < self._step:  # it goes back after a rollback
            self._first = (step, now)
        advance, self._step = step - self._step, step
        rate = (step - self._first[0]) / max(now - self._first[1], 1e-9)
        shown = f"loss {loss:.4f}, {rate * self._batch_size:,.0f} images/s"
        if self._bar is not None:
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update(advance)
        elif not self._enabled:
            return
        elif rate and (now - self._spoken >= self._between or step == self._total):
            self._spoken = now
            left = tqdm.format_interval((self._total - step) / rate)
            print(f"step {step}/{self._total}: {shown}, {left} left", flush=True)

    def say(self, sentence: str) -> None:
        """Prints a line without breaking the bar."""
        if self._bar is not None:
            self._bar.write(sentence)
        elif self._enabled:
            print(sentence, flush=True)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
