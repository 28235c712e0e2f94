"""A run that was stopped and resumed is the same, bit for bit, as one that was not."""

import functools
import os
import shutil
import signal

import numpy as np
import pytest

from maskjax.training.writers import METRICS_FILE, read_metrics

EPOCH = 11  # steps: 1,442 examples in batches of 128


def equal(a, b):
    assert a.keys() == b.keys()
    different = [k for k in a if a[k].dtype != b[k].dtype or a[k].tobytes() != b[k].tobytes()]
    assert not different


@pytest.fixture(scope="module")
def straight(tiny, launch, one_device, tmp_path_factory):
    """Returns a function that trains a run which nothing interrupts: it and its directory."""

    @functools.cache
    def train(accumulate=1, seed=0):
        run = one_device(tiny(eval__every="1 steps", train__accumulate=accumulate, seed=seed))
        workdir = tmp_path_factory.mktemp("straight") / "run"
        assert launch(run, workdir)
        return run, workdir

    return train


@pytest.mark.parametrize(
    ("cut", "accumulate"), [(7, 1), (EPOCH, 1), (7, 2)], ids=["mid-epoch", "epoch", "accumulate"]
)
def test_resumed_is_straight(straight, launch, saved, curves, tmp_path, cut, accumulate, capsys):
    run, undisturbed = straight(accumulate)
    assert run.clock.steps_per_epoch == EPOCH
    curve = curves(undisturbed)
    assert [step for step, _ in curve] == list(range(1, 21))
    assert len({values["train/loss"] for _, values in curve}) == 20

    again = tmp_path / "resumed"
    assert not launch(run, again, stop_after=cut)
    assert [step for step, _ in curves(again)] == list(range(1, cut + 1))
    assert saved(run, again)[".step"] == cut
    capsys.readouterr()
    assert launch(run, again)
    assert f"step {cut}: its checkpoint is the newest" in capsys.readouterr().out
    equal(saved(run, again), saved(run, undisturbed))
    assert curves(again) == curve


def test_everything_depends_on_the_seed(straight, saved):
    """The comparison above can fail."""
    states = [saved(*straight(seed=seed)) for seed in (0, 1)]
    with pytest.raises(AssertionError):
        equal(*states)
    assert not np.array_equal(states[0][".rng"], states[1][".rng"])


def test_finished_run_has_nothing_to_do(straight, launch, tmp_path, capsys):
    run, workdir = straight()
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    capsys.readouterr()

    def evaluate(*_):
        raise AssertionError("evaluated again")

    assert launch(run, tmp_path, evaluate=evaluate)
    assert "finished before, at step 20" in capsys.readouterr().out
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def killed(go_on):
    raise KeyboardInterrupt


def asked(go_on):
    os.kill(os.getpid(), signal.SIGTERM)
    go_on()
    raise AssertionError("went on")


def interrupted_once(interrupt=killed):
    """Returns an evaluation that is interrupted the first time, and the steps it was called at."""
    evaluated = []

    def evaluate(variables, step, final, go_on):
        evaluated.append(step)
        go_on()
        if len(evaluated) == 1:
            interrupt(go_on)
        return {"eval/accuracy": 0.5}

    return evaluate, evaluated


@pytest.fixture(scope="module")
def six_steps(tiny, one_device):
    """Returns a function that gives a run which is evaluated and saved now and then."""
    run = one_device(tiny(train__duration="6 steps"))

    def six_steps(every, save="100 steps"):
        run.config.eval.every, run.config.checkpoint.every = every, save
        return run

    return six_steps


def test_interrupted_at_the_very_end(six_steps, launch, curves, tmp_path):
    """Killed after the last evaluation was written, a run must not write it twice."""
    run = six_steps(every="6 steps")
    evaluate, evaluated = interrupted_once()
    with pytest.raises(KeyboardInterrupt):
        launch(run, tmp_path, evaluate=evaluate)
    assert launch(run, tmp_path, evaluate=evaluate)
    assert launch(run, tmp_path, evaluate=evaluate)
    assert evaluated == [6, 6]
    text = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert sum("eval/accuracy" in line for line in text) == 1
    # One line for both: nothing can come between the result and the note that it is there.
    assert "train/finished" in next(line for line in text if "eval/accuracy" in line)
    assert [step for step, _ in curves(tmp_path)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("save", ["3 steps", "100 steps"])
@pytest.mark.parametrize("interrupt", [killed, asked])
def test_an_interrupted_evaluation_is_repeated(
    six_steps, launch, curves, tmp_path, interrupt, save, capsys
):
    """Whatever ends it, no step is lost: what is evaluated is saved before."""
    run = six_steps(every="3 steps", save=save)
    evaluate, evaluated = interrupted_once(interrupt)
    if interrupt is killed:
        with pytest.raises(KeyboardInterrupt):
            launch(run, tmp_path, evaluate=evaluate)
    else:
        assert not launch(run, tmp_path, evaluate=evaluate)
        said = capsys.readouterr().out
        assert "Stopped by SIGTERM: step 3 is saved; start again to go on." in said
    assert launch(run, tmp_path, evaluate=evaluate)
    assert "step 3: its checkpoint is the newest" in capsys.readouterr().out
    assert evaluated == [3, 3, 6]
    assert [step for step, _ in curves(tmp_path)] == [1, 2, 3, 4, 5, 6]
    lines = read_metrics(tmp_path / METRICS_FILE)
    assert [line["step"] for line in lines if "eval/accuracy" in line] == [3, 6]


def test_asked_to_stop_in_the_last_evaluation(six_steps, launch, tmp_path, capsys):
    run = six_steps(every="6 steps")
    evaluate, evaluated = interrupted_once(asked)
    assert not launch(run, tmp_path, evaluate=evaluate)
    assert "step 6 is saved; start again to evaluate it" in capsys.readouterr().out
    assert launch(run, tmp_path, evaluate=evaluate)
    assert evaluated == [6, 6]


def test_stopped_before_an_evaluation_that_is_due(six_steps, launch, tmp_path):
    """It does not begin; the next start begins with it."""
    run = six_steps(every="1 steps")
    evaluated = []

    def evaluate(variables, step, *_):
        evaluated.append(step)
        return {"eval/accuracy": 0.5}

    assert not launch(run, tmp_path, stop_after=3, evaluate=evaluate)
    assert evaluated == [1, 2]
    assert launch(run, tmp_path, evaluate=evaluate)
    assert evaluated == [1, 2, 3, 4, 5, 6]
