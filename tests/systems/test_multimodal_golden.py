"""M3AE and MultiMAE as systems: losses and gradients of the original implementations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import multimodal_names
from maskjax.data import ClassMap, Depth, Image
from maskjax.masking import DirichletBudget, Separate, Uniform, join_masks, mask_from_scores
from maskjax.masking.budget import budget_mask, split_budget
from maskjax.models import (
    ClassEmbedding,
    M3AEDecoder,
    MultiMAEDecoder,
    MultimodalEncoder,
    PatchEmbedding,
    WordEmbedding,
)
from maskjax.objectives import CrossEntropyPerExample, RegressionPerExample
from maskjax.systems import Multimodal, Task
from maskjax.targets import Categories, NormalisedPixels, Pixels
from maskjax.training.gradients import loss_and_gradients


def close(actual, expected, rtol=1e-5):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=rtol, atol=rtol * scale)


def identity(size, channels):
    """Pixels in [0, 255] of mean 0 and standard deviation 1/255 of the range."""
    return Image((size, size), channels, mean=(0.0,) * channels, std=(1 / 255,) * channels)


@dataclasses.dataclass(frozen=True)
class Ids:
    """Text whose padding is told apart from id 0, which is a word in the reference's numbers."""

    size: tuple[int, ...] = (10,)
    vocabulary_size: int = 23
    pad: int = -1

    channels = 1
    view = "text"
    dtype = np.dtype(np.int32)

    def shape(self, train):
        return self.size


def paths(name, mask=None, **options):
    task = dict(prediction=f"decoder.{name}.prediction", target=f"targets.{name}")
    return dict(task, mask=f"masks.{mask or name}", **options)


def compare(system, params, batch, mask, reference, names):
    system.check()
    variables = {"params": jax.tree.map(jnp.asarray, params)}
    masks = {"tokens": mask}
    loss, grads, metrics, _ = jax.jit(lambda *a: loss_and_gradients(system, *a, rngs={}))(
        variables, batch, masks
    )
    close(loss, reference["out/loss"])
    named = names(jax.device_get(grads))
    expected = {k.removeprefix("grad/"): v for k, v in reference.items() if k.startswith("grad/")}
    assert set(named) == set(expected)
    for name, gradient in expected.items():
        close(named[name], gradient, 1e-4)
    for name in system.terms:
        key = f"out/loss_{name}" if f"out/loss_{name}" in reference else f"out/{name}_loss"
        close(metrics[f"terms/{name}"], reference[key])


def test_m3ae(golden):
    reference = golden("m3ae")
    options = dict(heads=2, activation="gelu_tanh", dtype="float32")
    system = Multimodal(
        encoder=MultimodalEncoder(
            {"image": PatchEmbedding((8, 8)), "text": WordEmbedding()}, width=24, depth=2, **options
        ),
        decoder=M3AEDecoder(width=16, depth=1, **options),
        mask=Separate({"image": Uniform(0.75), "text": Uniform(0.5)}),
        tasks={"image": Task("image", Pixels()), "text": Task("text", Categories())},
        terms={
            "image": RegressionPerExample(**paths("image", valid="valid.image")),
            "text": CrossEntropyPerExample(
                **paths("text", valid="valid.text", empty="zero", weight=0.5)
            ),
        },
        inputs={"image": identity(32, 3), "text": Ids()},
    )
    padding = reference["in/text_padding_mask"].astype(bool)
    batch = {
        "image": jnp.asarray(reference["in/image"]),
        "text": jnp.asarray(np.where(padding, -1, reference["in/text"])),
    }
    noises = {name: jnp.asarray(reference[f"in/noise_{name}"]) for name in system.grids}
    masks = {
        name: mask_from_scores(jnp.tile(noise[None, :], (2, 1)), {"image": 4, "text": 5}[name])
        for name, noise in noises.items()
    }
    mask = split_budget(join_masks(masks), system.grids)
    params = multimodal_names.m3ae_params(reference)
    compare(system, params, batch, mask, reference, multimodal_names.m3ae_names)


def test_multimae(golden):
    reference = golden("multimae")
    embedders = {
        "rgb": PatchEmbedding((8, 8)),
        "depth": PatchEmbedding((8, 8)),
        "semseg": ClassEmbedding((2, 2), class_width=8),
    }
    system = Multimodal(
        encoder=MultimodalEncoder(
            embedders,
            width=24,
            depth=2,
            heads=2,
            globals_last=True,
            types=False,
            norm=False,
            rows_first=True,
            dtype="float32",
        ),
        decoder=MultiMAEDecoder(width=16, depth=1, heads=2, dtype="float32"),
        mask=DirichletBudget(12),
        tasks={
            "rgb": Task("rgb", Pixels()),
            "depth": Task("depth", Pixels()),
            "semseg": Task("semseg", Categories()),
            "norm_rgb": Task("rgb", NormalisedPixels()),
        },
        terms={
            "rgb": RegressionPerExample(**paths("rgb")),
            "depth": RegressionPerExample(**paths("depth"), error="l1"),
            "semseg": CrossEntropyPerExample(**paths("semseg")),
            "norm_rgb": RegressionPerExample(**paths("norm_rgb", mask="rgb")),
        },
        inputs={
            "rgb": identity(32, 3),
            "depth": Depth((32, 32)),
            "semseg": ClassMap((8, 8), classes=5),
        },
    )
    batch = {
        "rgb": jnp.asarray(reference["in/rgb"].transpose(0, 2, 3, 1)),
        "depth": jnp.asarray(reference["in/depth_raw"].transpose(0, 2, 3, 1)),
        "semseg": jnp.asarray(reference["in/semseg"][..., None]),
    }
    noises = [jnp.asarray(reference[f"in/noise_{name}"]) for name in system.grids]
    shares, joint = (jnp.asarray(reference[f"in/{n}"]) for n in ("dirichlet", "noise_all"))
    mask = split_budget(budget_mask(shares, noises, joint, 12), system.grids)
    params = multimodal_names.multimae_params(reference)
    compare(system, params, batch, mask, reference, multimodal_names.multimae_names)
