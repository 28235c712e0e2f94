"""SparK as a configuration of `MaskedAutoencoder`: a training step agrees with the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.data import Image
from maskjax.errors import UserError
from maskjax.masking import Uniform, mask_from_scores
from maskjax.models import ResNet, SparKDecoder, SparseEncoder
from maskjax.objectives import MaskedRegression
from maskjax.systems import MaskedAutoencoder
from maskjax.targets import NormalisedPixels
from maskjax.training.gradients import loss_and_gradients
from spark_names import SmallNetwork, decoder, off_the_kink, small_network


def close(actual, expected, rtol):
    np.testing.assert_allclose(
        np.asarray(actual), expected, rtol=rtol, atol=rtol * np.abs(expected).max()
    )


class Exact(Image):
    """Passes pixels on as they are."""

    def normalise(self, values):
        return jnp.asarray(values, jnp.float32)


def start(shapes):
    """Running statistics before the first step: mean 0, variance 1."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.full(leaf.shape, float(path[-1].key == "var")), shapes
    )


def system(network, patch=8, width=32):
    return MaskedAutoencoder(
        encoder=SparseEncoder(network, (patch, patch)),
        decoder=SparKDecoder(width, dtype="float32"),
        mask=Uniform(0.625),
        targets={"pixels": NormalisedPixels()},
        terms={"reconstruction": MaskedRegression("decoder.prediction", "targets.pixels")},
        inputs={"image": Exact(size=(32, 32))},
    )


@pytest.fixture(scope="module")
def reference(golden):
    return golden("spark_bn")


@pytest.fixture(scope="module")
def given(reference):
    get = {k.removeprefix("param/"): v for k, v in reference.items() if k.startswith("param/")}
    spark = system(SmallNetwork())
    fresh = jax.eval_shape(spark.init, jax.random.key(0))
    params = {"encoder": {"network": small_network(get)}, "decoder": decoder(get)}
    params = off_the_kink(jax.tree.map(jnp.asarray, params))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, fresh["params"])
    batch = {"image": jnp.asarray(reference["in/images"].transpose(0, 2, 3, 1))}
    masks = {"image": mask_from_scores(jnp.asarray(reference["in/noise"]), 6)}
    return spark, {"params": params, "stats": start(fresh["stats"])}, batch, masks


def test_a_training_step_agrees(reference, given):
    spark, variables, batch, masks = given
    keys = {"dropout": jax.random.key(0)}
    step = jax.jit(lambda *a: loss_and_gradients(spark, *a, rngs=keys))
    loss, grads, _, stats = step(variables, batch, masks)
    close(loss, reference["out/loss"], 1e-5)
    close(
        grads["encoder"]["network"]["conv1"]["conv"]["kernel"].transpose(3, 2, 0, 1),
        reference["grad/sparse_encoder.sp_cnn.conv1.weight"],
        1e-4,
    )
    close(
        stats["encoder"]["network"]["b3"]["norm"]["var"],
        reference["out/after/sparse_encoder.sp_cnn.b3.running_var"],
        1e-5,
    )
    close(
        stats["decoder"]["up2"]["norm1"]["mean"],
        reference["out/after/dense_decoder.dec.2.conv.4.running_mean"],
        1e-5,
    )


def test_encoding_is_dense_and_takes_other_sizes(given):
    spark, variables, batch, _ = given
    encode = jax.jit(spark.encode)
    out = encode(variables, batch)["encoder"]
    assert out["mean"].shape == (2, 16)
    alone = encode(variables, {"image": batch["image"][:1]})["encoder"]["mean"]
    np.testing.assert_allclose(out["mean"][:1], alone, rtol=1e-5, atol=1e-6)
    larger = encode(variables, {"image": jnp.zeros((1, 48, 40, 3), jnp.uint8)})["encoder"]
    assert larger["patches"].shape == (1, 30, 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(patch=4), "stride of 8 pixels, which does not divide the patch of 4x4"),
        (dict(width=36), "a multiple of 8, not 36"),
        (dict(network=ResNet(strides=(3, 1, 1, 1))), "does not divide the patch"),
        (dict(network=ResNet((1,), (8,), (1, 2), stem="small")), "one entry per stage"),
        (dict(network=ResNet((1,), (8,), (8,), stem="large")), "imagenet or small, not 'large'"),
        (dict(network=ResNet((1,), (8,), (1,), stem="small")), "a power of two, and at least 2"),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(UserError, match=message):
        system(**{"network": SmallNetwork(), **changes}).check()
