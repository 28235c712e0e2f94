"""MaskGIT as a system: codes, masks, classes, generation, and where its tokenizer comes from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.config import build, part
from maskjax.data import Image
from maskjax.errors import UserError
from maskjax.masking import ScheduledRatio, Uniform
from maskjax.models import CodeTransformer, VQDecoder, VQEncoder
from maskjax.objectives import MaskedCrossEntropy
from maskjax.systems import MaskGIT, ParallelDecoding, QuantisedPixels, VQTokenizer
from maskjax.tokens import TokenGrid
from maskjax.training.gradients import loss_and_gradients

IMAGE = Image(size=(4, 4), channels=1, mean=(0.5,), std=(0.5,))
TERMS = {
    "codes": MaskedCrossEntropy("transformer.logits", "codes", mask="masks.codes", smoothing=0.1)
}
LEVELS = dict(width=4, multipliers=(1, 2), blocks=1, dtype="float32")
VQ = VQTokenizer("runs/vq", VQEncoder(**LEVELS, latent_width=4), VQDecoder(**LEVELS), 8)


def make(**changes):
    fields = dict(
        tokenizer=QuantisedPixels(levels=4),
        transformer=CodeTransformer(width=8, depth=1, heads=2, dtype="float32"),
        classes=3,
        class_dropout=0.25,
        sampler=ParallelDecoding(steps=3, guidance=1.0),
        terms=TERMS,
        inputs={"image": IMAGE},
    )
    return MaskGIT(**fields | changes)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(make().init)(jax.random.key(0))


@pytest.fixture(scope="module")
def batch():
    levels = jax.random.randint(jax.random.key(1), (6, 4, 4, 1), 0, 4)
    return {"image": levels * 85.0, "label": jnp.array([0, 1, 2, 0, 1, -1])}


@pytest.fixture(scope="module")
def forward():
    return jax.jit(make().forward)


def test_pixels_are_codes(batch):
    system = make()
    codes = system.codes({}, batch)
    np.testing.assert_array_equal(codes, (batch["image"] / 85).reshape(6, 16).astype(int))
    np.testing.assert_allclose(system.decode({}, codes), batch["image"] / 255, atol=1e-6)


def test_colours_are_codes():
    data = Image(size=(2, 2), mean=(0.5,) * 3, std=(0.25,) * 3)
    tokenizer = QuantisedPixels(levels=3, channels=3)
    assert tokenizer.vocabulary == 27
    image = jnp.array([[[[0, 0, 0], [1, 0, 0]], [[0, 0.5, 1], [1, 1, 1]]]])
    codes = tokenizer.encode({}, data.normalise(255 * image), data)
    np.testing.assert_array_equal(codes, [[0, 2, 3 + 18, 26]])
    np.testing.assert_allclose(tokenizer.decode({}, codes, data), image)


def test_loss_is_cross_entropy_at_hidden_codes(variables, batch, forward):
    system = make()
    masks = system.sample_masks(jax.random.key(3), variables, batch)
    out = forward(variables, batch, masks)
    hidden = np.asarray(masks["codes"].is_masked)
    log_p = np.asarray(jax.nn.log_softmax(out["transformer"]["logits"]))
    chosen = np.take_along_axis(log_p, np.asarray(out["codes"])[..., None], -1)[..., 0]
    per_code = -0.9 * chosen - 0.1 * log_p.mean(-1)
    loss, grads, *_ = jax.jit(lambda *a: loss_and_gradients(system, *a, rngs={}))(
        variables, batch, masks
    )
    assert loss == pytest.approx(per_code[hidden].mean(), rel=1e-5)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_hidden_codes_do_not_leak(variables, batch, forward):
    system = make()
    masks = system.sample_masks(jax.random.key(3), variables, batch)
    hidden = np.asarray(masks["codes"].is_masked)
    pixels = hidden.reshape(6, 4, 4, 1)
    other = {**batch, "image": jnp.where(pixels, 255.0 - batch["image"], batch["image"])}
    a, b = (forward(variables, x, masks) for x in (batch, other))
    assert (np.asarray(a["codes"]) != np.asarray(b["codes"])).any()
    np.testing.assert_array_equal(a["transformer"]["logits"], b["transformer"]["logits"])


def test_withheld_labels(variables, batch, forward):
    system = make()
    masks = system.sample_masks(jax.random.key(3), variables, batch)
    masks["withheld"] = jnp.array([True, False, False, False, False, False])
    a = forward(variables, batch, masks)["transformer"]["logits"]
    other = {**batch, "label": jnp.array([1, 2, 2, 0, 1, -1])}
    b = forward(variables, other, masks)["transformer"]["logits"]
    np.testing.assert_array_equal(a[0], b[0])
    assert not np.allclose(a[1], b[1])
    assert np.isfinite(a[5]).all()  # a record that could not be read has the label -1


def test_share_of_withheld_labels(variables):
    images = {"image": jnp.zeros((4000, 4, 4, 1))}
    masks = make().sample_masks(jax.random.key(0), variables, images)
    assert masks["withheld"].mean() == pytest.approx(0.25, abs=0.03)


def test_features_do_not_know_the_class(variables, batch):
    encode = jax.jit(make().encode)
    out = encode(variables, batch)["encoder"]
    without = encode(variables, {"image": batch["image"]})["encoder"]
    np.testing.assert_array_equal(out["mean"], without["mean"])
    assert out["mean"].shape == out["middle"].shape == (6, 8)


def test_generation(variables):
    """Codes that are known stay; guidance, here strong enough to decide all, changes the others."""
    labels, known = jnp.array([2, 2]), jnp.full((2, 16), -1).at[:, 3:9].set(2)

    def generated(guidance):
        system = make(sampler=ParallelDecoding(steps=2, guidance=guidance))
        return jax.jit(lambda key: system.generate(variables, key, 2, labels, known))

    plain, strong = generated(0.0), generated(1e6)
    images, codes = plain(jax.random.key(0))
    assert images.shape == (2, 4, 4, 1)
    assert codes.min() >= 0
    assert codes.max() < 4
    np.testing.assert_array_equal(codes[:, 3:9], 2)
    np.testing.assert_allclose(images, make().decode(variables, codes), atol=1e-6)
    assert not np.array_equal(codes, plain(jax.random.key(1))[1])
    _, guided = strong(jax.random.key(0))
    np.testing.assert_array_equal(guided[:, 3:9], 2)
    assert not np.array_equal(codes, guided)


def test_pictures(variables, batch):
    system = make()
    masks = system.sample_masks(jax.random.key(3), variables, batch)
    pictures = jax.jit(system.reconstruct)(variables, {"image": batch["image"]}, masks)
    assert set(pictures) == set(system.titles)
    for picture in pictures.values():
        assert picture.shape == (6, 4, 4, 1)
        assert 0 <= picture.min() <= picture.max() <= 1
    hidden = np.asarray(masks["codes"].is_masked).reshape(6, 4, 4, 1)
    np.testing.assert_allclose(pictures["masked"][hidden], 0.5)
    np.testing.assert_allclose(
        pictures["prediction"][~hidden], pictures["original"][~hidden], atol=1e-6
    )


def test_the_tokenizer_of_a_run():
    system = make(tokenizer=VQ)
    zeros = jax.eval_shape(system.init, jax.random.key(0))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), zeros)
    asked = []

    def restore(run, path, abstract, step=None, network=None):
        asked.append((run, path, step, type(network).__name__))
        return jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, leaf.dtype), abstract)

    loaded = system.load_pretrained(variables, restore)
    assert asked == [
        ("runs/vq", "params/encoder", None, "VQEncoder"),
        ("runs/vq", "params/decoder", None, "VQDecoder"),
        ("runs/vq", "stats/codebook/table", None, "NoneType"),
    ]
    assert (loaded["teacher"]["tokenizer"]["table"] == 0.5).all()
    assert jax.tree.structure(loaded) == jax.tree.structure(variables)
    batch = {"image": jnp.zeros((2, 4, 4, 1)), "label": jnp.array([0, 1])}
    codes = jax.eval_shape(system.codes, variables, batch)
    assert codes.shape == (2, 4)
    assert jax.eval_shape(system.decode, variables, codes).shape == (2, 4, 4, 1)
    # Its weights are no parameters, so they have no gradient and no optimiser state.
    assert set(variables["params"]) == {"transformer"}


def test_a_tokenizer_without_a_run_is_refused():
    section = part(
        "systems.VQTokenizer",
        run=None,
        encoder=part("models.VQEncoder", **LEVELS, latent_width=4),
        decoder=part("models.VQDecoder", **LEVELS),
        vocabulary=8,
    )
    system = make(tokenizer=build(section))
    system.check()  # shapes are known without the run
    with pytest.raises(UserError, match="tokenizer.run"):
        system.load_pretrained(jax.eval_shape(system.init, jax.random.key(0)), lambda *_: None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(class_dropout=0.0), "Guidance"),
        (dict(classes=0), "Guidance"),
        (dict(class_dropout=1.5), "class_dropout"),
        (dict(mask=Uniform(0.999)), "masks all"),
        (dict(tokenizer=QuantisedPixels(levels=4, channels=3)), "3 channels"),
        (dict(tokenizer=dataclasses.replace(VQ, encoder=VQEncoder())), "smaller than a patch"),
        (dict(transformer=CodeTransformer(width=9, heads=2)), "2 attention heads"),
    ],
)
def test_refusals(changes, words):
    with pytest.raises(UserError, match=words):
        make(**changes).check()


def test_refused_arguments(variables, batch):
    system, key = make(), jax.random.key(0)
    with pytest.raises(UserError, match=r"codes go from -1 to 4"):
        system.generate(variables, key, 1, known=jnp.full((1, 16), -1).at[0, 0].set(4))
    with pytest.raises(UserError, match=r"labels go from 3 to 3"):
        system.generate(variables, key, 1, labels=jnp.array([3]))
    with pytest.raises(UserError, match="shape"):
        system.generate(variables, key, 1, known=jnp.zeros((1, 9), jnp.int32))
    with pytest.raises(UserError, match="cannot take 8x8"):
        system.encode(variables, {"image": jnp.zeros((1, 8, 8, 1))})
    masks = system.sample_masks(key, variables, batch)
    with pytest.raises(UserError, match="no labels"):
        system.forward(variables, {"image": batch["image"]}, masks)
    with pytest.raises(UserError, match="levels"):
        QuantisedPixels(levels=1)


def test_masks_follow_the_grid_of_the_codes(variables, batch):
    system = make(mask=ScheduledRatio(least=0.5))
    masks = system.sample_masks(jax.random.key(0), variables, batch)
    assert masks["codes"].is_masked.shape == (6, 16)
    assert masks["codes"].is_masked.sum(-1).min() >= 8
    assert make(tokenizer=VQ).grid == TokenGrid((2, 2), (2, 2), 1)
