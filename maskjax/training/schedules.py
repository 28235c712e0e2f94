"""The learning rate as a pure function of the step."""

import dataclasses

import optax

from maskjax.errors import UserError
from maskjax.training.durations import Clock

Schedule = optax.Schedule  # step -> learning rate


@dataclasses.dataclass(frozen=True)
class Warmup:
    """Linear warm-up, then a constant rate; the others differ in what comes after the warm-up.

    Attributes:
      base_lr: peak learning rate for a batch of `reference_batch`; the peak grows in proportion to
        the batch (Goyal et al., 2017).
      reference_batch: see `base_lr`; 0: `base_lr` is the peak whatever the batch.
      warmup: duration of the warm-up, e.g. "40 epochs".
      warmup_lr: where the warm-up starts; grows with the batch as `base_lr` does.
    """

    base_lr: float = 1.5e-4
    reference_batch: int = 256
    warmup: str = "40 epochs"
    warmup_lr: float = 0.0

    def peak(self, batch_size: int) -> float:
        """Returns the highest learning rate."""
        return self.base_lr * self._scale(batch_size)

    def build(self, clock: Clock) -> Schedule:
        """Returns step -> learning rate, float32; the first step of a warm-up has `warmup_lr`.

        Raises:
          UserError: durations that do not fit together.
        """
        peak = self.peak(clock.batch_size)
        warmup = min(clock.steps(self.warmup, "schedule.warmup"), clock.length)
        after = self._after(peak, warmup, clock)
        if warmup == 0:
            return after
        first = self.warmup_lr * self._scale(clock.batch_size)
        return optax.join_schedules([optax.linear_schedule(first, peak, warmup), after], [warmup])

    def _after(self, peak: float, warmup: int, clock: Clock) -> Schedule:
        """Returns the rate as a function of the steps since the end of the warm-up."""
        del warmup, clock
        return optax.constant_schedule(peak)

    def _scale(self, batch_size: int) -> float:
        return batch_size / self.reference_batch if self.reference_batch else 1.0


@dataclasses.dataclass(frozen=True)
class WarmupCosine(Warmup):
    """Linear warm-up, then half a cosine to `final_lr` (MAE's recipe).

    Attributes: as in `Warmup`, and
      final_lr: value at the end, not scaled by the batch.
    """

    final_lr: float = 0.0

    def _after(self, peak: float, warmup: int, clock: Clock) -> Schedule:
        alpha = self.final_lr / peak if peak else 0.0
        return optax.cosine_decay_schedule(peak, max(1, clock.length - warmup), alpha)


@dataclasses.dataclass(frozen=True)
class WarmupLinear(Warmup):
    """Linear warm-up, then a straight line to `final_lr` (the recipe of BERT and of HuBERT).

    Attributes: as in `Warmup`, and
      final_lr: value at the end, not scaled by the batch.
    """

    final_lr: float = 0.0

    def _after(self, peak: float, warmup: int, clock: Clock) -> Schedule:
        return optax.linear_schedule(peak, self.final_lr, max(1, clock.length - warmup))


@dataclasses.dataclass(frozen=True)
class WarmupSteps(Warmup):
    """Linear warm-up, then a constant rate that drops at given times (SimMIM's recipe).

    Attributes: as in `Warmup`, and
      drops: when the rate is multiplied by `factor`, counted from the start of the run.
      factor: see `drops`.
    """

    base_lr: float = 1e-4
    reference_batch: int = 512
    warmup: str = "10 epochs"
    warmup_lr: float = 5e-7
    drops: tuple[str, ...] = ("700 epochs",)
    factor: float = 0.1

    def _after(self, peak: float, warmup: int, clock: Clock) -> Schedule:
        drops = [clock.steps(drop, "schedule.drops") for drop in self.drops]
        if any(drop < warmup for drop in drops):
            raise UserError(
                f"schedule.drops has {', '.join(self.drops)}, which is not after the warm-up of "
                f"{self.warmup}: shorten schedule.warmup or move the drop."
            )
        return optax.piecewise_constant_schedule(peak, {d - warmup: self.factor for d in drops})
