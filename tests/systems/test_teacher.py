"""Averaged and frozen teachers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.masking import Uniform
from maskjax.models import ViT
from maskjax.systems.teacher import FrozenTeacher, Momentum, ema_update
from maskjax.tokens import TokenGrid, patchify

GRID = TokenGrid((2, 2), (4, 4), 3)
ARGUMENTS = dict(patch_size=(4, 4), width=16, depth=3, heads=2, dtype="float32")
NETWORK = ViT(**ARGUMENTS)


def inputs():
    pixels = jax.random.uniform(jax.random.key(1), (2, 8, 8, 3))
    return {"pixels": patchify(pixels, GRID), "patches": patchify(pixels * 2 - 1, GRID)}


def test_average_by_hand_and_further_entries_of_the_student():
    teacher = {"encoder": {"a": jnp.asarray([1.0, 2.0])}}
    student = {"encoder": {"a": jnp.asarray([3.0, 0.0])}, "decoder": {"b": jnp.zeros(3)}}
    after = ema_update(teacher, student, 0.75)
    np.testing.assert_allclose(after["encoder"]["a"], [1.5, 1.5])
    assert after.keys() == {"encoder"}


def test_average_near_one_is_not_lost_in_rounding():
    """A decay of 0.9999 in float32 still moves the teacher by 1e-4 of the distance."""
    after = ema_update(
        {"a": jnp.float32(1.0)}, {"a": jnp.float32(2.0)}, Momentum(0.9999, 0.9999)(0)
    )
    np.testing.assert_allclose(after["a"] - 1, 1e-4, rtol=1e-2)


def test_published_decay_of_hpm(golden):
    """From 0.999 to 0.9999 over the first 100 epochs, here of 200."""
    momentum = Momentum(0.999, 0.9999, "linear", share=0.5)
    decays = [momentum(epoch / 200) for epoch in (0, 50, 99, 100, 199)]
    expected = golden("hpm")["out/ema_decay_by_epoch_0_50_99_100_199"]
    np.testing.assert_allclose(1 - np.asarray(decays), 1 - expected, rtol=1e-3)


def test_shapes_of_the_momentum():
    cosine = Momentum(0.9, 1.0, "cosine")
    np.testing.assert_allclose([cosine(p) for p in (0, 0.5, 1)], [0.9, 0.95, 1.0], rtol=1e-6)
    assert cosine(0.1) < Momentum(0.9, 1.0, "linear")(0.1)
    assert Momentum(0.9, 1.0, "constant")(0.7) == np.float32(0.9)


@pytest.mark.parametrize("arguments", [dict(shape="step"), dict(start=1.2), dict(share=0.0)])
def test_impossible_momentum_is_refused(arguments):
    with pytest.raises(UserError):
        Momentum(**arguments)


def test_own_normalisation():
    out = inputs()
    default = FrozenTeacher(NETWORK).inputs(out, GRID)
    np.testing.assert_array_equal(default, out["patches"])
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    own = FrozenTeacher(NETWORK, mean=mean, std=std).inputs(out, GRID)
    pixels = np.asarray(out["pixels"]).reshape(2, 4, 16, 3)
    np.testing.assert_allclose(own.reshape(2, 4, 16, 3), (pixels - mean) / std, rtol=1e-5)


def test_own_size():
    """14 x 14 tokens of 16 pixels for the student, of 14 pixels for the teacher, in small."""
    network = ViT(**ARGUMENTS | dict(patch_size=(3, 3)))
    teacher = FrozenTeacher(network, size=(6, 6))
    teacher.check(GRID)
    constant = {"patches": jnp.full((1, 4, 48), 0.25)}
    x = teacher.inputs(constant, GRID)
    assert x.shape == (1, 4, 27)
    np.testing.assert_allclose(x, 0.25, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(network=ViT(**ARGUMENTS | dict(patch_size=(2, 2)))), "4x4 tokens.*2x2"),
        (dict(network=NETWORK, size=(12, 12)), "3x3 tokens"),
        (dict(network=NETWORK, mean=(0.5,) * 3), "both mean and std"),
        (dict(network=NETWORK, mean=(0.5,), std=(0.5,)), "1 values"),
        (dict(network=NETWORK, mean=(0.5,) * 3, std=(0.0,) * 3), "positive"),
    ],
)
def test_teachers_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        FrozenTeacher(**arguments).check(GRID)


def test_no_gradient_and_the_mask_of_the_student():
    teacher, out = FrozenTeacher(NETWORK), inputs()
    params = teacher.init(jax.random.key(0), GRID)
    mask = Uniform(0.5)(jax.random.key(2), 2, GRID)
    whole = teacher(params, out, GRID, mask)
    assert whole["tokens"].shape == (2, 5, 16)
    seen = FrozenTeacher(NETWORK, masked=True)(params, out, GRID, mask)
    assert seen["tokens"].shape == (2, 3, 16)
    gradient = jax.grad(lambda p: teacher(p, out, GRID, mask)["mean"].sum())(params)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) == 0


def test_blocks_behind_the_tap_cost_nothing():
    teacher, out = FrozenTeacher(NETWORK), inputs()
    params = teacher.init(jax.random.key(0), GRID)

    def flops(block):
        tap = jax.jit(lambda p, x: teacher(p, x, GRID, None)["blocks"][block])
        return tap.lower(params, out).compile().cost_analysis()["flops"]

    one, two, three = (flops(block) for block in range(3))
    np.testing.assert_allclose(three - two, two - one, rtol=0.05)
    assert one < 0.6 * two


def test_weights_of_another_run():
    """What a run is, and how it is read, is not the teacher's affair."""
    teacher = FrozenTeacher(NETWORK, run="runs/mae", source="teacher/encoder", checkpoint=7)
    fresh = teacher.init(jax.random.key(0), GRID)
    weights = teacher.init(jax.random.key(5), GRID)

    def restore(run, source, abstract, step, network):
        assert (run, source, step, network) == ("runs/mae", "teacher/encoder", 7, NETWORK)
        assert jax.tree.map(jnp.shape, abstract) == jax.tree.map(jnp.shape, fresh)
        return weights

    assert teacher.load(fresh, restore) is weights
    assert FrozenTeacher(NETWORK).load(fresh, restore) is fresh
