"""Parallel decoding agrees with the reference; both samplers do what their formulas promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.masking.ratio_schedules import mask_ratio
from maskjax.objectives import NoiseSchedule
from maskjax.systems.generation import (
    DDIM,
    ParallelDecoding,
    choose_hidden,
    decode_step,
    hidden_again,
)

MASK = 100


@pytest.fixture(scope="module")
def reference(golden):
    return golden("maskgit")


def toy_logits(reference):
    """The network of the reference run: a token, its left neighbour and its place."""
    table, places = reference["in/table_W"], jnp.asarray(reference["in/table_P"])

    def logits_of(ids, t=None):
        e = jnp.asarray(table)[jnp.where(ids == MASK, len(table) - 1, ids)]
        return e + places[None] + 0.5 * jnp.roll(e, 1, axis=1)

    return logits_of


def test_choice_of_the_least_confident(reference):
    masked = choose_hidden(
        jnp.asarray(reference["in/topk_probs"]),
        jnp.asarray(reference["in/topk_mask_len"][:, 0], jnp.int32),
        float(reference["cfg/topk_temperature"]),
        jnp.asarray(reference["in/topk_gumbel"]),
    )
    np.testing.assert_array_equal(masked, reference["out/topk_masking"].astype(bool))
    np.testing.assert_array_equal(masked.sum(-1), reference["in/topk_mask_len"][:, 0])


def test_every_step_gives_the_ids_of_the_reference(reference):
    assert int(reference["cfg/mask_token_id"]) == MASK
    logits_of, ids = toy_logits(reference), jnp.asarray(reference["in/init_ids"])
    steps, temperature = int(reference["cfg/num_iter"]), float(reference["cfg/choice_temperature"])
    before = (ids == MASK).sum(-1)
    for t in range(steps):
        done = (t + 1) / steps
        sampled, ids = decode_step(
            logits_of(ids),
            ids,
            MASK,
            hidden_again(before, ids == MASK, mask_ratio("cosine", done, 16)),
            temperature * (1 - done),
            jnp.asarray(reference["in/categorical_gumbel"][t]),
            jnp.asarray(reference["in/choice_gumbel"][t]),
        )
        np.testing.assert_array_equal(sampled, reference["out/final_seqs"][:, t])


def test_the_loop_is_the_steps(reference):
    logits_of, start = toy_logits(reference), jnp.asarray(reference["in/init_ids"])
    decode = ParallelDecoding(steps=5)
    key = jax.random.key(3)
    final, history = jax.jit(lambda ids, key: decode(logits_of, ids, MASK, key))(start, key)
    ids, before = start, (start == MASK).sum(-1)
    for t in range(5):
        first, second = jax.random.split(jax.random.fold_in(key, t))
        sampled, ids = decode_step(
            logits_of(ids),
            ids,
            MASK,
            hidden_again(before, ids == MASK, mask_ratio("cosine", (t + 1) / 5, 16)),
            4.5 * (1 - (t + 1) / 5),
            jax.random.gumbel(first, (2, 16, 8)),
            jax.random.gumbel(second, (2, 16)),
        )
        np.testing.assert_array_equal(history[t], sampled)
    np.testing.assert_array_equal(final, history[-1])
    assert (final < 8).all()
    # What was known stays.
    np.testing.assert_array_equal(final[start != MASK], start[start != MASK])


def test_hidden_counts_fall_to_one():
    before, unknown = jnp.array([16]), jnp.ones((1, 16), bool)
    counts = []
    for t in range(4):
        hidden = hidden_again(before, unknown, 1 - (t + 1) / 4)
        counts.append(int(hidden[0]))
        unknown = jnp.arange(16)[None] < hidden[:, None]
    assert counts == [12, 8, 4, 1]


def test_decoding_follows_the_distribution():
    logits = jnp.log(jnp.array([0.7, 0.2, 0.1]))
    start = jnp.full((2000, 2), MASK, jnp.int32)
    wide = jnp.broadcast_to(logits[None, None], (2000, 2, 3))
    final, _ = ParallelDecoding(steps=1)(lambda i, t: wide, start, MASK, jax.random.key(0))
    shares = np.bincount(np.asarray(final).ravel(), minlength=3) / final.size
    np.testing.assert_allclose(shares, [0.7, 0.2, 0.1], atol=0.03)


def test_guidance():
    c, u = jnp.array([1.0, 0.0]), jnp.array([0.5, 0.5])
    np.testing.assert_array_equal(ParallelDecoding(guidance=0.0).guide(c, u, 0), c)
    np.testing.assert_allclose(ParallelDecoding(guidance=2.0).guide(c, u, 3), [2.0, -1.0])
    rising = ParallelDecoding(steps=5, guidance=2.0, rising=True)
    np.testing.assert_allclose(rising.guide(c, u, 0), c)
    np.testing.assert_allclose(rising.guide(c, u, 4), [2.0, -1.0])


def test_noise_schedule(golden):
    reference = golden("umd")
    levels = NoiseSchedule().levels
    np.testing.assert_allclose(levels, reference["out/alphas_cumprod"], rtol=1e-5)
    clean = jnp.asarray(reference["in/images"][:2])
    noisy = NoiseSchedule().add_noise(
        clean, jnp.asarray(reference["in/t"][:, 0]), jnp.asarray(reference["in/eps"])
    )
    np.testing.assert_allclose(noisy, reference["out/x_t"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["cosine", "linear"])
@pytest.mark.parametrize("steps", [50, 1000])
def test_noise_grows(kind, steps):
    levels = NoiseSchedule(kind, steps).levels
    assert (np.diff(levels) < 0).all()
    assert 1 > levels[0] > 0.9
    assert 0 < levels[-1] < 0.01


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_sampling_reaches_a_single_point(eta):
    schedule, point = NoiseSchedule(steps=100), 0.3
    levels = jnp.asarray(schedule.levels, jnp.float32)

    def noise_of(x, t):
        return (x - jnp.sqrt(levels[t]) * point) / jnp.sqrt(1 - levels[t])

    start = jax.random.normal(jax.random.key(0), (4, 3))
    x = jax.jit(lambda x: DDIM(20, eta)(noise_of, x, schedule, jax.random.key(1)))(start)
    np.testing.assert_allclose(x, point, atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_sampling_reaches_a_normal_distribution(eta):
    """Of data N(0.1, 0.2^2) the best prediction of the noise is linear, so it is known."""
    schedule, mean, variance = NoiseSchedule(steps=200), 0.1, 0.04
    levels = jnp.asarray(schedule.levels, jnp.float32)

    def noise_of(x, t):
        a = levels[t]
        return jnp.sqrt(1 - a) * (x - jnp.sqrt(a) * mean) / (a * variance + 1 - a)

    start = jax.random.normal(jax.random.key(0), (20000,))
    x = DDIM(200, eta, clip=None)(noise_of, start, schedule, jax.random.key(1))
    assert x.mean() == pytest.approx(mean, abs=0.01)
    assert x.std() == pytest.approx(0.2, rel=0.05)


def test_times_fall_to_zero():
    times = DDIM(125).times(NoiseSchedule())
    assert times[0] == 999
    assert times[-2:].tolist() == [7, 0]
    assert len(times) == 126
    with pytest.raises(UserError, match="more than the 100"):
        DDIM(125).times(NoiseSchedule(steps=100))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ParallelDecoding(steps=0), "0 steps"),
        (lambda: ParallelDecoding(guidance=-1.0), "negative"),
        (lambda: ParallelDecoding(schedule="no"), "mask schedule"),
        (lambda: DDIM(steps=0), "0 steps"),
        (lambda: DDIM(eta=2.0), "eta"),
        (lambda: NoiseSchedule("sigmoid"), "sigmoid"),
        (lambda: NoiseSchedule(steps=1), "at least two"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(UserError, match=words):
        make()
