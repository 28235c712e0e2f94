"""Point-MAE's networks agree with the numbers of the original implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.models.point_mae import PointDecoder, PointEncoder
from maskjax.objectives.chamfer import Chamfer
from point_mae_names import ENCODER, mask_of, params, statistics


def close(actual, expected, rtol):
    np.testing.assert_allclose(
        np.asarray(actual), expected, rtol=rtol, atol=rtol * np.abs(expected).max()
    )


def networks(scan=False):
    options = dict(width=32, heads=2, dtype="float32", drop_path=0.0, scan=scan)
    return (
        PointEncoder(depth=2, embed_hidden=(16, 32, 64), **options),
        PointDecoder(depth=1, **options),
    )


@pytest.fixture(scope="module")
def reference(golden):
    return golden("point_mae")


def run(params, reference, scan=False):
    """Returns the outputs of a training pass and the renewed statistics."""
    encoder, decoder = networks(scan)
    centres = jnp.asarray(reference["out/center"])
    mask = mask_of(reference)
    encoded, updated = encoder.apply(
        {"params": params["encoder"], "batch_stats": statistics(reference, "param/")},
        jnp.asarray(reference["out/neighborhood"]),
        centres,
        mask,
        mutable=["batch_stats"],
    )
    decoded = decoder.apply({"params": params["decoder"]}, encoded["tokens"], centres, mask, 8)
    target = jnp.asarray(reference["out/target_points"]).reshape(2, 9, 8, 3)
    out = {"encoder": encoded, "decoder": decoded, "targets": {"points": target}}
    return out, updated["batch_stats"]


def test_the_mask_keeps_the_order_of_the_groups(reference):
    mask = mask_of(reference)
    np.testing.assert_array_equal(mask.is_masked, reference["in/mask"])
    np.testing.assert_array_equal(mask.drop, np.sort(mask.drop, axis=1))


@pytest.mark.parametrize("scan", [False, True])
def test_outputs_agree(reference, scan):
    out, stats = jax.jit(lambda tree: run(tree, reference, scan))(params(reference))
    close(out["encoder"]["embedded"], reference["out/tokens_train"], 1e-5)
    close(out["encoder"]["tokens"], reference["out/latent_vis"], 1e-5)
    close(out["decoder"]["prediction"].reshape(18, 8, 3), reference["out/rebuild_points"], 1e-5)
    value = Chamfer()(out, {})
    close(value.total / value.count, reference["out/loss"], 1e-5)
    jax.tree.map(lambda a, b: close(a, b, 1e-5), stats, statistics(reference, "out/after/"))


def test_evaluation_uses_the_running_statistics(reference):
    encoder, _ = networks()
    variables = {
        "params": params(reference)["encoder"],
        "batch_stats": statistics(reference, "out/after/"),
    }
    out = encoder.apply(
        variables, jnp.asarray(reference["out/neighborhood"]), jnp.asarray(reference["out/center"])
    )
    close(out["embedded"], reference["out/tokens_eval_after_one_train_step_stats"], 1e-5)
    assert out["tokens"].shape == (2, 16, 32)
    assert out["mean"].shape == out["max"].shape == (2, 32)


def test_gradients_agree(reference):
    def loss(tree):
        value = Chamfer()(run(tree, reference)[0], {})
        return value.total / value.count

    tree = jax.jit(jax.grad(loss))(params(reference))
    encoder, decoder = tree["encoder"], tree["decoder"]
    attention = encoder["stack"]["blocks"]["attention"]
    named = {
        "mask_token": decoder["mask_token"].reshape(1, 1, -1),
        f"{ENCODER}first_conv.0.weight": encoder["embed"]["first_up"]["kernel"].T[:, :, None],
        f"{ENCODER}second_conv.3.weight": encoder["embed"]["second_down"]["kernel"].T[:, :, None],
        "MAE_encoder.pos_embed.0.weight": encoder["positions"]["up"]["kernel"].T,
        "decoder_pos_embed.2.weight": decoder["positions"]["down"]["kernel"].T,
        "MAE_encoder.blocks.blocks.0.attn.qkv.weight": np.concatenate(
            [attention[part]["kernel"][0].T for part in ("query", "key", "value")]
        ),
        "increase_dim.0.weight": decoder["head"]["kernel"].T[:, :, None],
    }
    expected = {k.removeprefix("grad/"): v for k, v in reference.items() if k.startswith("grad/")}
    assert named.keys() == expected.keys()
    for name, gradient in expected.items():
        close(named[name], gradient, 1e-4)
