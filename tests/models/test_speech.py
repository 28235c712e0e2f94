"""The encoder of masked speech and its head."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models import CodeHead, SpeechEncoder
from maskjax.models.layers import gelu
from maskjax.models.speech import (
    WAVEFORM_LAYERS,
    ConvolutionalPositions,
    WaveformFrontEnd,
    _scale_gradient,
)
from maskjax.tokens import TokenGrid

GRID = TokenGrid((12,), (2,), 3)
SMALL = SpeechEncoder(
    width=16, depth=2, heads=2, position_kernel=4, position_groups=4, dtype="float32"
)


def init(encoder, patches, grid=GRID):
    return jax.jit(lambda key: encoder.init(key, patches, grid))(jax.random.key(0))


def mask_of(hidden):
    hidden = np.asarray(hidden, bool)
    order = np.argsort(hidden, axis=1, kind="stable")
    keep = int((~hidden[0]).sum())
    return Mask(order[:, :keep], order[:, keep:], jnp.asarray(np.argsort(order, axis=1)))


@pytest.fixture(scope="module")
def patches():
    return jax.random.normal(jax.random.key(0), (2, 12, 6))


def close(actual, expected, rtol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


def test_head_agrees_with_the_reference(golden):
    """Loss and gradients of HuBERT's cosine head with two sets of codes."""
    arrays = {k: jnp.asarray(v) for k, v in golden("speech_audio_pieces").items()}
    head = CodeHead(width=5, temperature=float(arrays["cfg/hub_temp"]), codes=(6, 4))
    kernel = arrays["param/hub_final_proj.weight"].T
    bias, embeddings = arrays["param/hub_final_proj.bias"], arrays["param/hub_label_embs_concat"]
    targets = [arrays["in/hub_target0"], arrays["in/hub_target1"]]

    def losses(x, embeddings):
        params = {
            "project0": {"kernel": kernel[:, :5], "bias": bias[:5]},
            "project1": {"kernel": kernel[:, 5:], "bias": bias[5:]},
            "codes0": embeddings[:6],
            "codes1": embeddings[6:],
        }
        sets = head.apply({"params": params}, x[None, :, :], None, None, 6)["sets"]
        logs = [jax.nn.log_softmax(logits[0]) for logits in sets]
        sums = [
            -jnp.take_along_axis(log, t[:, None], 1).sum()
            for log, t in zip(logs, targets, strict=True)
        ]
        return sum(sums) / 7, sums

    x = arrays["in/hub_x"]
    grad = jax.jit(jax.value_and_grad(losses, argnums=(0, 1), has_aux=True))
    (loss, sums), (dx, de) = grad(x, embeddings)
    close(loss, arrays["out/hub_loss"])
    for i in range(2):
        close(sums[i], arrays[f"out/hub_loss_sum{i}"])
    close(dx, arrays["grad/hub_x"], 1e-4)
    close(de, arrays["grad/hub_label_embs_concat"], 1e-4)


def test_linear_head_and_refusals(patches):
    head = CodeHead(scores="linear", dtype="float32")
    out, variables = head.init_with_output(jax.random.key(0), patches, GRID, None, 7)
    params = variables["params"]["project0"]
    close(out["prediction"], patches @ params["kernel"] + params["bias"][None, None, :])
    assert set(variables["params"]) == {"project0"}
    with pytest.raises(UserError, match="'cosine' or 'linear'"):
        CodeHead(scores="cos").init(jax.random.key(0), patches, GRID, None, 7)
    with pytest.raises(UserError, match="first set has 6 codes but the first target 7"):
        CodeHead(codes=(6, 4)).init(jax.random.key(0), patches, GRID, None, 7)


def test_positions_are_the_formula(patches):
    layer = ConvolutionalPositions(kernel=4, groups=2)
    params = jax.jit(layer.init)(jax.random.key(1), patches)["params"]
    drawn = np.asarray(params["direction"], np.float64)  # [4, 3, 6]
    np.testing.assert_allclose(params["scale"], np.sqrt((drawn**2).sum(axis=(1, 2))), rtol=1e-6)
    params = params | {"scale": jnp.arange(1.0, 5.0), "bias": jnp.arange(6.0)}
    x = np.pad(np.asarray(patches, np.float64), ((0, 0), (2, 1), (0, 0)))
    y = np.zeros((2, 12, 6)) + np.arange(6.0)
    for tap in range(4):
        kernel = drawn[tap] * (1.0 + tap) / np.sqrt((drawn[tap] ** 2).sum())
        for group in range(2):
            own = slice(3 * group, 3 * group + 3)
            y[:, :, own] += x[:, tap : tap + 12, own] @ kernel[:, own]
    expected = np.asarray(jax.nn.gelu(jnp.asarray(y, jnp.float32), approximate=False))
    actual = jax.jit(layer.apply)({"params": params}, patches)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_hidden_frames_have_no_influence(patches, norm):
    encoder = dataclasses.replace(SMALL, norm=norm)
    hidden = np.zeros((2, 12), bool)
    hidden[0, 3:6] = hidden[1, 7:10] = True
    params = init(encoder, patches)
    apply = jax.jit(lambda p: encoder.apply(params, p, GRID, mask_of(hidden)))
    out = apply(patches)
    changed = apply(jnp.where(jnp.asarray(hidden)[:, :, None], 9.0, patches))
    np.testing.assert_array_equal(out["tokens"], changed["tokens"])
    seen = apply(jnp.where(jnp.asarray(hidden)[:, :, None], patches, 9.0))
    assert not np.allclose(out["tokens"], seen["tokens"])
    assert out["tokens"].shape == (2, 12, 16) and len(out["blocks"]) == 2
    close(out["mean"], np.asarray(out["tokens"]).mean(axis=1))
    last = out["blocks"][1]
    if norm == "post":  # the last norm is in the last block
        np.testing.assert_array_equal(last, out["tokens"])
    moments = np.asarray(out["tokens"])
    np.testing.assert_allclose(moments.mean(axis=-1), 0, atol=1e-5)


def test_scan_and_remat_change_nothing(patches):
    params = init(SMALL, patches)
    scanned = dataclasses.replace(SMALL, scan=True, remat="full")
    apply = jax.jit(
        lambda encoder: encoder.apply(params, patches, GRID)["tokens"], static_argnums=0
    )
    close(apply(scanned), apply(SMALL))


@pytest.mark.parametrize("scan", [False, True])
def test_dropping_is_of_training_alone(patches, scan):
    encoder = dataclasses.replace(SMALL, dropout=0.2, layer_drop=0.5, scan=scan)
    params = init(encoder, patches)
    apply = jax.jit(lambda rngs: encoder.apply(params, patches, GRID, rngs=rngs)["tokens"])
    plain = apply(None)
    close(plain, jax.jit(lambda: SMALL.apply(params, patches, GRID)["tokens"])())
    first, again, other = (apply({"dropout": jax.random.key(i)}) for i in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other) and not np.allclose(first, plain)
    always = dataclasses.replace(encoder, dropout=0.0, layer_drop=1.0)
    out = jax.jit(lambda r: always.apply(params, patches, GRID, rngs={"dropout": r}))(
        jax.random.key(0)
    )
    np.testing.assert_array_equal(out["tokens"], out["embedded"])


def test_waveform_front_end():
    """N x 320 samples give N frames of 400 samples in sight, by the formula in float64."""
    front = WaveformFrontEnd(width=3)
    samples = jax.random.normal(jax.random.key(0), (2, 640))
    out, params = jax.jit(front.init_with_output)(jax.random.key(1), samples)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    x = np.pad(np.asarray(samples, np.float64), ((0, 0), (40, 40)))[:, :, None]
    in_sight = 1
    for i, (kernel, stride) in enumerate(WAVEFORM_LAYERS):
        count = (x.shape[1] - kernel) // stride + 1
        windows = np.stack([x[:, t * stride : t * stride + kernel] for t in range(count)], axis=1)
        x = np.einsum("btkc,kcd->btd", windows, p[f"conv{i}"]["kernel"])
        if i == 0:
            variance = x.var(axis=1, keepdims=True)
            x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(variance + 1e-5)
        x = np.asarray(gelu(jnp.asarray(x, jnp.float32)), np.float64)
    for kernel, stride in reversed(WAVEFORM_LAYERS):
        in_sight = (in_sight - 1) * stride + kernel
    assert in_sight == 400 and x.shape == (2, 2, 3)
    np.testing.assert_allclose(out, x, rtol=1e-4, atol=1e-5)


def test_gradient_into_the_front_end_is_scaled():
    value, grad = jax.value_and_grad(lambda x: (_scale_gradient(x, 0.1) ** 2).sum())(jnp.ones(3))
    np.testing.assert_allclose((value, *grad), (3.0, 0.2, 0.2, 0.2), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "grid", "message"),
    [
        (dict(front="mel"), GRID, "'linear' or 'waveform'"),
        (dict(norm="none"), GRID, "'post' or 'pre'"),
        (dict(norm="pre", dropout=0.1), GRID, "drops only with norm='post'"),
        (dict(position_groups=5), GRID, "not divisible by 5 position groups"),
        (dict(front="waveform"), GRID, "token of 320 samples"),
        (dict(), TokenGrid((6, 2), (2, 2), 1), "along time alone"),
    ],
)
def test_refusals(patches, change, grid, message):
    encoder = dataclasses.replace(SMALL, **change)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda: encoder.init(jax.random.key(0), patches, grid))
