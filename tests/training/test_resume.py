"""A run that was stopped and resumed is the same, bit for bit, as one that was not."""

import numpy as np
import pytest

EPOCH = 11  # steps: 1,442 examples in batches of 128


def equal(a, b):
    assert a.keys() == b.keys()
    different = [k for k in a if a[k].dtype != b[k].dtype or a[k].tobytes() != b[k].tobytes()]
    assert not different


@pytest.mark.parametrize(
    ("cut", "accumulate"), [(7, 1), (EPOCH, 1), (7, 2)], ids=["mid-epoch", "epoch", "accumulate"]
)
def test_resumed_is_straight(
    tiny, launch, one_device, saved, curves, tmp_path, cut, accumulate, capsys
):
    run = one_device(tiny(eval__every="1 steps", train__accumulate=accumulate))
    assert run.clock.steps_per_epoch == EPOCH
    assert launch(run, tmp_path / "straight")
    straight, curve = saved(run, tmp_path / "straight"), curves(tmp_path / "straight")
    assert [step for step, _ in curve] == list(range(1, 21))
    assert len({values["train/loss"] for _, values in curve}) == 20

    again = tmp_path / "resumed"
    assert not launch(run, again, stop_after=cut)
    assert [step for step, _ in curves(again)] == list(range(1, cut + 1))
    assert saved(run, again)[".step"] == cut
    capsys.readouterr()
    assert launch(run, again)
    assert f"step {cut}: its checkpoint is the newest" in capsys.readouterr().out
    equal(saved(run, again), straight)
    assert curves(again) == curve


def test_everything_depends_on_the_seed(tiny, launch, one_device, saved, tmp_path):
    """The comparison above can fail."""
    states = []
    for seed in (0, 1):
        run = one_device(tiny(seed=seed, train__duration="2 steps"))
        assert launch(run, tmp_path / str(seed))
        states.append(saved(run, tmp_path / str(seed)))
    with pytest.raises(AssertionError):
        equal(*states)
    assert not np.array_equal(states[0][".rng"], states[1][".rng"])


def test_finished_run_has_nothing_to_do(tiny, launch, one_device, tmp_path, capsys):
    run = one_device(tiny(train__duration="3 steps"))
    assert launch(run, tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    capsys.readouterr()

    def evaluate(*_):
        raise AssertionError("evaluated again")

    assert launch(run, tmp_path, evaluate=evaluate)
    assert "finished before, at step 3" in capsys.readouterr().out
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


def test_interrupted_at_the_very_end(tiny, launch, one_device, curves, tmp_path):
    """Killed after the last evaluation was written, a run must not write it twice."""
    run = one_device(tiny(train__duration="3 steps"))
    evaluate, evaluated = interrupted_once()
    with pytest.raises(KeyboardInterrupt):
        launch(run, tmp_path, evaluate=evaluate)
    assert launch(run, tmp_path, evaluate=evaluate)
    assert launch(run, tmp_path, evaluate=evaluate)
    assert evaluated == [3, 3]
    text = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert sum("eval/accuracy" in line for line in text) == 1
    # One line for both: nothing can come between the result and the note that it is there.
    assert "train/finished" in next(line for line in text if "eval/accuracy" in line)
    assert [step for step, _ in curves(tmp_path)] == [1, 2, 3]


def test_an_interrupted_evaluation_is_repeated(tiny, launch, one_device, tmp_path):
    """Killed while it evaluates, a run does so again: the checkpoint comes after the result."""
    run = one_device(tiny(train__duration="6 steps", eval__every="3 steps"))
    run.config.checkpoint.every = "3 steps"
    evaluate, evaluated = interrupted_once()
    with pytest.raises(KeyboardInterrupt):
        launch(run, tmp_path, evaluate=evaluate)
    assert launch(run, tmp_path, evaluate=evaluate)
    assert evaluated == [3, 3, 6]
