"""The learning rate as a pure function of the step."""

import dataclasses
from collections.abc import Callable

import jax
import optax

from maskjax.errors import UserError
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


@dataclasses.dataclass(frozen=True)
class WarmupSteps:
    """Linear warm-up, then a constant rate that drops at given times (SimMIM's recipe).

    Attributes:
      base_lr: peak learning rate for a batch of `reference_batch`.
      reference_batch: see `base_lr`; 0: `base_lr` is the peak whatever the batch.
      warmup: duration of the warm-up.
      warmup_lr: where the warm-up starts, scaled with the batch as `base_lr` is.
      drops: when the rate is multiplied by `factor`, counted from the start of the run.
      factor: see `drops`.
    """

    base_lr: float = 1e-4
    reference_batch: int = 512
    warmup: str = "10 epochs"
    warmup_lr: float = 5e-7
    drops: tuple[str, ...] = ("700 epochs",)
    factor: float = 0.1

    def peak(self, batch_size: int) -> float:
        """Returns the highest learning rate."""
        return self.base_lr * self._scale(batch_size)

    def build(self, clock: Clock) -> Callable[[jax.Array | int], jax.Array]:
        """Returns step -> learning rate, float32; the first step has `warmup_lr`, scaled.

        Raises:
          UserError: a drop during the warm-up.
        """
        warmup = min(clock.steps(self.warmup, "schedule.warmup"), clock.total_steps)
        drops = [clock.steps(drop, "schedule.drops") for drop in self.drops]
        if any(drop < warmup for drop in drops):
            raise UserError(
                f"schedule.drops has {', '.join(self.drops)}, which is not after the warm-up of "
                f"{self.warmup}: shorten schedule.warmup or move the drop."
            )
        peak, first = self.peak(clock.batch_size), self.warmup_lr * self._scale(clock.batch_size)
        steps = optax.piecewise_constant_schedule(peak, {d - warmup: self.factor for d in drops})
        if warmup == 0:
            return steps
        return optax.join_schedules([optax.linear_schedule(first, peak, warmup), steps], [warmup])

    def _scale(self, batch_size: int) -> float:
        return batch_size / self.reference_batch if self.reference_batch else 1.0
