"""M3AE's networks, masks and losses agree with the numbers of the original implementation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import multimodal_names
from maskjax.masking import join_masks, mask_from_scores
from maskjax.masking.budget import split_budget
from maskjax.models import M3AEDecoder, MultimodalEncoder, PatchEmbedding, WordEmbedding
from maskjax.models.multimodal import fixed_positions
from maskjax.objectives import CrossEntropyPerExample, RegressionPerExample
from maskjax.tokens import TokenGrid, patchify

GRIDS = {"image": TokenGrid.of((32, 32), (8, 8), 3), "text": TokenGrid((10,), (1,), 1)}
KEPT = {"image": 4, "text": 5}
OUTPUTS = {"image": ("image", 192), "text": ("text", 23)}
OPTIONS = dict(heads=2, activation="gelu_tanh", dtype="float32")
ENCODER = MultimodalEncoder(
    {"image": PatchEmbedding((8, 8)), "text": WordEmbedding(23)}, width=24, depth=2, **OPTIONS
)
DECODER = M3AEDecoder(width=16, depth=1, **OPTIONS)
PATHS = {
    n: dict(prediction=f"{n}.prediction", target=f"tokens.{n}", mask=f"masks.{n}")
    for n in ("image", "text")
}
TERMS = {
    "image": RegressionPerExample(**PATHS["image"]),
    "text": CrossEntropyPerExample(**PATHS["text"], valid="valid.text", empty="zero", weight=0.5),
}


def close(actual, expected, rtol=1e-5):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=rtol, atol=rtol * scale)


@pytest.fixture(scope="module")
def reference(golden):
    return golden("m3ae")


@pytest.fixture(scope="module")
def params(reference):
    return jax.tree.map(jnp.asarray, multimodal_names.m3ae_params(reference))


def given(reference, names=("image", "text")):
    """Returns tokens, mask and validity of the modalities named."""
    everything = {
        "image": patchify(jnp.asarray(reference["in/image"]), GRIDS["image"]),
        "text": jnp.asarray(reference["in/text"]),
    }
    masks = {
        n: jax.tree.map(
            lambda x: jnp.repeat(x, 2, axis=0),
            mask_from_scores(jnp.asarray(reference[f"in/noise_{n}"])[None], KEPT[n]),
        )
        for n in names
    }
    valid = {"text": jnp.asarray(reference["in/text_padding_mask"]) == 0} if "text" in names else {}
    return {n: everything[n] for n in names}, masks, valid


@jax.jit
def forward(params, tokens, masks, valid):
    grids = {name: GRIDS[name] for name in tokens}
    mask = split_budget(join_masks(masks), grids)
    encoded = ENCODER.apply({"params": params["encoder"]}, tokens, grids, mask.joint, valid)
    decoded = DECODER.apply(
        {"params": params["decoder"]}, encoded, grids, mask.joint, OUTPUTS, valid
    )
    parts = {"tokens": tokens, "masks": mask.modalities, "valid": valid, "encoder": encoded}
    return decoded | parts


@functools.partial(jax.jit, static_argnums=0)
def encode(activation, params, tokens, valid):
    network = ENCODER.clone(activation=activation)
    return network.apply({"params": params["encoder"]}, tokens, GRIDS, valid=valid)


def loss(params, tokens, masks, valid):
    out = forward(params, tokens, masks, valid)
    values = {name: term(out, {}) for name, term in TERMS.items() if name in tokens}
    means = {name: value.total / value.count for name, value in values.items()}
    return sum(TERMS[name].weight * mean for name, mean in means.items()), (means, values)


def test_positions(reference):
    close(fixed_positions(GRIDS["text"], 24), reference["posemb/1d_L10_d24"][0])
    close(fixed_positions(GRIDS["image"], 24), reference["posemb/2d_L16_d24"][0])


def test_masks(reference):
    masks = given(reference)[1]
    mask = split_budget(join_masks(masks), GRIDS)
    for name in GRIDS:
        hidden = reference[f"out/encoder_{name}_mask"].astype(bool)
        np.testing.assert_array_equal(mask.modalities[name].is_masked, hidden)
        np.testing.assert_array_equal(
            masks[name].restore[0], reference[f"out/encoder_{name}_ids_restore"]
        )


def test_latents_and_predictions(reference, params):
    tokens, masks, valid = given(reference)
    close(tokens["image"][0], reference["out/patches_sample0"])
    out = forward(params, tokens, masks, valid)
    close(out["encoder"]["cls"], reference["out/encoder_cls"][:, 0])
    close(out["encoder"]["patches"][:, :4], reference["out/encoder_image"])
    close(out["encoder"]["patches"][:, 4:], reference["out/encoder_text"])
    close(out["image"]["prediction"], reference["out/image_pred"])
    close(out["text"]["prediction"], reference["out/text_logits"])


def test_representation_of_everything(reference, params):
    tokens, _, valid = given(reference)
    out = encode("gelu_tanh", params, tokens, valid)
    close(out["tokens"], reference["out/representation_unmasked"])
    np.testing.assert_array_equal(out["modalities"]["text"], out["tokens"][:, 17:])
    real = np.concatenate([np.ones((2, 16), bool), np.asarray(valid["text"])], axis=1)
    for i in range(2):
        close(out["mean"][i], np.asarray(out["tokens"][i, 1:])[real[i]].mean(axis=0))


def test_losses(reference, params):
    total, (means, values) = loss(params, *given(reference))
    close(means["image"], reference["out/image_loss"])
    close(means["text"], reference["out/text_loss"])
    close(total, reference["out/loss"])
    close(values["text"].metrics["right"], reference["out/text_acc"])
    out = forward(params, *given(reference))
    everything = CrossEntropyPerExample(
        prediction="text.prediction", target="tokens.text", valid="valid.text"
    )(out, {})
    close(everything.total / everything.count, reference["out/text_loss_all_tokens"])


@pytest.mark.parametrize("name", ["image", "text"])
def test_one_modality_alone(reference, params, name):
    inputs = given(reference, (name,))
    out = forward(params, *inputs)
    expected = dict(image="out/image_only_pred_sample0", text="out/text_only_logits")[name]
    predicted = out[name]["prediction"]
    close(predicted[0] if name == "image" else predicted, reference[expected])
    _, (means, _) = loss(params, *inputs)
    close(means[name], reference[f"out/{name}_only_loss"])


@pytest.mark.parametrize("name", ["image", "text"])
def test_a_row_that_lacks_the_other_modality_is_as_if_alone(reference, params, name):
    tokens, masks, valid = given(reference)
    other = "text" if name == "image" else "image"
    valid = {**valid, other: jnp.zeros(tokens[other].shape[:2], bool)}
    out = forward(params, tokens, masks, valid)
    expected = forward(params, *given(reference, (name,)))
    close(out[name]["prediction"], np.asarray(expected[name]["prediction"]))
    close(out["encoder"]["cls"], np.asarray(expected["encoder"]["cls"]))
    close(out["encoder"]["mean"], np.asarray(expected["encoder"]["mean"]))


def test_exact_gelu_would_be_noticed(reference, params):
    tokens, _, valid = given(reference)
    out = encode("gelu", params, tokens, valid)
    with pytest.raises(AssertionError):
        close(out["tokens"], reference["out/representation_unmasked"])
