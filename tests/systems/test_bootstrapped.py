"""Stages of dBOT: at their end the student becomes the teacher and another one starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.data import Image
from maskjax.errors import UserError
from maskjax.masking import Uniform
from maskjax.models import MAEDecoder, ViT
from maskjax.objectives import FeatureRegression
from maskjax.systems import Bootstrapped, FrozenTeacher
from maskjax.targets import Features

ARGUMENTS = dict(patch_size=(2, 2), width=8, depth=2, heads=2, dtype="float32")


def system(network=None, **arguments):
    settings = dict(
        encoder=ViT(**ARGUMENTS, drop_path=0.1),
        decoder=MAEDecoder(width=8, depth=1, heads=2, dtype="float32"),
        mask=Uniform(0.75),
        teachers={"teacher": FrozenTeacher(ViT(**ARGUMENTS | (network or {})))},
        targets={"features": Features("teachers.teacher.output", 8, class_token=True)},
        terms={
            "distillation": FeatureRegression(
                "decoder.with_cls", "targets.features", class_token=True, error="smooth_l1"
            )
        },
        inputs={"image": Image(size=(8, 8), channels=1, mean=(0.0,), std=(1.0,))},
    )
    return Bootstrapped(**settings | arguments)


@pytest.fixture(scope="module")
def stages():
    """Variables at the start, before the first boundary, after it, and after the second."""
    dbot = system(stages=(0.25, 0.5))
    update = jax.jit(dbot.update)
    start = jax.jit(dbot.init)(jax.random.key(0))
    trained = {**start, "params": jax.tree.map(lambda leaf: leaf + 1.0, start["params"])}
    before, second = (update(trained, jnp.float32(p)) for p in (0.249, 0.25))
    third = update(second, jnp.float32(0.5))
    return trained, before, second, update(second, jnp.float32(0.3)), third


def equal(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


def test_first_teacher_is_the_student_of_the_start(stages):
    start = jax.jit(system().init)(jax.random.key(0))
    assert equal(start["teacher"]["teacher"], start["params"]["encoder"])


def test_nothing_changes_within_a_stage(stages):
    trained, before, second, later, _ = stages
    assert equal(before, trained)
    assert equal(later, second)


def test_student_becomes_teacher_and_starts_anew(stages):
    trained, _, second, _, third = stages
    assert equal(second["teacher"]["teacher"], trained["params"]["encoder"])
    assert equal(third["teacher"]["teacher"], second["params"]["encoder"])
    assert (int(second["teacher"]["stage"]), int(third["teacher"]["stage"])) == (1, 2)
    kernels = [v["params"]["encoder"]["embed"]["kernel"] for v in (trained, second, third)]
    assert np.abs(kernels[0] - 1 - kernels[1]).max() > 0.01
    assert np.abs(kernels[1] - kernels[2]).max() > 0.01  # every student has other random weights
    assert (second["params"]["encoder"]["embed"]["bias"] == 0).all()


def test_published_code_keeps_a_bias(stages):
    trained = stages[0]
    after = jax.jit(system(keep_embed_bias=True).update)(trained, jnp.float32(0.6))
    assert (after["params"]["encoder"]["embed"]["bias"] == 1).all()
    assert (after["params"]["encoder"]["norm"]["bias"] == 0).all()


def test_teacher_without_blocks():
    """Its features are the embedded patches with positions, after the class token."""
    dbot = system(first="embedding")
    variables = jax.jit(dbot.init)(jax.random.key(0))
    batch = {"image": jax.random.uniform(jax.random.key(1), (2, 8, 8, 1)) * 255}
    masks = dbot.sample_masks(jax.random.key(2), variables, batch)
    out = jax.jit(dbot.forward)(variables, batch, masks)
    teacher = out["teachers"]["teacher"]
    np.testing.assert_array_equal(out["targets"]["features"], teacher["input"])
    np.testing.assert_array_equal(teacher["input"][:, 1:], teacher["embedded"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(stages=(0.5, 0.4)), "growing shares"),
        (dict(stages=(1.0,)), "growing shares"),
        (dict(first="none"), "'student' or 'embedding'"),
        (dict(network=dict(width=16)), "width is 8 in system.encoder and 16"),
        (dict(teachers={}), "exactly one teacher"),
    ],
)
def test_refusals(arguments, words):
    with pytest.raises(UserError, match=words):
        system(**arguments).check()
