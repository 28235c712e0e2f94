"""SimMIM with a vision transformer agrees with the numbers of the original implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import torch_names
from maskjax.data import Image
from maskjax.masking import Uniform, mask_from_hidden
from maskjax.models import LinearHead, ViT
from maskjax.objectives import MaskedRegression
from maskjax.systems import MaskedAutoencoder
from maskjax.targets import Pixels
from maskjax.tokens import relative_index, unpatchify
from maskjax.training.gradients import loss_and_gradients


def close(actual, expected, rtol):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=rtol, atol=rtol * scale)


@pytest.fixture(scope="module")
def reference(golden):
    return golden("simmim_vit")


@pytest.fixture(scope="module")
def system(reference):
    cfg = {k.removeprefix("cfg/"): v.item() for k, v in reference.items() if "cfg/" in k}
    encoder = ViT(
        (cfg["patch_size"],) * 2,
        cfg["embed_dim"],
        cfg["depth"],
        cfg["num_heads"],
        cfg["mlp_ratio"],
        positions="none",
        relative_bias=True,
        mask_token=True,
        bias="qv",
        layer_scale=cfg["init_values"],
        dtype="float32",
    )
    return MaskedAutoencoder(
        encoder=encoder,
        decoder=LinearHead(order="channel_slowest", dtype="float32"),
        mask=Uniform(cfg["mask_ratio"]),
        targets={"pixels": Pixels()},
        terms={
            "reconstruction": MaskedRegression("decoder.prediction", "targets.pixels", error="l1")
        },
        # Pixels in [0, 255] of mean 0 and standard deviation 1/255 of the range: the identity.
        inputs={"image": Image((cfg["img_size"],) * 2, 3, (0.0,) * 3, (1 / 255,) * 3)},
    )


@pytest.fixture(scope="module")
def arguments(reference):
    images = jnp.asarray(reference["in/imgs_nchw"].transpose(0, 2, 3, 1))
    hidden = reference["in/mask"].reshape(2, -1).astype(bool)
    masks = {"image": mask_from_hidden(jnp.asarray(hidden), int((~hidden[0]).sum()))}
    variables = {"params": jax.tree.map(jnp.asarray, torch_names.simmim_params(reference))}
    return variables, {"image": images}, masks


def test_relative_positions(reference, arguments):
    index = relative_index((4, 4), class_token=True)
    np.testing.assert_array_equal(index, reference["out/relative_position_index"])
    table = arguments[0]["params"]["encoder"]["relative_bias"]["table"]
    close(table[index].transpose(2, 0, 1), reference["out/rel_pos_bias"], 1e-6)


@pytest.fixture(scope="module")
def forward(system):
    return jax.jit(system.forward)


def test_latent_and_reconstruction(reference, system, forward, arguments):
    out = forward(*arguments)
    latent = reference["out/z_nchw"]
    close(out["encoder"]["patches"], latent.reshape(2, latent.shape[1], -1).swapaxes(1, 2), 1e-5)
    pictures = unpatchify(out["decoder"]["prediction"], system.grid)
    close(pictures, reference["out/rec_nchw"].transpose(0, 2, 3, 1), 1e-5)


def test_loss_and_gradients(reference, system, arguments):
    loss, grads, *_ = jax.jit(lambda *a: loss_and_gradients(system, *a, rngs={}))(*arguments)
    close(loss, reference["out/loss"], 1e-5)
    named = torch_names.simmim_names(grads, (8, 8))
    expected = {k.removeprefix("grad/"): v for k, v in reference.items() if k.startswith("grad/")}
    assert len(expected) == 12
    for name, gradient in expected.items():
        close(named[name], gradient, 1e-4)


def test_hidden_patches_have_no_influence(forward, arguments):
    variables, batch, masks = arguments
    hidden = masks["image"].is_masked.reshape(2, 4, 1, 4, 1, 1)
    noise = jax.random.normal(jax.random.key(0), batch["image"].shape)
    noise = (noise.reshape(2, 4, 8, 4, 8, 3) * hidden).reshape(noise.shape)
    plain = forward(variables, batch, masks)
    other = forward(variables, {"image": batch["image"] + noise}, masks)
    np.testing.assert_array_equal(plain["decoder"]["prediction"], other["decoder"]["prediction"])
