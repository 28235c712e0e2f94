"""The learning rate agrees with the reference's, and has the corners that it should have."""

import jax
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.training import Warmup, WarmupCosine, WarmupLinear, WarmupSteps
from maskjax.training.durations import Clock


def test_reference(golden):
    arrays = golden("mae_recipes")
    epochs, expected = arrays["in/sched/epochs"].astype(np.float64), arrays["out/sched/lr"]
    settings = {name: arrays[f"cfg/sched/{name}"].item() for name in ("epochs", "warmup_epochs")}
    # The reference takes fractions of epochs: a clock on which each of them is a whole step.
    per_epoch = next(
        n for n in range(1, 10_000) if np.allclose(epochs * n, np.round(epochs * n), atol=1e-4)
    )
    clock = Clock(256, per_epoch, per_epoch * settings["epochs"])
    schedule = WarmupCosine(
        base_lr=arrays["cfg/sched/lr"].item(),
        warmup=f"{settings['warmup_epochs']} epochs",
        final_lr=arrays["cfg/sched/min_lr"].item(),
    ).build(clock)
    steps = np.round(epochs * per_epoch).astype(np.int32)
    assert len(np.unique(steps)) == len(steps) == 80
    rates = np.array([schedule(step) for step in steps])
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-6 * expected.max())


def test_corners():
    clock = Clock(batch_size=512, steps_per_epoch=10, total_steps=100)
    schedule = jax.jit(WarmupCosine(1e-3, 256, "20 percent", final_lr=1e-5).build(clock))
    peak = 2e-3  # twice the reference batch
    for step, rate in ((0, 0.0), (10, peak / 2), (20, peak), (60, (peak + 1e-5) / 2), (100, 1e-5)):
        assert float(schedule(step)) == pytest.approx(rate, rel=1e-5, abs=1e-9)
    assert float(schedule(1000)) == pytest.approx(1e-5, rel=1e-4)


@pytest.mark.parametrize(("warmup", "first"), [("0 steps", 1.0), ("1 steps", 0.0)])
def test_short_warm_up(warmup, first):
    schedule = WarmupCosine(1.0, 0, warmup).build(Clock(64, 10, 10))
    assert float(schedule(0)) == first
    assert float(schedule(1)) == pytest.approx(1.0 if first == 0 else 0.9755, abs=1e-3)


def test_warm_up_longer_than_the_run():
    """As with a recipe of 800 epochs that is tried for one."""
    schedule = WarmupCosine(1.0, 0, "40 epochs").build(Clock(64, 10, 10))
    rates = np.array([schedule(step) for step in range(10)])
    assert np.isfinite(rates).all()
    assert (np.diff(rates) > 0).all()


def test_batch_scaling_can_be_left_out():
    assert WarmupCosine(1e-3, 0).peak(4096) == 1e-3
    assert WarmupCosine(1.5e-4, 256).peak(4096) == pytest.approx(2.4e-3)


def test_rate_of_zero():
    schedule = WarmupCosine(0.0, 0, "0 steps").build(Clock(64, 10, 10))
    assert [float(schedule(step)) for step in (0, 5, 10)] == [0.0] * 3


def test_steps_of_simmim():
    clock = Clock(batch_size=2048, steps_per_epoch=5, total_steps=4000)
    schedule = jax.jit(WarmupSteps().build(clock))
    peak, start = 4e-4, 2e-6  # four times the reference batch
    middle = (peak + start) / 2
    for step, rate in ((0, start), (25, middle), (50, peak), (3499, peak), (3500, peak / 10)):
        assert float(schedule(step)) == pytest.approx(rate, rel=1e-5)
    assert float(schedule(3999)) == pytest.approx(peak / 10, rel=1e-5)


def test_drops_come_after_the_warmup():
    clock = Clock(batch_size=512, steps_per_epoch=10, total_steps=100)
    with pytest.raises(UserError, match="after the warm-up"):
        WarmupSteps(warmup="5 epochs", drops=("4 epochs",)).build(clock)


@pytest.mark.parametrize(
    ("kind", "middle", "last"),
    [(Warmup, 4e-3, 4e-3), (WarmupLinear, 2.05e-3, 1e-4), (WarmupCosine, 2.05e-3, 1e-4)],
)
def test_warm_up_from_a_rate_and_what_follows(kind, middle, last):
    """The start is scaled with the batch as the peak is; the end is not."""
    clock = Clock(batch_size=512, steps_per_epoch=10, total_steps=100)
    final = {} if kind is Warmup else dict(final_lr=1e-4)
    schedule = jax.jit(kind(2e-3, 256, "20 percent", warmup_lr=1e-4, **final).build(clock))
    for step, rate in ((0, 2e-4), (10, 2.1e-3), (20, 4e-3), (60, middle), (100, last)):
        assert float(schedule(step)) == pytest.approx(rate, rel=1e-5)
    quarter = {Warmup: 4e-3, WarmupLinear: 4e-3 - 3.9e-3 / 4}.get(kind)
    if quarter:
        assert float(schedule(40)) == pytest.approx(quarter, rel=1e-5)
