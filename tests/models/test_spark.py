"""SparK's networks agree with the numbers of the original implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.masking import mask_from_indices, mask_from_scores
from maskjax.models.convnext import ConvNeXt
from maskjax.models.resnet import ResNet
from maskjax.models.spark import SparKDecoder, SparseEncoder
from maskjax.objectives import MaskedRegression
from maskjax.tokens import TokenGrid, patchify
from spark_names import SmallNetwork, convnext, decoder, off_the_kink, small_network


def close(actual, expected, rtol):
    np.testing.assert_allclose(
        np.asarray(actual), expected, rtol=rtol, atol=rtol * np.abs(expected).max()
    )


CASES = {
    "spark_bn": (SmallNetwork(), small_network, "batch"),
    "spark_convnext": (
        ConvNeXt((1, 1, 1, 1), (8, 8, 16, 16), dtype="float32"),
        convnext,
        "layer",
    ),
}


class Case:
    """One reference run: networks, parameters, and the outputs of a training pass."""

    def __init__(self, name, arrays):
        network, names, norm = CASES[name]
        get = {k.removeprefix("param/"): v for k, v in arrays.items() if k.startswith("param/")}
        self.name, self.arrays = name, arrays
        ratio, image = arrays["cfg/ratio"].item(), arrays["cfg/img"].item()
        self.grid = TokenGrid.of((image, image), (ratio, ratio), 3)
        self.encoder = SparseEncoder(network, (ratio, ratio))
        self.decoder = SparKDecoder(32, norm, dtype="float32")
        params = {"encoder": {"network": names(get)}, "decoder": decoder(get)}
        self.params = jax.tree.map(jnp.asarray, params)
        images = jnp.asarray(arrays["in/images"].transpose(0, 2, 3, 1))
        self.patches = patchify(images, self.grid)
        self.mask = mask_from_scores(jnp.asarray(arrays["in/noise"]), arrays["cfg/len_keep"].item())
        self.out, self.stats = jax.jit(self.run)(self.params)

    def run(self, params):
        fresh = jax.eval_shape(
            lambda: self.encoder.init(jax.random.key(0), self.patches, self.grid, self.mask)
        )
        encoded, stats = self.encoder.apply(
            {"params": params["encoder"], "batch_stats": _start(fresh)},
            self.patches,
            self.grid,
            self.mask,
            mutable=["batch_stats"],
        )
        arguments = encoded["tokens"], self.grid, self.mask, self.grid.values_per_token
        fresh = jax.eval_shape(lambda: self.decoder.init(jax.random.key(0), *arguments))
        decoded, more = self.decoder.apply(
            {"params": params["decoder"], "batch_stats": _start(fresh)},
            *arguments,
            mutable=["batch_stats"],
        )
        out = {
            "masks": {"image": self.mask},
            "encoder": encoded,
            "decoder": decoded,
            "targets": {"pixels": _normalised(self.patches)},
        }
        return out, {"encoder": stats.get("batch_stats", {}), "decoder": more["batch_stats"]}

    def loss(self, params):
        value = TERM(self.run(params)[0], {})
        return value.total / value.count


TERM = MaskedRegression("decoder.prediction", "targets.pixels")


def _normalised(patches):
    mean = patches.mean(axis=-1, keepdims=True)
    return (patches - mean) / jnp.sqrt(patches.var(axis=-1, keepdims=True, ddof=1) + 1e-6)


def _start(shapes):
    """Running statistics before the first step: mean 0, variance 1."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.full(leaf.shape, float(path[-1].key == "var")),
        shapes.get("batch_stats", {}),
    )


@pytest.fixture(scope="module", params=CASES)
def case(request, golden):
    return Case(request.param, golden(request.param))


def test_mask(case):
    visible = ~np.asarray(case.mask.is_masked)
    np.testing.assert_array_equal(visible, case.arrays["in/active"].reshape(2, -1).astype(bool))


def test_maps_and_what_the_decoder_gets(case):
    for i, feature in enumerate(reversed(case.out["encoder"]["maps"])):
        close(feature.transpose(0, 3, 1, 2), case.arrays[f"out/feat/{i}"], 1e-5)
        for ours, theirs in (("filled", "densified"), ("projected", "to_dec")):
            if f"out/{theirs}/{i}" in case.arrays:
                value = case.out["decoder"][ours][i].transpose(0, 3, 1, 2)
                close(value, case.arrays[f"out/{theirs}/{i}"], 1e-5)


def test_prediction_and_loss(case):
    image = jnp.asarray(case.arrays["out/rec"].transpose(0, 2, 3, 1))
    expected = patchify(image, case.grid)
    close(case.out["decoder"]["prediction"][: len(expected)], expected, 1e-5)
    close(TERM.per_token(case.out), case.arrays["out/loss_per_patch"], 1e-5)
    value = TERM(case.out, {})
    close(value.total / value.count, case.arrays["out/loss"], 1e-5)


def test_running_statistics(case):
    def norm(name, kind):
        return case.arrays[f"out/after/{name}.running_{kind}"]

    for kind in ("mean", "var"):
        for i in range(len(case.stats["decoder"])):
            if f"up{i}" not in case.stats["decoder"]:
                continue
            for ours, theirs in (("norm0", "conv.1"), ("norm1", "conv.4")):
                actual = case.stats["decoder"][f"up{i}"][ours][kind]
                close(actual, norm(f"dense_decoder.dec.{i}.{theirs}", kind), 1e-5)
        if case.stats["encoder"]:
            for name in ("bn1", "b2", "b3"):
                actual = case.stats["encoder"]["network"][name]["norm"][kind]
                close(actual, norm(f"sparse_encoder.sp_cnn.{name}", kind), 1e-5)
            for i in range(2):
                actual = case.stats["decoder"][f"fill{i}_norm"]["norm"][kind]
                close(actual, norm(f"densify_norms.{i}", kind), 1e-5)


def test_gradients(case):
    params = off_the_kink(case.params) if case.name == "spark_bn" else case.params
    tree = jax.jit(jax.grad(case.loss))(params)
    network, dec = tree["encoder"]["network"], tree["decoder"]
    first = network.get("conv1", network.get("down0"))["conv"]["kernel"].transpose(3, 2, 0, 1)
    named = {
        "sparse_encoder.sp_cnn.conv1.weight": first,
        "sparse_encoder.sp_cnn.downsample_layers.0.0.weight": first,
        "dense_decoder.proj.weight": dec["head"]["kernel"].transpose(3, 2, 0, 1),
    }
    for i in range(len(case.out["encoder"]["maps"])):
        named[f"mask_tokens.{i}"] = dec[f"mask_token{i}"].reshape(1, -1, 1, 1)
        named[f"densify_projs.{i}.bias"] = dec[f"project{i}"]["conv"]["bias"]
    given = {k.removeprefix("grad/"): v for k, v in case.arrays.items() if k.startswith("grad/")}
    assert len(given) >= 6
    for name, gradient in given.items():
        close(named[name], gradient, 1e-4)


NETWORKS = {
    "resnet": ResNet((1, 1), (4, 8), (2, 2), stem="small", stem_width=4, dtype="float32"),
    "convnext": ConvNeXt((1, 1), (4, 8), stem=2, dtype="float32"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_hidden_pixels_have_no_influence(name):
    network = NETWORKS[name]
    grid = TokenGrid.of((16, 16), (4, 4), 3)
    encoder = SparseEncoder(network, (4, 4))
    patches = jax.random.normal(jax.random.key(0), (2, 16, 48))
    mask = mask_from_indices(jnp.asarray([[0, 1, 5, 7], [2, 3, 8, 15]]), 16)
    assert network.map_strides == (2, 4)
    shapes = jax.eval_shape(lambda: encoder.init(jax.random.key(1), patches, grid, mask))
    # Positive variances, and no scale of zero, which would leave nothing to compare.
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.1, 1, leaf.shape)), shapes)
    apply = jax.jit(lambda x, mask: encoder.apply(variables, x, grid, mask))
    out = apply(patches, mask)
    changed = jnp.where(mask.is_masked[:, :, None], 7.0, patches)
    for a, b, stride in zip(out["maps"], apply(changed, mask)["maps"], (2, 4), strict=True):
        assert a.shape[1] == 16 // stride
        np.testing.assert_array_equal(a, b)
        hidden = np.kron(mask.is_masked.reshape(2, 4, 4), np.ones((4 // stride,) * 2)) > 0
        assert not np.asarray(a)[hidden].any()
        assert np.asarray(a)[~hidden].any()
    dense = apply(patches, None)
    assert dense["patches"].shape == (2, 16, dense["mean"].shape[-1])
    np.testing.assert_allclose(dense["mean"], dense["patches"].mean(axis=1), rtol=1e-5, atol=1e-6)
    other = apply(changed, None)["mean"]
    assert not np.allclose(dense["mean"], other)


def test_resnet_50_has_its_number_of_parameters():
    shapes = jax.eval_shape(
        lambda: ResNet().init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    )
    # 25,557,032 with the classifier of 2048 x 1000 + 1000.
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 25_557_032 - 2_049_000


def test_convnext_b_has_its_number_of_parameters():
    shapes = jax.eval_shape(
        lambda: ConvNeXt().init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    )
    # 88,591,464 with the final norm of 1024 and the classifier of 1024 x 1000 + 1000.
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 88_591_464 - 2_048 - 1_025_000
