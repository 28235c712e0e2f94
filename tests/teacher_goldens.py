"""What the tests of systems with teachers share: images, networks and losses of the references."""

import jax
import jax.numpy as jnp
import numpy as np

import torch_names
from maskjax.data import Image
from maskjax.models import MAEDecoder, ViT
from maskjax.training.gradients import loss_and_gradients

# Reference images are given as the model sees them: pixels of mean 0 and a deviation of one value.
INPUTS = {"image": Image(size=(32, 32), mean=(0.0,) * 3, std=(1 / 255,) * 3)}


def close(actual, expected, rtol):
    """Relative to the largest entry, as a norm: single entries may be close to zero."""
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=rtol, atol=rtol * scale)


def encoder(width, depth):
    return ViT((8, 8), width, depth, heads=2, dtype="float32")


def decoder(width, kind=MAEDecoder):
    return kind(width, depth=1, heads=2, dtype="float32")


def params(arrays, prefix):
    """Parameters of encoder and decoder; the prediction layer may have another name (dBOT)."""
    renamed = {k.replace("decoder_predp", "decoder_pred"): v for k, v in arrays.items()}
    return jax.tree.map(jnp.asarray, torch_names.mae_params(renamed, prefix))


def encoder_params(arrays, prefix):
    get = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    tree = {
        "embed": torch_names.patch_embed(get),
        "cls": get["cls_token"].reshape(-1),
        "stack": {"blocks": torch_names.blocks(get, "blocks.")},
        "norm": torch_names.norm(get, "norm"),
    }
    return jax.tree.map(jnp.asarray, tree)


def images(arrays, name="in/imgs"):
    return {"image": jnp.asarray(arrays[name].transpose(0, 2, 3, 1))}


def gradients(system, variables, batch, masks):
    """Returns the loss, the terms and the gradients of the objective."""
    step = jax.jit(lambda *arguments: loss_and_gradients(system, *arguments, rngs={})[:3])
    loss, grads, metrics = step(variables, batch, masks)
    terms = {k.removeprefix("terms/"): v for k, v in metrics.items() if k.startswith("terms/")}
    return loss, terms, grads


def global_norm(grads):
    return np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(grads)))


def check_named(named, arrays, prefix):
    """Compares every gradient that the reference has, at least four of them."""
    expected = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    assert len(expected) >= 4
    for name, gradient in expected.items():
        close(named[name], gradient, 1e-4)
