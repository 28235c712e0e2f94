"""What a joint embedding does beyond the numbers of the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.data import Image
from maskjax.errors import UserError
from maskjax.masking import MultiBlock
from maskjax.models import Predictor, ViT
from maskjax.objectives import WeightedRegression
from maskjax.systems import JointEmbedding, Momentum
from maskjax.training.gradients import loss_and_gradients

SIZE = 16


def make(**changes):
    arguments = dict(
        encoder=ViT((4, 4), 8, 1, 2, class_token=False, dtype="float32"),
        predictor=Predictor(8, 1, 2, dtype="float32"),
        mask=MultiBlock(min_keep=1, target_scale=(0.2, 0.3), inclusive=True),
        momentum=Momentum(0.9, 1.0, "linear"),
        terms={
            "prediction": WeightedRegression(
                "predictor.prediction", "targets.blocks", "masks.image.target_weight", "smooth_l1"
            )
        },
        inputs={"image": Image(size=(SIZE, SIZE), mean=(0.5,) * 3, std=(0.25,) * 3)},
    )
    return JointEmbedding(**{**arguments, **changes})


@pytest.fixture(scope="module")
def given():
    system = make()
    images = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    batch = {"image": jnp.asarray(images)}
    variables = jax.jit(system.init)(jax.random.key(0))
    masks = jax.jit(system.sample_masks)(jax.random.key(1), variables, batch)
    return system, variables, batch, masks


def test_the_teacher_starts_as_the_student_and_follows_slowly(given):
    system, variables, _, _ = given
    jax.tree.map(
        np.testing.assert_array_equal,
        variables["teacher"]["average"]["encoder"],
        variables["params"]["encoder"],
    )
    moved = {**variables, "params": jax.tree.map(lambda x: np.asarray(x) + 1, variables["params"])}
    average = jax.jit(system.update)(moved, 0.0)["teacher"]["average"]["encoder"]
    jax.tree.map(
        lambda new, old: np.testing.assert_allclose(new, np.asarray(old) + 0.1, atol=1e-6),
        average,
        variables["teacher"]["average"]["encoder"],
    )


def test_accumulation_changes_nothing(given):
    system, variables, batch, masks = given
    parts = [
        jax.jit(lambda *a, n=n: loss_and_gradients(system, *a, rngs={}, accumulate=n))
        for n in (1, 2)
    ]
    loss, grads, *_ = parts[0](variables, batch, masks)
    split, split_grads, *_ = parts[1](variables, batch, masks)
    assert split == pytest.approx(float(loss), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), grads, split_grads)


def test_encode_gives_student_and_teacher(given):
    system, variables, batch, _ = given
    teacher = jax.tree.map(lambda x: np.asarray(x) * 1.5, variables["teacher"])
    out = jax.jit(system.encode)({**variables, "teacher": teacher}, batch)
    assert out["encoder"]["mean"].shape == (4, 8)
    assert not np.allclose(out["encoder"]["mean"], out["teachers"]["average"]["encoder"]["mean"])


def test_pictures_show_what_is_seen_and_what_is_asked_for(given):
    system, variables, batch, masks = given
    pictures = jax.jit(system.reconstruct)(variables, batch, masks)
    assert set(pictures) == set(system.titles)
    original, context, targets = (np.asarray(pictures[title]) for title in system.titles)
    np.testing.assert_allclose(original, np.asarray(batch["image"]) / 255, atol=1e-5)
    shown = [(picture == original).all(axis=-1).mean(axis=(1, 2)) for picture in (context, targets)]
    counts = np.asarray(masks["image"].context_weight).sum(axis=1) / 16
    np.testing.assert_allclose(shown[0], counts, atol=0.03)  # grey pixels may equal by chance
    assert not ((context == original).all(-1) & (targets == original).all(-1)).mean() > 0.03
    assert "no picture" in system.picture_note()


def test_check_finds_what_does_not_fit(given):
    given[0].check()
    with pytest.raises(UserError, match="smallest target block"):
        make(mask=MultiBlock()).check()
    with pytest.raises(UserError, match="normalise is None or one of"):
        make(normalise="batch").check()
    with pytest.raises(UserError, match="no output 'targets.pixels'"):
        make(
            terms={
                "p": WeightedRegression(
                    "predictor.prediction", "targets.pixels", "masks.image.target_weight"
                )
            }
        ).check()
