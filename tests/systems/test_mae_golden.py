"""MAE agrees with the numbers of the original implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import torch_names
from maskjax.data import Image
from maskjax.masking import Uniform, mask_from_scores
from maskjax.models import MAEDecoder, ViT
from maskjax.objectives import MaskedRegression
from maskjax.systems import MaskedAutoencoder
from maskjax.targets import NormalisedPixels, Pixels
from maskjax.training.gradients import loss_and_gradients

ALL = "decoder.prediction", "targets.pixels"
FORMS = {"pix": Pixels(), "norm_pix": NormalisedPixels()}


def close(actual, expected, rtol):
    """Relative to the largest entry, as a norm: single entries may be close to zero."""
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=rtol, atol=rtol * scale)


def system(arrays, form, **options):
    cfg = {k.removeprefix("cfg/"): v.item() for k, v in arrays.items() if k.startswith("cfg/")}
    size, patch = cfg["img_size"], cfg["patch_size"]
    options |= dict(dtype="float32", mlp_ratio=cfg["mlp_ratio"])
    return MaskedAutoencoder(
        encoder=ViT((patch, patch), cfg["embed_dim"], cfg["depth"], cfg["num_heads"], **options),
        decoder=MAEDecoder(
            cfg["decoder_embed_dim"], cfg["decoder_depth"], cfg["decoder_num_heads"], **options
        ),
        mask=Uniform(cfg["mask_ratio"]),
        targets={"pixels": FORMS[form]},
        terms={"reconstruction": MaskedRegression("decoder.masked", "targets.pixels")},
        # Pixels in [0, 255] of mean 0 and standard deviation 1/255 of the range: the identity.
        inputs={"image": Image((size, size), 3, mean=(0.0,) * 3, std=(1 / 255,) * 3)},
    )


@pytest.fixture(scope="module")
def reference(golden):
    return golden("mae")


@pytest.fixture(scope="module")
def inputs(reference):
    images = jnp.asarray(reference["in/imgs_nchw"].transpose(0, 2, 3, 1))
    masks = {"image": mask_from_scores(jnp.asarray(reference["in/noise"]), 4)}
    variables = {"params": jax.tree.map(jnp.asarray, torch_names.mae_params(reference))}
    return variables, {"image": images}, masks


def masked(x, inputs):
    """The masked tokens of [B, N, ...], in the order of the mask."""
    return np.stack([row[drop] for row, drop in zip(x, inputs[2]["image"].drop, strict=True)])


def test_mask(reference, inputs):
    mask = inputs[2]["image"]
    np.testing.assert_array_equal(mask.restore, reference["out/ids_restore"])
    np.testing.assert_array_equal(mask.is_masked, reference["out/mask"].astype(bool))


@pytest.mark.parametrize("scan", [False, True])
def test_latent_and_prediction(reference, inputs, scan):
    out = system(reference, "pix", scan=scan).forward(*inputs)
    close(out["patches"], reference["out/patchify"], 1e-5)
    close(out["encoder"]["tokens"], reference["out/latent"], 1e-5)
    close(out["decoder"]["prediction"], reference["out/pred"], 1e-5)
    close(out["decoder"]["masked"], masked(reference["out/pred"], inputs), 1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_loss(reference, inputs, form):
    mae = system(reference, form)
    out = mae.forward(*inputs)
    close(out["targets"]["pixels"], reference[f"out/{form}/target"], 1e-5)
    of_masked, of_all = mae.terms["reconstruction"], MaskedRegression(*ALL)
    errors = reference[f"out/{form}/loss_per_patch"]
    close(of_masked.per_token(out), masked(errors, inputs), 1e-5)
    close(of_all.per_token(out), errors, 1e-5)
    for term in (of_masked, of_all):
        value = term(out, inputs[1])
        close(value.total / value.count, reference[f"out/{form}/loss"], 1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", [{}, dict(scan=True, remat="hidden", attention_batch=1)])
def test_gradients(reference, inputs, form, options):
    mae = system(reference, form, **options)
    loss, grads, _, _ = jax.jit(lambda *a: loss_and_gradients(mae, *a, rngs={}))(*inputs)
    close(loss, reference[f"out/{form}/loss"], 1e-5)
    squares = sum(float((g**2).sum()) for g in jax.tree.leaves(grads))
    close(np.sqrt(squares), reference[f"out/{form}/grad_global_norm"], 1e-4)

    # Compared under the reference's names, where query, key and value are one array: the gradient
    # of the keys' bias alone is zero but for rounding.
    named = torch_names.mae_names(grads, patch=8)
    given = f"grad/{form}/"
    expected = {k.removeprefix(given): v for k, v in reference.items() if k.startswith(given)}
    assert len(expected) >= 6
    for name, gradient in expected.items():
        close(named[name], gradient, 1e-4)


def test_biased_variance_would_be_noticed(reference, inputs):
    patches = system(reference, "norm_pix").forward(*inputs)["patches"]
    biased = (patches - patches.mean(-1, keepdims=True)) / jnp.sqrt(
        patches.var(-1, keepdims=True) + 1e-6
    )
    with pytest.raises(AssertionError):
        close(biased, reference["out/norm_pix/target"], 1e-5)
