"""Options of the encoder that MAE does not have: BEiT's and VideoMAE's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.masking import mask_from_indices
from maskjax.models import LinearHead, MAEDecoder, VideoDecoder, ViT
from maskjax.tokens import TokenGrid, sinusoid_flat

GRID = TokenGrid((2, 3), (2, 2), 1)
SMALL = dict(patch_size=(2, 2), width=16, depth=1, heads=2, dtype="float32")
BEIT = dict(positions="none", relative_bias=True, bias="qv", layer_scale=0.5)
PATCHES = jax.random.normal(jax.random.key(0), (2, 6, 4))
MASK = mask_from_indices(jnp.array([[4, 1, 0], [2, 5, 3]]), 6)
HIDDEN = np.asarray(MASK.is_masked)


def encoder(grid=GRID, **options):
    """Returns apply(patches, mask), jitted, and the parameters, all of them random."""
    vit = ViT(**SMALL | options)
    variables = jax.jit(lambda: vit.init(jax.random.key(1), jnp.zeros((1, 6, 4)), grid))()
    noise = np.random.default_rng(2)
    variables = jax.tree.map(
        lambda a: a + 0.3 * noise.normal(size=a.shape).astype(np.float32), variables
    )
    params = jax.tree.map(np.asarray, variables["params"])
    return jax.jit(lambda x, mask=None: vit.apply(variables, x, grid, mask)), params


def test_without_class_token():
    apply, params = encoder(class_token=False)
    out = apply(PATCHES, MASK)
    assert "cls" not in out
    assert "cls" not in params
    assert out["tokens"].shape == out["patches"].shape == out["input"].shape == (2, 3, 16)
    np.testing.assert_allclose(out["mean"], out["tokens"].mean(axis=1), rtol=1e-5, atol=1e-6)


def test_flat_positions_are_added():
    apply, params = encoder(positions="flat")
    embed = params["embed"]
    expected = np.asarray(PATCHES) @ embed["kernel"] + embed["bias"] + sinusoid_flat(6, 16)
    np.testing.assert_allclose(apply(PATCHES)["embedded"], expected, rtol=1e-5, atol=1e-5)


def test_a_mask_token_stands_at_hidden_places():
    apply, params = encoder(mask_token=True)
    seen, masked = apply(PATCHES), apply(PATCHES, MASK)
    assert masked["patches"].shape == (2, 6, 16)
    np.testing.assert_array_equal(masked["embedded"][~HIDDEN], seen["embedded"][~HIDDEN])
    difference = masked["embedded"][0] - seen["embedded"][0]
    assert (np.abs(difference).max(axis=-1) > 0).tolist() == HIDDEN[0].tolist()
    # Where the positions are the same, so is what stands there: token + position.
    swap = mask_from_indices(jnp.array([[4, 1, 0], [4, 1, 0]]), 6)
    same = apply(PATCHES, swap)["embedded"]
    np.testing.assert_array_equal(same[0][HIDDEN[0]], same[1][HIDDEN[0]])
    assert np.abs(params["mask_token"]).max() > 0


@pytest.mark.parametrize("class_token", [False, True])
def test_relative_bias_follows_the_tokens_that_are_there(class_token):
    apply, _ = encoder(class_token=class_token, **BEIT)
    every = apply(PATCHES)["patches"]
    order = jnp.array([[3, 1, 0, 5, 4, 2]] * 2)
    turned = apply(PATCHES, mask_from_indices(order, 6))["patches"]
    np.testing.assert_allclose(turned, every[:, order[0]], rtol=1e-4, atol=1e-5)
    # Without positions, only the bias can tell places apart.
    moved = apply(PATCHES[:, order[0]])["patches"]
    assert np.abs(moved - every[:, order[0]]).max() > 1e-2


@pytest.mark.parametrize("scan", [False, True])
def test_blocks_may_have_a_relative_bias_each(scan):
    options = SMALL | BEIT | dict(depth=2)
    shared = ViT(**options)
    own = ViT(**options | dict(relative_bias=False, block_bias=True, scan=scan))
    variables = jax.jit(lambda: shared.init(jax.random.key(1), PATCHES, GRID))()
    tables = np.random.default_rng(2).normal(size=(2, 18, 2)).astype(np.float32)

    def with_tables(shared_table, own_tables):
        params = jax.tree.map(lambda x: x, dict(variables["params"]))
        if shared_table is not None:
            return {"params": params | {"relative_bias": {"table": shared_table}}}
        del params["relative_bias"]
        blocks = params["stack"]["blocks"] | {"relative_bias": {"table": own_tables}}
        return {"params": params | {"stack": {"blocks": blocks}}}

    fresh = jax.eval_shape(lambda: own.init(jax.random.key(1), PATCHES, GRID))
    assert jax.tree.structure(fresh) == jax.tree.structure(with_tables(None, tables))
    assert fresh["params"]["stack"]["blocks"]["relative_bias"]["table"].shape == (2, 18, 2)
    apply = jax.jit(lambda v: own.apply(v, PATCHES, GRID, MASK)["tokens"])
    equal = with_tables(None, np.stack([tables[0]] * 2))
    expected = shared.apply(with_tables(tables[0], None), PATCHES, GRID, MASK)["tokens"]
    np.testing.assert_allclose(apply(equal), expected, rtol=1e-5, atol=1e-5)
    different = apply(with_tables(None, tables))
    assert np.abs(different - expected).max() > 1e-2
    # The order of the tables is that of the blocks, and all of them have a gradient.
    assert np.abs(different - apply(with_tables(None, tables[::-1].copy()))).max() > 1e-3
    gradient = jax.jit(jax.grad(lambda x: (apply(with_tables(None, x)) ** 3).sum()))(tables)
    assert (np.abs(gradient).max(axis=(1, 2)) > 0).all()


def test_relative_bias_of_another_grid_is_refused():
    vit = ViT(**SMALL | BEIT)
    other = TokenGrid((3, 2), (2, 2), 1)
    with pytest.raises(UserError, match="2x3 tokens here, not 3x2"):
        jax.eval_shape(
            lambda: vit.init(jax.random.key(0), jnp.zeros((1, 6, 4)), other, trained=GRID)
        )


def test_drop_path_needs_the_dropout_stream():
    vit = ViT(**SMALL | dict(depth=2), drop_path=0.9)
    params = jax.jit(lambda: vit.init(jax.random.key(1), PATCHES, GRID))()
    plain, dropped = (
        jax.jit(lambda rngs: vit.apply(params, PATCHES, GRID, rngs=rngs))(rngs)["tokens"]
        for rngs in ({}, {"dropout": jax.random.key(2)})
    )
    assert np.abs(plain - dropped).max() > 1e-3


def test_unknown_positions_are_refused():
    with pytest.raises(UserError, match="sincos, flat, learned, none"):
        jax.eval_shape(
            lambda: ViT(**SMALL, positions="learnt").init(jax.random.key(0), PATCHES, GRID)
        )


def test_orders_of_the_linear_head_differ_by_a_permutation_within_the_patch():
    grid = TokenGrid((2, 3), (2, 2), 3)
    tokens = jax.random.normal(jax.random.key(0), (2, 7, 8))

    def predict(order):
        head = LinearHead(order=order, dtype="float32")
        variables = head.init(jax.random.key(1), tokens, grid, MASK, 12)
        return head.apply(variables, tokens, grid, MASK, 12)["prediction"]

    patch, slowest = predict("patch"), predict("channel_slowest")
    assert patch.shape == (2, 6, 12)
    expected = patch.reshape(2, 6, 3, 4).swapaxes(2, 3).reshape(2, 6, 12)
    np.testing.assert_array_equal(slowest, expected)


@pytest.mark.parametrize(
    ("decoder", "tokens", "outputs", "words"),
    [
        (LinearHead(), 4, 12, "left 2 of 6 out: set system.encoder.mask_token"),
        (LinearHead(order="row"), 7, 12, "order must be one of"),
        (LinearHead(order="channel_slowest"), 7, 10, "order=patch"),
        (VideoDecoder(16, 1, 2), 4, 4, "system.encoder.class_token=False"),
        (MAEDecoder(16, 1, 2), 3, 4, "leave system.encoder.class_token=True"),
        (MAEDecoder(16, 1, 2), 7, 4, "mask_token=False"),
    ],
)
def test_decoders_refuse_encoders_that_do_not_fit(decoder, tokens, outputs, words):
    with pytest.raises(UserError, match=words):
        jax.eval_shape(
            lambda: decoder.init(jax.random.key(0), jnp.zeros((2, tokens, 8)), GRID, MASK, outputs)
        )


def test_a_video_decoder_predicts_what_is_shown():
    grid = TokenGrid((2, 2, 2), (1, 2, 2), 1)
    mask = mask_from_indices(jnp.array([[6, 1], [0, 3]]), 8)
    shown = mask_from_indices(jnp.array([[7, 1, 2, 4], [5, 4, 0, 1]]), 8)
    tokens = jax.random.normal(jax.random.key(0), (2, 2, 8))
    decoder = VideoDecoder(16, 1, 2, dtype="float32")
    params = jax.jit(lambda: decoder.init(jax.random.key(1), tokens, grid, mask, 4))()
    apply = jax.jit(lambda *masks: decoder.apply(params, tokens, grid, masks[0], 4, *masks[1:]))
    for out, places in ((apply(mask), mask.drop), (apply(mask, shown), shown.keep)):
        for i in range(2):
            placed = np.asarray(out["prediction"][i])
            np.testing.assert_array_equal(placed[places[i]], out["shown"][i])
            rest = np.setdiff1d(np.arange(8), places[i])
            assert (placed[rest] == 0).all()
            assert (placed[places[i]] != 0).any(axis=-1).all()
