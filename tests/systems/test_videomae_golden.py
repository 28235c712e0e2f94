"""VideoMAE and VideoMAE V2 agree with the numbers of the original implementations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import torch_names
from maskjax.data import Video
from maskjax.errors import UserError
from maskjax.masking import RunningCell, Tube, mask_from_hidden
from maskjax.models import VideoDecoder, ViT
from maskjax.objectives import MaskedRegression
from maskjax.systems import MaskedAutoencoder
from maskjax.targets import NormalisedChannels
from maskjax.tokens import sinusoid_flat
from maskjax.training.gradients import loss_and_gradients

V1 = MaskedRegression("decoder.prediction", "targets.cubes", mask="masks.video")
V2 = MaskedRegression(
    "decoder.prediction", "targets.cubes", mask="masks.video", shown="masks.decoder"
)


def close(actual, expected, rtol):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=rtol, atol=rtol * scale)


class Case:
    """One golden: the system, its arguments, and the outputs, computed once."""

    def __init__(self, arrays, hidden, dual):
        cfg = {k.removeprefix("cfg/"): v.item() for k, v in arrays.items() if "cfg/" in k}
        self.arrays = arrays
        self.patch = (cfg["tubelet"], cfg["patch"], cfg["patch"])
        sizes = [[cfg[f"{net}_{n}"] for n in ("dim", "depth", "heads")] for net in ("enc", "dec")]
        self.system = MaskedAutoencoder(
            input_name="video",
            encoder=ViT(
                self.patch,
                *sizes[0],
                class_token=False,
                positions="flat",
                bias="qv",
                dtype="float32",
            ),
            decoder=VideoDecoder(*sizes[1], dtype="float32"),
            mask=Tube(0.75),
            decoder_mask=RunningCell(0.5) if dual else None,
            targets={"cubes": NormalisedChannels()},
            terms={"reconstruction": V2 if dual else V1},
            inputs={"video": Video((cfg["frames"], cfg["img"], cfg["img"]))},
        )
        masks = {}
        for name, key in hidden.items():
            array = arrays[key]
            masks[name] = mask_from_hidden(jnp.asarray(array), int((~array[0]).sum()))
        video = jnp.asarray(arrays["in/raw01"].transpose(0, 2, 3, 4, 1)) * 255
        params = jax.tree.map(jnp.asarray, torch_names.videomae_params(arrays))
        self.arguments = {"params": params}, {"video": video}, masks
        self.out = jax.jit(self.system.forward)(*self.arguments)


@pytest.fixture(scope="module")
def first(golden):
    return Case(golden("videomae"), {"video": "in/mask"}, dual=False)


@pytest.fixture(scope="module")
def second(golden):
    hidden = {"video": "in/encoder_mask", "decoder": "in/decoder_mask"}
    return Case(golden("videomae_v2"), hidden, dual=True)


def at(x, mask):
    """Selects masked tokens in ascending order: [B, N, ...], bool [B, N]."""
    x = np.asarray(x)
    return x[mask].reshape(len(x), -1, *x.shape[2:])


def test_positions(first):
    for name, width in (("encoder", 24), ("decoder", 16)):
        close(sinusoid_flat(128, width), first.arrays[f"out/pos_embed_{name}"][0], 1e-6)


def test_latent_and_prediction(first):
    arrays, out = first.arrays, first.out
    close(out["encoder"]["tokens"], arrays["out/latent"], 1e-5)
    close(out["decoder"]["shown"], arrays["out/pred"], 1e-5)
    close(at(out["decoder"]["prediction"], arrays["in/mask"]), arrays["out/pred"], 1e-5)
    assert (at(out["decoder"]["prediction"], ~arrays["in/mask"]) == 0).all()


def test_targets(first):
    arrays, out = first.arrays, first.out
    target = at(out["targets"]["cubes"], arrays["in/mask"])
    close(target[0], arrays["out/target_masked_sample0"], 1e-5)
    raw = at(out["pixels"], arrays["in/mask"])
    close(raw[0, :8], arrays["out/target_raw_masked_sample0_first8"], 1e-5)
    # What is predicted exactly comes back as the input.
    inverted = NormalisedChannels().invert(out["targets"]["cubes"], out)
    close(inverted, np.asarray(out["patches"]), 1e-5)


def test_loss(first):
    arrays, out = first.arrays, first.out
    close(at(V1.per_token(out), arrays["in/mask"]), arrays["out/loss_per_token"], 1e-5)
    value = V1(out, {})
    close(value.total / value.count, arrays["out/loss"], 1e-5)
    raw = MaskedRegression("decoder.prediction", "pixels", mask="masks.video")(out, {})
    close(raw.total / raw.count, arrays["out/loss_raw_target"], 1e-5)


@pytest.mark.parametrize("case", ["first", "second"])
def test_gradients(case, request):
    case = request.getfixturevalue(case)
    call = jax.jit(lambda *a: loss_and_gradients(case.system, *a, rngs={}))
    loss, grads, *_ = call(*case.arguments)
    close(loss, case.arrays["out/loss"], 1e-5)
    named = torch_names.videomae_names(grads, case.patch)
    expected = {k: v for k, v in case.arrays.items() if k.startswith("grad/")}
    assert len(expected) >= 4
    for name, gradient in expected.items():
        close(named[name.removeprefix("grad/")], gradient, 1e-4)


def test_dual_masking(second):
    arrays, out = second.arrays, second.out
    shown = ~arrays["in/decoder_mask"]
    close(out["encoder"]["tokens"], arrays["out/latent"], 1e-5)
    close(out["decoder"]["shown"], arrays["out/pred"], 1e-5)
    close(at(out["decoder"]["prediction"], shown), arrays["out/pred"], 1e-5)
    close(at(out["targets"]["cubes"], shown), arrays["out/target"], 1e-5)
    close(at(V2.per_token(out), shown), arrays["out/loss_per_token"], 1e-5)
    value = V2(out, {})
    assert value.count == arrays["out/loss_mask"].sum()
    close(value.total / value.count, arrays["out/loss"], 1e-5)


def test_without_a_decoder_mask_it_is_the_first_version(second):
    variables, _, masks = second.arguments
    decoder, grid = second.system.decoder, second.system.grid
    decoded = jax.jit(
        lambda p, tokens, mask: decoder.apply({"params": p}, tokens, grid, mask, 96)["shown"]
    )(variables["params"]["decoder"], second.out["encoder"]["tokens"], masks["video"])
    close(decoded[0], second.arrays["out/pred_without_decoder_mask_sample0"], 1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(inputs={"video": Video((15, 16, 16))}), "15x16x16 is not divisible by .* 2x4x4"),
        (dict(inputs={"video": Video((16, 12, 16))}, decoder_mask=RunningCell()), "even"),
        (dict(targets={"cubes": NormalisedChannels(1)}), "set channels=3"),
    ],
)
def test_what_does_not_fit_is_refused(first, change, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(first.system, **change).check()
