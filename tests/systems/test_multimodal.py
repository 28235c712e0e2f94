"""Properties of systems of several modalities: what may be missing, what is refused, pictures."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.data import ClassMap, Image, Text
from maskjax.errors import UserError
from maskjax.masking import DirichletBudget, Separate, Uniform
from maskjax.models import (
    ClassEmbedding,
    M3AEDecoder,
    MultiMAEDecoder,
    MultimodalEncoder,
    PatchEmbedding,
    WordEmbedding,
)
from maskjax.objectives import CrossEntropyPerExample, RegressionPerExample
from maskjax.report.views import columns
from maskjax.systems import Multimodal, Task
from maskjax.targets import Categories, NormalisedPixels, Pixels
from maskjax.training.gradients import loss_and_gradients

TEXT = Text(6, cls_token=None, sep_token=None, optional=True)
IMAGE = Image((4, 4), 1, mean=(0.5,), std=(0.5,), optional=True)
SMALL = dict(width=8, depth=1, heads=2, dtype="float32")


def paths(name, **options):
    task = dict(prediction=f"decoder.{name}.prediction", target=f"targets.{name}")
    return dict(task, mask=f"masks.{name}", valid=f"valid.{name}", **options)


M3AE = Multimodal(
    encoder=MultimodalEncoder(
        {"image": PatchEmbedding((2, 2)), "text": WordEmbedding()}, activation="gelu_tanh", **SMALL
    ),
    decoder=M3AEDecoder(**SMALL),
    mask=Separate({"image": Uniform(0.5), "text": Uniform(0.5)}),
    tasks={"image": Task("image", Pixels()), "text": Task("text", Categories())},
    terms={
        "image": RegressionPerExample(**paths("image", log_variance="log_variance.image")),
        "text": CrossEntropyPerExample(**paths("text", empty="zero")),
    },
    uncertainty=True,
    inputs={"image": IMAGE, "text": TEXT},
)
MULTIMAE = Multimodal(
    encoder=MultimodalEncoder(
        {"rgb": PatchEmbedding((2, 2)), "classes": ClassEmbedding((2, 2), class_width=4)},
        globals_last=True,
        types=False,
        norm=False,
        rows_first=True,
        **SMALL,
    ),
    decoder=MultiMAEDecoder(**SMALL),
    mask=DirichletBudget(3),
    tasks={"norm_rgb": Task("rgb", NormalisedPixels()), "rgb": Task("rgb", Pixels())},
    terms={},
    inputs={
        "rgb": dataclasses.replace(IMAGE, optional=False),
        "classes": ClassMap((4, 4), classes=3),
    },
)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.integers(0, 256, (4, 4, 4, 1)), jnp.uint8),
        "text": jnp.asarray(TEXT.batch(["cat", "doggy", "ox", "mouse"])),
        "_has_image": jnp.asarray([True, True, False, True]),
        "_has_text": jnp.asarray([True, False, True, True]),
    }


@functools.cache
def variables():
    return jax.jit(M3AE.init)(jax.random.key(0))


encode = jax.jit(M3AE.encode)


def test_checks_pass():
    M3AE.check()
    MULTIMAE.check()
    assert M3AE.grids["text"].num_tokens == 6
    shapes = jax.eval_shape(M3AE.init, jax.random.key(0))["params"]
    assert shapes["encoder"]["embedders_text"]["table"].shape == (TEXT.vocabulary_size, 8)
    assert set(shapes["log_variance"]) == {"image", "text"}


def test_modalities_are_encoded_together_and_alone(batch):
    whole = {name: batch[name] for name in ("image", "text")}
    out = encode(variables(), whole)
    for name in whole:
        single = encode(variables(), {name: whole[name]})
        np.testing.assert_allclose(single["encoder"]["mean"], out["alone"][name]["mean"], atol=1e-6)
        np.testing.assert_array_equal(single["encoder"]["cls"], single["alone"][name]["cls"])
        assert np.abs(out["encoder"]["cls"] - single["encoder"]["cls"]).max() > 1e-3
    assert out["encoder"]["modalities"]["text"].shape == (4, 6, 8)
    with pytest.raises(UserError, match="none of the modalities image, text"):
        M3AE.encode(variables(), {"label": jnp.zeros(4)})


def test_an_example_that_lacks_a_modality_is_encoded_as_if_there_were_none(batch):
    out = encode(variables(), batch)
    image = encode(variables(), {"image": batch["image"]})["encoder"]
    text = encode(variables(), {"text": batch["text"]})["encoder"]
    for key in ("cls", "mean"):
        np.testing.assert_allclose(out["encoder"][key][1], image[key][1], atol=1e-6)
        np.testing.assert_allclose(out["encoder"][key][2], text[key][2], atol=1e-6)


def test_what_is_missing_has_no_influence_on_the_loss_also_in_micro_batches(batch):
    masks = jax.jit(M3AE.sample_masks)(jax.random.key(1), variables(), batch)

    @functools.partial(jax.jit, static_argnums=1)
    def compute(batch, accumulate):
        loss, grads, metrics, _ = loss_and_gradients(
            M3AE, variables(), batch, masks, {}, accumulate
        )
        return loss, grads, metrics

    loss, grads, metrics = compute(batch, 1)
    other = {
        **batch,
        "image": batch["image"].at[2].set(77),
        "text": batch["text"].at[1].set(jnp.asarray(TEXT.batch(["zzz"]))[0]),
    }
    changed, changed_grads, _ = compute(other, 1)
    np.testing.assert_allclose(changed, loss, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), changed_grads, grads)
    # Two micro-batches, of examples 0 and 2, and of 1 and 3.
    parts, part_grads, part_metrics = compute(batch, 2)
    np.testing.assert_allclose(parts, loss, rtol=1e-6)
    # Summed in another order: of gradients up to 15, 1e-6 is less than what float32 rounds.
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(near, part_grads, grads)
    np.testing.assert_allclose(part_metrics["terms/image"], metrics["terms/image"], rtol=1e-6)
    # The uncertainty of the images is learned; that of the words is read by no term.
    learned = grads["log_variance"]
    assert learned["image"] != 0 and learned["text"] == 0
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_pictures(batch):
    masks = jax.jit(M3AE.sample_masks)(jax.random.key(1), variables(), batch)
    shown = jax.jit(M3AE.reconstruct)(variables(), batch, masks)
    assert set(M3AE.titles) == set(shown)
    names = ("image", "image seen", "image predicted", "text", "text seen", "text predicted")
    assert M3AE.titles == names
    hidden = np.asarray(masks["tokens"].modalities["text"].is_masked)
    hidden = (
        hidden & (np.asarray(batch["text"]) != TEXT.pad) & np.asarray(batch["_has_text"])[:, None]
    )
    np.testing.assert_array_equal(shown["text seen"][..., 1] == 1, hidden)
    np.testing.assert_array_equal(shown["text seen"][..., 0] == TEXT.mask, hidden)
    np.testing.assert_array_equal(shown["text predicted"][..., 1] >= 2, hidden)
    grey = np.asarray(shown["image seen"])[..., 0] == 0.5
    np.testing.assert_array_equal(grey[0].sum(), 8)
    assert not grey[2].any()  # there is no image, and so nothing of it is hidden
    drawn = columns(jax.device_get(shown), M3AE)
    assert tuple(drawn) == names
    shapes = {picture.shape for picture in drawn.values()}
    assert len(shapes) == 1 and next(iter(shapes))[0] == 4 and next(iter(shapes))[-1] == 3
    assert all(picture.dtype == np.uint8 for picture in drawn.values())


def test_the_picture_shows_what_the_model_alone_predicts():
    assert MULTIMAE.titles == ("rgb", "rgb seen", "rgb predicted", "classes", "classes seen")
    assert MULTIMAE.picture_note() == ""
    only = dataclasses.replace(MULTIMAE, tasks={"norm_rgb": Task("rgb", NormalisedPixels())})
    assert "Predictions of rgb are of normalised patches" in only.picture_note()
    batch = {
        "rgb": jax.ShapeDtypeStruct((2, 4, 4, 1), jnp.uint8),
        "classes": jax.ShapeDtypeStruct((2, 4, 4, 1), jnp.int32),
    }

    def draw(key, batch):
        variables = MULTIMAE.init(key)
        return MULTIMAE.reconstruct(variables, batch, MULTIMAE.sample_masks(key, variables, batch))

    shown = jax.eval_shape(draw, jax.random.key(0), batch)
    assert shown["classes"].shape == (2, 4, 4, 3) and shown["rgb predicted"].shape == (2, 4, 4, 1)


def refused(system, **changes):
    dataclasses.replace(system, **changes).check()


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda: refused(M3AE, inputs={"image": IMAGE, "txt": TEXT}),
            "data.inputs has no 'text'; did you mean 'txt'",
        ),
        (
            lambda: refused(M3AE, inputs={"image": IMAGE, "text": IMAGE}),
            "'text' is no text but a data.Image: models.WordEmbedding needs a data.Text",
        ),
        (
            lambda: refused(M3AE, inputs={"image": TEXT, "text": TEXT}),
            "'image' is text, which has no patches",
        ),
        (
            lambda: refused(M3AE, tasks={"t": Task("texts", Categories())}),
            "predicts 'texts', which is no modality of .*did you mean 'text'",
        ),
        (
            lambda: refused(M3AE, tasks={"text": Task("text", Pixels())}),
            "has to choose among the 261 categories of 'text'",
        ),
        (
            lambda: refused(M3AE, tasks={"image": Task("image", Categories(5))}),
            "chooses among 5 categories, but 'image' has continuous values",
        ),
        (
            lambda: refused(M3AE, mask=Separate({"image": Uniform(0.5)})),
            "no sampler for the modality 'text'",
        ),
        (
            lambda: refused(MULTIMAE, mask=DirichletBudget(8)),
            "tokens=8 must be between 1 and 7: the modalities rgb, classes have 8 tokens",
        ),
        (
            lambda: refused(MULTIMAE, inputs={"rgb": IMAGE, "classes": IMAGE}),
            "'classes' is no map of classes but a data.Image",
        ),
        (
            lambda: refused(
                M3AE,
                encoder=M3AE.encoder.clone(
                    embedders={"image": PatchEmbedding((2, 2)), "text": WordEmbedding(99)}
                ),
            ),
            "has 261 ids but system.encoder.embedders.text.vocabulary is 99",
        ),
        (
            lambda: refused(M3AE, encoder=M3AE.encoder.clone(heads=3)),
            "not divisible by 3 attention heads",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        change()
