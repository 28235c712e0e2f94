"""HPM agrees with the numbers of the original implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import torch_names
from maskjax.masking import Guided, mask_from_indices
from maskjax.models import HPMDecoder
from maskjax.objectives import ErrorPrediction, MaskedRegression
from maskjax.systems import MaskedAutoencoder
from maskjax.systems.teacher import Momentum
from maskjax.targets import NormalisedPixels, Pixels
from maskjax.tokens import take_tokens
from teacher_goldens import (
    INPUTS,
    check_named,
    close,
    decoder,
    encoder,
    gradients,
    images,
    params,
)

TARGETS = {"pix": Pixels(), "norm_pix": NormalisedPixels()}
FORMS = {"rel": "relative", "abs": "absolute"}


def system(target="pix", form="rel"):
    paths = dict(prediction="decoder.prediction", target="targets.pixels")
    return MaskedAutoencoder(
        encoder=encoder(32, 1),
        decoder=decoder(24, HPMDecoder),
        mask=Guided(0.75),
        momentum=Momentum(0.999, 0.9999, "linear", share=0.5),
        scores="decoder.scores",
        targets={"pixels": TARGETS[target]},
        terms={
            "reconstruction": MaskedRegression(**paths),
            "ranking": ErrorPrediction("decoder.scores", form=FORMS[form], **paths),
        },
        inputs=INPUTS,
    )


@pytest.fixture(scope="module")
def reference(golden):
    return golden("hpm")


@pytest.fixture(scope="module")
def inputs(reference):
    networks = params(reference, "param/")
    get = {k.removeprefix("param/"): v for k, v in reference.items() if k.startswith("param/")}
    predictor = {
        "stack": {"blocks": torch_names.blocks(get, "decoder_blocks_losspred.")},
        "norm": torch_names.norm(get, "decoder_norm_losspred"),
        "head": torch_names.dense(get, "decoder_pred_losspred"),
    }
    networks["decoder"] = {"reconstructor": networks["decoder"], **predictor}
    networks = jax.tree.map(jnp.asarray, networks)
    hidden = reference["in/mask"]
    keep = np.stack([np.flatnonzero(~row) for row in hidden])  # raster order, as the original
    masks = {"image": mask_from_indices(keep, 16)}
    variables = {"params": networks, "teacher": {"average": networks}}
    return variables, images(reference, "in/imgs_nchw"), masks


@pytest.fixture(scope="module")
def out(inputs):
    return jax.jit(system().forward)(*inputs)


def test_latent_prediction_and_scores(reference, inputs, out):
    """The original decodes visible tokens first; per position, order makes no difference."""
    mask = inputs[2]["image"]
    np.testing.assert_array_equal(mask.is_masked, reference["in/mask"])
    close(out["encoder"]["tokens"], reference["out/latent"], 1e-5)
    order = jnp.concatenate([mask.keep, mask.drop], axis=1)
    prediction = take_tokens(out["decoder"]["prediction"], order)
    close(prediction, reference["out/pix_pred_vis_then_mask"], 1e-5)
    scores = jnp.take_along_axis(out["decoder"]["scores"], order, axis=1)
    close(scores, reference["out/loss_pred_vis_then_mask"], 1e-5)


def test_scores_of_the_averaged_teacher_on_whole_images(reference, out):
    scores = out["teachers"]["average"]["decoder"]["scores"]
    close(scores, reference["out/teacher_loss_pred_full"], 1e-5)


def test_losses(reference, inputs, out):
    mask = inputs[2]["image"]
    for target, of_target in TARGETS.items():
        targets = {"pixels": of_target(out, system().grid)}
        for form in FORMS:
            terms = system(target, form).terms
            values = {n: term({**out, "targets": targets}, {}) for n, term in terms.items()}
            means = {n: value.total / value.count for n, value in values.items()}
            expected = f"out/{target}_{form}"
            close(means["reconstruction"], reference[f"{expected}/loss_rec"], 1e-5)
            close(means["ranking"], reference[f"{expected}/loss_pred_loss"], 1e-5)
            errors = terms["reconstruction"].per_token({**out, "targets": targets})
            errors = jnp.take_along_axis(errors, mask.drop, axis=1)
            close(errors, reference[f"{expected}/loss_matrix"], 1e-5)


def test_gradients(reference, inputs):
    _, _, grads = gradients(system(), *inputs)
    predictor = dict(grads["decoder"])
    reconstructor = predictor.pop("reconstructor")
    both = {"encoder": grads["encoder"], "decoder": reconstructor}
    named = torch_names.mae_names(both, patch=8)
    beside = torch_names.mae_names({**both, "decoder": {**reconstructor, **predictor}}, patch=8)
    for part in ("decoder_blocks", "decoder_norm", "decoder_pred"):
        for name, gradient in beside.items():
            if name.startswith(part + "."):
                named[name.replace(part, f"{part}_losspred")] = gradient
    # A constant added to all scores changes no difference: this gradient is zero but for rounding.
    zero = "grad/pix_rel/decoder_pred_losspred.bias"
    assert np.abs(named["decoder_pred_losspred.bias"]).max() < 1e-8
    assert np.abs(reference[zero]).max() < 1e-8
    others = {name: array for name, array in reference.items() if name != zero}
    check_named(named, others, "grad/pix_rel/")


def test_masks_follow_the_scores_of_the_teacher(inputs, out):
    """At the end, half of the masked patches are those with the highest scores."""
    variables, batch, _ = inputs
    draw = jax.jit(system().sample_masks)
    drawn = draw(jax.random.key(0), variables, batch, jnp.float32(1.0))["image"]
    scores = np.asarray(out["teachers"]["average"]["decoder"]["scores"])
    hidden = np.asarray(drawn.is_masked)
    assert (hidden.sum(axis=1) == 12).all()
    for row in range(2):
        assert hidden[row][np.argsort(-scores[row])[:6]].all()


def test_the_average_moves_towards_the_student(inputs):
    hpm, (variables, *_) = system(), inputs
    moved = jax.tree.map(lambda leaf: leaf + 1.0, variables["params"])

    @jax.jit
    def update(variables):
        after = hpm.update(variables, 0.25)["teacher"]["average"]["decoder"]["head"]["bias"]
        return after - variables["teacher"]["average"]["decoder"]["head"]["bias"]

    change = update({**variables, "params": moved})
    np.testing.assert_allclose(change, 1 - 0.99945, rtol=2e-2)
