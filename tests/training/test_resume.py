"""A run that was stopped and resumed is the same, bit for bit, as one that was not."""

import functools
import shutil

import numpy as np
import pytest

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


def interrupted_once():
    """Returns an evaluation that is interrupted the first time, and the steps it was called at."""
    evaluated = []

    def evaluate(variables, step, final):
        evaluated.append(step)
        if len(evaluated) == 1:
            raise KeyboardInterrupt
        return {"eval/accuracy": 0.5}

    return evaluate, evaluated


@pytest.fixture(scope="module")
def six_steps(tiny, one_device):
    """Returns a function that gives a run which is evaluated and saved now and then."""
    run = one_device(tiny(train__duration="6 steps"))

    def six_steps(every):
        run.config.eval.every = run.config.checkpoint.every = every
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


def test_an_interrupted_evaluation_is_repeated(six_steps, launch, tmp_path):
    """Killed while it evaluates, a run does so again: the checkpoint comes after the result."""
    run = six_steps(every="3 steps")
    evaluate, evaluated = interrupted_once()
    with pytest.raises(KeyboardInterrupt):
        launch(run, tmp_path, evaluate=evaluate)
    assert launch(run, tmp_path, evaluate=evaluate)
    assert evaluated == [3, 3, 6]
