"""The learning rate as a pure function of the step."""

import dataclasses
from collections.abc import Callable

import jax
import optax

from maskjax.training.durations import Clock


@dataclasses.dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up from 0, then half a cosine to `final_lr` (MAE's recipe).

    Attributes:
      base_lr: peak learning rate for a batch of `reference_batch`; the peak grows in proportion to
        the batch (Goyal et al., 2017).
      reference_batch: see `base_lr`; 0: `base_lr` is the peak whatever the batch.
      warmup: duration of the warm-up, e.g. "40 epochs".
      final_lr: value at the end, not scaled by the batch.
    """

    base_lr: float = 1.5e-4
    reference_batch: int = 256
    warmup: str = "40 epochs"
    final_lr: float = 0.0

    def peak(self, batch_size: int) -> float:
        """Returns the highest learning rate."""
        return self.base_lr * (batch_size / self.reference_batch if self.reference_batch else 1.0)

    def build(self, clock: Clock) -> Callable[[jax.Array | int], jax.Array]:
        """Returns step -> learning rate, float32; the first step of a warm-up has 0."""
        peak = self.peak(clock.batch_size)
        warmup = min(clock.steps(self.warmup, "schedule.warmup"), clock.total_steps)
        decay = optax.cosine_decay_schedule(
            peak, max(1, clock.total_steps - warmup), alpha=self.final_lr / peak if peak else 0.0
        )
        if warmup == 0:
            return decay
        return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup])
