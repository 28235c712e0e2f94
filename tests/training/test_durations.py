"""Durations with a unit become steps."""

import pytest

from maskjax.errors import UserError
from maskjax.training.durations import Clock

CLOCK = Clock(batch_size=64, steps_per_epoch=22, total_steps=440)


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        ("0 steps", 0),
        ("1 step", 1),
        ("500 steps", 500),
        ("1 epoch", 22),
        ("40 epochs", 880),
        ("0.5 epochs", 11),
        ("6400 examples", 100),
        ("1e6 examples", 15625),
        ("1.28e3 examples", 20),
        ("5 percent", 22),
        ("5%", 22),
        ("100 percent", 440),
        ("  3   epochs ", 66),
        ("10.4 steps", 10),
        ("10.6 steps", 11),
    ],
)
def test_steps(duration, steps):
    result = CLOCK.steps(duration, "key")
    assert result == steps
    assert isinstance(result, int)


@pytest.mark.parametrize(
    "duration",
    [
        "40",
        40,
        "epochs",
        "40 epoch s",
        "40 epochs 3 steps",
        "1 hour",
        "-3 steps",
        "1.2.3 steps",
        ". steps",
        "1e999 steps",
        "1e steps",
        "",
        None,
    ],
)
def test_what_is_none(duration):
    with pytest.raises(UserError, match=r"^train\.duration = "):
        CLOCK.steps(duration, "train.duration")


def test_percent_of_itself():
    clock = Clock(batch_size=64, steps_per_epoch=22)
    with pytest.raises(UserError, match="percent"):
        clock.steps("5 percent", "train.duration")


def test_interval():
    assert CLOCK.interval(None, "key") is None
    assert CLOCK.interval("0.001 epochs", "key") == 1
    assert CLOCK.interval("2 epochs", "key") == 44
