"""The time of a run is told, and adds up."""

import json
import time

import pytest

from maskjax.report.history import read_history
from maskjax.report.summary import summary
from maskjax.training.stopwatch import Stopwatch
from maskjax.training.writers import METRICS_FILE


def test_activities_add_up_to_the_time_that_passed():
    began = time.perf_counter()
    watch = Stopwatch("a")
    with watch.on("b"):
        time.sleep(0.05)
        with watch.on("c"):
            time.sleep(0.02)
        time.sleep(0.01)
    with pytest.raises(ValueError), watch.on("c"):
        raise ValueError
    time.sleep(0.03)
    seconds = watch.all()
    assert sum(seconds.values()) == pytest.approx(time.perf_counter() - began, rel=0.01)
    assert set(seconds) == {"a", "b", "c"}
    assert seconds["b"] >= 0.06 and seconds["a"] >= 0.03 and 0.02 <= seconds["c"] < 0.05
    assert watch.seconds("a", "b") == pytest.approx(seconds["a"] + seconds["b"], abs=0.01)


def test_the_time_of_a_run_that_was_stopped_three_times(tiny, launch, one_device, tmp_path):
    """The report adds up what its starts have spent."""
    run = one_device(tiny(train__duration="8 steps", eval__every="1 steps"))
    began = time.perf_counter()
    for last in (2, 4, 6):
        assert not launch(run, tmp_path, stop_after=last)
    assert launch(run, tmp_path)
    wall = time.perf_counter() - began
    history = read_history(tmp_path / METRICS_FILE)
    assert history.starts == 4
    assert 0.5 * wall < sum(history.spent.values()) <= wall
    assert " in 4 starts: " in summary({}, history, {})["time"]


def test_a_run_tells_what_it_spent_its_time_on(tiny, launch, one_device, tmp_path, capsys):
    run = one_device(tiny(train__duration="3 steps", eval__every="2 steps"))

    def evaluate(*_):
        time.sleep(0.3)
        return {}

    began = time.perf_counter()
    assert launch(run, tmp_path, evaluate=evaluate)
    wall = time.perf_counter() - began
    lines = [json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    spent = {k: v for k, v in lines[-1].items() if k.startswith("time/")}
    assert 0.6 <= spent["time/evaluating"] < 0.7 + 0.2
    assert {"time/starting", "time/compiling", "time/training"} < set(spent)
    assert "time/saving" in spent and "time/waiting_for_data" in spent
    # What is missing is the closing of files, after the line is written.
    assert 0.5 * wall < sum(spent.values()) <= wall
    assert "Time: " in capsys.readouterr().out
