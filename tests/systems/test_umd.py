"""UMD agrees with the numbers of the original implementation, and behaves as a system."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.data import Image
from maskjax.errors import UserError
from maskjax.masking import Uniform, mask_from_scores
from maskjax.models import UMDDecoder, UMDEncoder
from maskjax.objectives import MaskedRegression, NoiseSchedule
from maskjax.systems import DDIM, UMD
from maskjax.tokens import patchify
from maskjax.training.gradients import loss_and_gradients

TERMS = {
    "noise": MaskedRegression(
        "decoder.noise", "targets.noise", mask="masks.noised_visible", weight=0.25
    ),
    "denoising": MaskedRegression(
        "decoder.clean", "patches", mask="masks.noised_hidden", weight=0.25
    ),
    "masked": MaskedRegression("decoder.clean", "patches", mask="masks.clean_hidden", weight=0.5),
}


def close(actual, expected, rtol):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=rtol, atol=rtol * scale)


def make(arrays, scan=False, classes=0, **changes):
    cfg = {k.removeprefix("cfg/"): v.item() for k, v in arrays.items() if k.startswith("cfg/")}
    heads, patch = cfg["num_heads"], (cfg["patch"],) * 2
    options = dict(heads=heads, scan=scan, dtype="float32")
    return UMD(
        **dict(
            encoder=UMDEncoder(
                patch,
                cfg["width"],
                cfg["depth"],
                class_tokens=cfg["num_cls"],
                classes=classes,
                **options,
            ),
            decoder=UMDDecoder(cfg["dec_depth"], **options),
            clean_mask=Uniform(round(cfg["mask_ratio_no_noise"], 4)),
            noised_mask=Uniform(round(cfg["mask_ratio"], 4)),
            clean_share=cfg["no_noise_prob"],
            terms=TERMS,
            sampler=DDIM(steps=4),
            # Pixels in [0, 255] of mean 0 and standard deviation 1/255 of the range: the identity.
            inputs={"image": Image(size=(16, 16), mean=(0.0,) * 3, std=(1 / 255,) * 3)},
        )
        | changes
    )


def small(classes=0, **changes):
    """A system that compiles quickly."""
    options = dict(heads=1, dtype="float32")
    fields = dict(
        encoder=UMDEncoder((4, 4), 8, 1, class_tokens=2, classes=classes, **options),
        decoder=UMDDecoder(1, **options),
        clean_mask=Uniform(0.75),
        noised_mask=Uniform(0.5),
        terms=TERMS,
        sampler=DDIM(steps=2),
        inputs={"image": Image(size=(8, 8), channels=1, mean=(0.5,), std=(0.5,))},
    )
    return UMD(**fields | changes)


def drawn(system):
    """Returns variables of which none is zero, and a batch of four images."""
    leaves, tree = jax.tree.flatten(system.shapes)
    draw = np.random.default_rng(0)
    leaves = [jnp.asarray(0.2 * draw.standard_normal(v.shape), jnp.float32) for v in leaves]
    images = jnp.asarray(draw.uniform(0, 255, (4, 8, 8, 1)), jnp.float32)
    return tree.unflatten(leaves), {"image": images, "label": jnp.array([0, 1, 2, 0])}


def params_of(get):
    """Returns the tree of maskjax from {name in the original repository: array}."""

    def dense(name):
        return {"kernel": get[f"{name}/kernel"], "bias": get[f"{name}/bias"]}

    def norm(name):
        return {"scale": get[f"{name}/scale"], "bias": get[f"{name}/bias"]}

    def block(name):
        attention = f"{name}/MultiHeadDotProductAttention_0"
        d = get[f"{name}/LayerNorm_0/scale"].shape[0]
        projections = {
            part: {
                "kernel": get[f"{attention}/{part}/kernel"].reshape(d, d),
                "bias": get[f"{attention}/{part}/bias"].reshape(d),
            }
            for part in ("query", "key", "value", "out")
        }
        mlp = f"{name}/MlpBlock_0"
        return {
            "modulation": dense(f"{name}/Dense_0"),
            "norm1": norm(f"{name}/LayerNorm_0"),
            "attention": projections,
            "norm2": norm(f"{name}/LayerNorm_1"),
            "mlp": {"up": dense(f"{mlp}/Dense_0"), "down": dense(f"{mlp}/Dense_1")},
        }

    def stack(name):
        depth = len({k.split("/")[1] for k in get if k.startswith(f"{name}/Encoder1DBlock")})
        blocks = [block(f"{name}/Encoder1DBlock_{i}") for i in range(depth)]
        return {"blocks": jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)}

    # A transposed convolution turns its kernel around; outputs alternate data and noise by pixel.
    kernel = get["final_conv/kernel"][::-1, ::-1]
    p, _, d, outputs = kernel.shape
    kernel = kernel.transpose(2, 0, 1, 3).reshape(d, p * p, 2, outputs // 2)
    head = kernel.transpose(0, 2, 1, 3).reshape(d, -1)
    bias = np.tile(get["final_conv/bias"].reshape(2, 1, -1), (1, p * p, 1)).reshape(-1)
    encoder = {
        "positions": get["pos_embedding"][0],
        "time": {"up": dense("time_trunk/Dense_0"), "down": dense("time_trunk/Dense_1")},
        "embed": {
            "kernel": get["embedding/kernel"].reshape(-1, d),
            "bias": get["embedding/bias"],
        },
        "cls": get["cls"][0],
        "stack": stack("Encoder"),
        "norm": norm("Encoder/encoder_norm"),
    }
    decoder = {
        "positions": get["dec_pos_embedding"][0],
        "mask_token": get["image_mask_embedding"].reshape(-1),
        "stack": stack("Decoder"),
        "norm": norm("Decoder/encoder_norm"),
        "modulation": dense("final_modulation"),
        "head": {"kernel": head, "bias": bias},
    }
    return {"encoder": encoder, "decoder": decoder}


@pytest.fixture(scope="module")
def reference(golden):
    return golden("umd")


@pytest.fixture(scope="module")
def inputs(reference):
    named = {k.removeprefix("param/"): v for k, v in reference.items() if k.startswith("param/")}
    variables = {"params": jax.tree.map(jnp.asarray, params_of(named))}
    scores = {k: jnp.asarray(reference[f"in/mask_noise_{k}"]) for k in ("clean", "noised")}
    masks = {
        # Each part is given for all examples; the noised ones come first.
        "clean": mask_from_scores(jnp.concatenate([scores["clean"]] * 2), 4),
        "noised": mask_from_scores(jnp.concatenate([scores["noised"]] * 2), 10),
        "time": jnp.tile(jnp.asarray(reference["in/t"][:, 0]), 2),
        "noise": jnp.concatenate([jnp.asarray(reference["in/eps"])] * 2),
        "withheld": jnp.zeros((4,), bool),
    }
    return variables, {"image": jnp.asarray(reference["in/images"])}, masks


def pixels(mask, channels=1):
    """[B, N] -> [B, 16, 16, 1], as the reference has its masks."""
    rows = np.asarray(mask, np.float32).reshape(-1, 4, 4, 1)
    return rows.repeat(4, axis=1).repeat(4, axis=2)


@pytest.fixture(scope="module")
def out(reference, inputs):
    return jax.jit(make(reference).forward)(*inputs)


def test_predictions(reference, out):
    grid = make(reference).grid
    for part, rows in (("noised", slice(0, 2)), ("clean", slice(2, 4))):
        decoded = out[part]["decoder"]
        # The reference's six channels per pixel: three of the data, three of the noise.
        expected = reference[f"out/pred_{part}"]
        close(decoded["clean"], patchify(expected[..., :3], grid), 1e-5)
        close(decoded["noise"], patchify(expected[..., 3:], grid), 1e-5)
        np.testing.assert_array_equal(
            pixels(out["masks"][part].is_masked[rows]), reference[f"out/mask_{part}"]
        )
        np.testing.assert_array_equal(out["decoder"]["clean"][rows], decoded["clean"])
    close(out["clean"]["encoder"]["cls"], reference["out/rep_clean"], 1e-5)


def test_losses(reference, inputs, out):
    values = {name: term(out, inputs[1]) for name, term in TERMS.items()}
    means = {name: v.total / v.count for name, v in values.items()}
    close(means["noise"], reference["out/eps_loss"], 1e-5)
    close(means["denoising"], reference["out/x0_loss"], 1e-5)
    close(means["masked"], reference["out/mae_loss"], 1e-5)


def test_loss_and_gradients_in_two_micro_batches(reference, inputs):
    """Either has a noised and a clean half of its own, as the whole batch has."""
    system = make(reference, scan=True)
    loss, grads, *_ = jax.jit(lambda *a: loss_and_gradients(system, *a, rngs={}, accumulate=2))(
        *inputs
    )
    close(loss, reference["out/loss"], 1e-5)
    close(grads["encoder"]["positions"], reference["grad/pos_embedding"][0], 1e-4)
    close(grads["encoder"]["cls"], reference["grad/cls"][0], 1e-4)
    close(grads["decoder"]["mask_token"], reference["grad/image_mask_embedding"].reshape(-1), 1e-4)
    close(grads["decoder"]["modulation"]["kernel"], reference["grad/final_modulation/kernel"], 1e-4)


def test_draws():
    system = small()
    variables = system.shapes
    batch = {"image": jnp.zeros((64, 8, 8, 1))}
    masks = system.sample_masks(jax.random.key(1), variables, batch)
    assert masks["clean"].keep.shape == (64, 1)
    assert masks["noised"].keep.shape == (64, 2)
    assert masks["time"].min() >= 0
    assert masks["time"].max() < 1000
    assert len(np.unique(masks["time"])) > 50
    out = jax.eval_shape(system.forward, variables, batch, masks)
    assert out["decoder"]["clean"].shape == (64, 4, 16)


def test_a_time_is_told_apart_from_its_neighbour():
    system = small(noised_mask=None, clean_share=0.0)
    variables, batch = drawn(system)
    masks = system.sample_masks(jax.random.key(1), variables, batch)
    forward = jax.jit(system.forward)
    out = forward(variables, batch, masks | {"time": jnp.array([5, 6, 999, 0])})
    again = forward(variables, batch, masks | {"time": jnp.array([5, 7, 999, 0])})
    same = (out["decoder"]["clean"] == again["decoder"]["clean"]).all(axis=(1, 2))
    np.testing.assert_array_equal(same, [True, False, True, True])


def test_unmasked_noised_examples_count_everywhere():
    system = small(noised_mask=None, clean_share=0.25)
    variables, batch = drawn(system)
    masks = system.sample_masks(jax.random.key(1), variables, batch)
    out = jax.jit(lambda *a: system.forward(*a)["masks"])(variables, batch, masks)
    for name in ("noised_visible", "noised_hidden"):
        np.testing.assert_array_equal(out[name].is_masked.sum(-1), [4, 4, 4, 0])
    np.testing.assert_array_equal(out["clean_hidden"].is_masked.sum(-1), [0, 0, 0, 3])


def test_encoding_sees_everything_at_time_zero():
    system = small()
    variables, batch = drawn(system)
    out = jax.jit(system.encode)(variables, batch)["encoder"]
    assert out["patches"].shape == (4, 4, 8)

    @jax.jit
    def at(time):
        params = {"params": variables["params"]["encoder"]}
        patches = patchify((batch["image"] / 255 - 0.5) / 0.5, system.grid)
        return system.encoder.apply(params, patches, system.grid, time=jnp.full((4,), time))["cls"]

    close(out["cls"], at(0), 1e-5)
    assert not np.allclose(out["cls"], at(1), rtol=1e-4)
    with pytest.raises(UserError, match="cannot encode 12x12"):
        system.encode(variables, {"image": jnp.zeros((1, 12, 12, 1))})


def test_labels_and_guidance():
    system = small(classes=3, noised_mask=None, sampler=DDIM(steps=1, guidance=2.0, clip=None))
    variables, batch = drawn(system)
    masks = system.sample_masks(jax.random.key(1), variables, batch)
    masks["withheld"] = jnp.array([False, True, False, False])
    forward = jax.jit(lambda *a: system.forward(*a)["noised"]["decoder"]["clean"])
    out = forward(variables, batch, masks)
    changed = forward(variables, {**batch, "label": jnp.array([1, 2, 2, 0])}, masks)
    assert not np.allclose(out[0], changed[0])
    np.testing.assert_array_equal(out[1], changed[1])  # its label is withheld
    with pytest.raises(UserError, match="no labels"):
        forward(variables, {"image": batch["image"]}, masks)

    def generate(guidance, labels):
        sampler = DDIM(steps=1, guidance=guidance, clip=None)
        each = dataclasses.replace(system, sampler=sampler)
        # On both sides of [0, 1] pictures are cut off, so the samples themselves are compared.
        key, data = jax.random.key(0), Image(size=(8, 8), channels=1, mean=(0.5,), std=(1e-3,))
        each = dataclasses.replace(each, inputs={"image": data})
        return jax.jit(lambda labels: each.generate(variables, key, 2, labels))(labels)

    labels = jnp.array([0, 1])
    with_labels, without = generate(1.0, labels), generate(1.0, None)
    assert not np.allclose(with_labels, without, atol=1e-5)
    np.testing.assert_allclose(generate(0.0, labels), without, atol=1e-6)
    guided = generate(3.0, labels)
    assert not np.allclose(guided, with_labels, atol=1e-5)


def test_pictures():
    system = small()
    variables, batch = drawn(system)
    masks = system.sample_masks(jax.random.key(1), variables, batch)
    pictures = jax.jit(system.reconstruct)(variables, batch, masks)
    assert set(pictures) == set(system.titles)
    for picture in pictures.values():
        assert picture.shape == (4, 8, 8, 1)
        assert 0 <= picture.min() <= picture.max() <= 1
    np.testing.assert_allclose(pictures["original"], batch["image"] / 255, atol=1e-5)
    assert "samples" in system.picture_note().lower()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(clean_share=1.5), "clean_share"),
        (dict(sampler=DDIM(guidance=2.0)), "needs labels"),
        (dict(classes=2, label_dropout=0.0, sampler=DDIM(guidance=2.0)), "label_dropout"),
        (dict(sampler=DDIM(125), noise=NoiseSchedule(steps=50)), "more than the 50"),
        (dict(clean_mask=Uniform(0.999)), "masks all"),
    ],
)
def test_refusals(changes, words):
    with pytest.raises(UserError, match=words):
        small(**changes).check()
