"""A loss that is not finite never gets into what is saved, and the run does as it was told."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.systems import MaskedAutoencoder
from maskjax.training.streams import stream

TOTAL = 9
# What the loss is multiplied by, and what its gradient is, the loss being as it was. Of "gradient"
# every element is finite, but not their squares.
FAULTS = {"nan": (np.nan, 1.0), "inf": (np.inf, 1.0), "gradient": (1.0, 1e30)}


@dataclasses.dataclass(frozen=True)
class Faulty(MaskedAutoencoder):
    """Its loss has a fault at some steps; if `only_seed`, only with the draws of the first try."""

    at: tuple[int, ...] = ()
    only_seed: int | None = None
    fault: str = "nan"

    def sample_masks(self, rng, variables, batch, progress=0.0):
        masks = super().sample_masks(rng, variables, batch, progress)
        step = jnp.round(progress * TOTAL).astype(jnp.int32)
        fault = jnp.isin(step + 1, jnp.array(self.at))
        if self.only_seed is not None:
            first = stream(jax.random.key(self.only_seed), "mask", step)
            fault &= (jax.random.key_data(rng) == jax.random.key_data(first)).all()
        return masks | {"fault": jnp.full(batch["image"].shape[0], fault)}

    def term_values(self, variables, batch, masks, rngs=None):
        values, stats = super().term_values(variables, batch, masks, rngs)
        fault = masks.get("fault", jnp.zeros(1, bool)).any()
        loss, gradient = (jnp.where(fault, factor, 1.0) for factor in FAULTS[self.fault])

        def total(value):
            constant = jax.lax.stop_gradient(value.total)
            return loss * (constant + gradient * (value.total - constant))

        return {k: v.replace(total=total(v)) for k, v in values.items()}, stats


@pytest.fixture(scope="module")
def prepared(tiny, one_device):
    """Returns a function that prepares a run with a fault at the steps `at`, once."""

    @functools.cache
    def make(at, only_seed, fault):
        config = tiny(
            train__duration=f"{TOTAL} steps",
            checkpoint__keep_last=TOTAL,
            schedule__warmup="0 steps",
        )
        run = one_device(config)
        fields = {f.name: getattr(run.system, f.name) for f in dataclasses.fields(run.system)}
        system = Faulty(**fields, at=at, only_seed=only_seed, fault=fault)
        return dataclasses.replace(run, system=system)

    return make


@pytest.fixture
def faulty(prepared):
    """Returns a function that gives such a run, to be trained by a policy."""

    def make(policy, *at, only_seed=None, fault="nan", limit=3, every="1 steps"):
        run = prepared(at, only_seed, fault)
        run.config.train.update(non_finite=policy, non_finite_limit=limit)
        run.config.checkpoint.every = every
        return run

    return make


def learned(state):
    """The leaves of a checkpoint without the step counter."""
    return {k: v for k, v in state.items() if k != ".step"}


def same(a, b):
    return all(np.array_equal(a[k], b[k]) for k in a)


def all_finite(state):
    return all(np.isfinite(v).all() for v in state.values())


def test_raise(faulty, launch, saved, curves, tmp_path):
    run = faulty("raise", 6)
    with pytest.raises(UserError, match=r"not finite at step 6 \(checkpoint 5 is kept\): .*lower"):
        launch(run, tmp_path)
    steps = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
    assert steps == [1, 2, 3, 4, 5]
    assert all(all_finite(saved(run, tmp_path, step)) for step in steps)
    step, last = curves(tmp_path)[-1]
    assert step == 6
    assert last["train/loss"] is None
    assert last["train/gradient_norm"] is None


def test_raise_without_a_checkpoint(faulty, launch, tmp_path):
    with pytest.raises(UserError, match="step 6 .there is no checkpoint yet."):
        launch(faulty("raise", 6, every="8 steps"), tmp_path)


def test_learning_rate(faulty, launch, saved, tmp_path):
    """The loss of such a step is finite, its update is not."""
    run = faulty("raise")
    schedule = run.schedule
    run = dataclasses.replace(
        run, schedule=lambda step: jnp.where(step + 1 == 5, jnp.nan, schedule(step))
    )
    with pytest.raises(UserError, match=r"not finite at step 5 \(checkpoint 4 is kept\)"):
        launch(run, tmp_path)
    assert all(all_finite(saved(run, tmp_path, step)) for step in (1, 2, 3, 4))


@pytest.mark.parametrize("fault", FAULTS)
def test_skip(faulty, launch, saved, curves, tmp_path, capsys, fault):
    run = faulty("skip", 3, 5, 6, 8, fault=fault)  # never three in a row
    assert launch(run, tmp_path)
    for step, values in curves(tmp_path):
        lost = step in (3, 5, 6, 8)
        assert (values["train/gradient_norm"] is None) == lost
        assert (values["train/loss"] is None) == (lost and fault != "gradient")
    states = {step: learned(saved(run, tmp_path, step)) for step in range(1, TOTAL + 1)}
    for step in range(2, TOTAL + 1):
        unchanged = same(states[step], states[step - 1])
        assert unchanged == (step in (3, 5, 6, 8)), step
        assert all_finite(states[step])
    said = capsys.readouterr().out
    assert [f"Step {step} is skipped" in said for step in range(1, 10)] == [
        step in (3, 5, 6, 8) for step in range(1, 10)
    ]


def test_skip_has_a_limit(faulty, launch, saved, tmp_path):
    run = faulty("skip", 3, 5, 6, 8, limit=2)
    with pytest.raises(UserError, match="not finite at step 6"):
        launch(run, tmp_path)
    assert same(learned(saved(run, tmp_path, 5)), learned(saved(run, tmp_path, 4)))


def test_rollback(faulty, launch, saved, curves, tmp_path, capsys):
    run = faulty("rollback", 6, only_seed=0, every="2 steps")
    assert launch(run, tmp_path)
    assert "back to step 4" in capsys.readouterr().out
    assert [step for step, _ in curves(tmp_path)] == list(range(1, TOTAL + 1))
    state = saved(run, tmp_path)
    assert all_finite(state)
    assert state[".step"] == TOTAL
    # Other draws from there on, but the same up to there.
    undisturbed = faulty("rollback", every="2 steps")
    assert launch(undisturbed, tmp_path / "undisturbed")
    straight = curves(tmp_path / "undisturbed")
    assert curves(tmp_path)[:4] == straight[:4]
    assert all(a != b for a, b in zip(curves(tmp_path)[4:], straight[4:], strict=True))


def test_rollback_has_a_limit(faulty, launch, tmp_path, capsys):
    with pytest.raises(UserError, match="step 6 is not finite, after 2 rollbacks"):
        launch(faulty("rollback", 6, limit=2, every="2 steps"), tmp_path)
    assert capsys.readouterr().out.count("back to step 4") == 2


def test_rollback_without_a_checkpoint(faulty, launch, tmp_path, capsys):
    assert launch(faulty("rollback", 6, only_seed=0, every="8 steps"), tmp_path)
    assert "back to step 0" in capsys.readouterr().out
