"""I-JEPA agrees with the numbers of the original implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import torch_names
from maskjax.data import Image
from maskjax.masking import MultiBlock
from maskjax.masking.multiblock import rectangles
from maskjax.models import Predictor, ViT
from maskjax.objectives import FeatureSpread, WeightedRegression
from maskjax.systems import JointEmbedding, Momentum
from maskjax.tokens import sincos
from maskjax.training.gradients import loss_and_gradients


def close(actual, expected, rtol):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=rtol, atol=rtol * scale)


@pytest.fixture(scope="module")
def reference(golden):
    return golden("ijepa")


def make_system(arrays, **mask):
    cfg = {k.removeprefix("cfg/"): v.item() for k, v in arrays.items() if k.startswith("cfg/")}
    size, patch = cfg["img"], cfg["patch"]
    return JointEmbedding(
        encoder=ViT(
            (patch, patch),
            cfg["dim"],
            cfg["depth"],
            cfg["heads"],
            class_token=False,
            dtype="float32",
        ),
        predictor=Predictor(cfg["pred_dim"], cfg["pred_depth"], cfg["pred_heads"], dtype="float32"),
        mask=MultiBlock(min_keep=cfg["mask8_min_keep"], to_shortest=True, **mask),
        momentum=Momentum(0.996, 1.0, "linear"),
        terms={
            "prediction": WeightedRegression(
                "predictor.prediction",
                "targets.blocks",
                "masks.image.target_weight",
                error="smooth_l1",
            ),
            "spread": FeatureSpread("teachers.average.encoder.mean"),
        },
        # Pixels in [0, 255] of mean 0 and standard deviation 1/255 of the range: the identity.
        inputs={"image": Image(size=(size, size), mean=(0.0,) * 3, std=(1 / 255,) * 3)},
    )


def encoder_params(arrays, prefix):
    get = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    return {
        "embed": torch_names.patch_embed(get),
        "stack": {"blocks": torch_names.blocks(get, "blocks.")},
        "norm": torch_names.norm(get, "norm"),
    }


def predictor_params(arrays, prefix="param/predictor."):
    get = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    return {
        "embed": torch_names.dense(get, "predictor_embed"),
        "mask_token": get["mask_token"].reshape(1, -1),
        "stack": {"blocks": torch_names.blocks(get, "predictor_blocks.")},
        "norm": torch_names.norm(get, "predictor_norm"),
        "head": torch_names.dense(get, "predictor_proj"),
    }


def names(params, patch):
    encoder, predictor = params["encoder"], params["predictor"]
    return {
        **{
            f"encoder.{k}": v
            for k, v in torch_names.patch_embed_names(encoder["embed"], patch).items()
        },
        **torch_names.blocks_names(encoder["stack"]["blocks"], "encoder.blocks."),
        **torch_names.module_names(encoder["norm"], "encoder.norm"),
        "predictor.mask_token": np.reshape(predictor["mask_token"], (1, 1, -1)),
        **torch_names.blocks_names(predictor["stack"]["blocks"], "predictor.predictor_blocks."),
        **torch_names.module_names(predictor["head"], "predictor.predictor_proj"),
    }


@pytest.fixture(scope="module")
def inputs(reference):
    system = make_system(reference)
    boxes = jnp.asarray(reference["mask8/in/blocks/0"])
    maps = rectangles(boxes[..., :4], system.grid.shape)
    context = maps[:, 4] & ~maps[:, :4].any(axis=1)
    masks = {"image": system.mask.assemble(context, maps[:, :4], system.grid)}
    variables = {
        "params": {
            "encoder": encoder_params(reference, "param/encoder."),
            "predictor": predictor_params(reference),
        },
        "teacher": {"average": {"encoder": encoder_params(reference, "param/target_encoder.")}},
    }
    batch = {"image": jnp.asarray(reference["in/images"].transpose(0, 2, 3, 1))}
    return jax.tree.map(jnp.asarray, variables), batch, masks


@pytest.fixture(scope="module")
def out(reference, inputs):
    return jax.jit(make_system(reference).forward)(*inputs)


def test_positions_and_masks(reference, inputs):
    np.testing.assert_allclose(
        sincos((8, 8), 32), reference["param/encoder.pos_embed"][0], atol=1e-6
    )
    table = reference["param/predictor.predictor_pos_embed"][0]
    np.testing.assert_allclose(sincos((8, 8), 16), table, atol=1e-6)
    masks = inputs[2]["image"]
    context, targets = reference["in/masks_enc"][0], reference["in/masks_pred"].transpose(1, 0, 2)
    np.testing.assert_array_equal(masks.context[:, : context.shape[1]], context)
    np.testing.assert_array_equal(masks.context_weight.sum(axis=1), context.shape[1])
    np.testing.assert_array_equal(masks.targets[:, :, : targets.shape[2]], targets)
    np.testing.assert_array_equal(masks.target_weight.sum(axis=2), targets.shape[2])


def test_context_although_the_list_is_filled_up(reference, out):
    expected = reference["out/context"]
    assert out["encoder"]["patches"].shape[1] > expected.shape[1]
    close(out["encoder"]["patches"][:, : expected.shape[1]], expected, 1e-5)
    close(out["encoder"]["mean"], expected.mean(axis=1), 1e-5)


def test_targets(reference, out):
    teacher = out["teachers"]["average"]["encoder"]["patches"]
    close(teacher, reference["out/target_full_prenorm"], 1e-5)
    close(out["targets"]["features"], reference["out/target_full"], 1e-5)
    expected = blocks(reference["out/target"])
    close(out["targets"]["blocks"][:, :, : expected.shape[2]], expected, 1e-5)


def blocks(x):
    """Block-major [T * B, M, D] -> [B, T, M, D]."""
    return x.reshape(4, 2, *x.shape[1:]).transpose(1, 0, 2, 3)


def test_prediction(reference, out):
    expected = blocks(reference["out/pred"])
    close(out["predictor"]["prediction"][:, :, : expected.shape[2]], expected, 1e-5)


def test_loss_and_gradients(reference, inputs):
    system = make_system(reference)
    step = jax.jit(lambda *a: loss_and_gradients(system, *a, rngs={}))
    loss, grads, metrics, _ = step(*inputs)
    close(loss, reference["out/loss"], 1e-5)
    assert metrics["terms/prediction"] == loss
    assert 0 < metrics["terms/spread"] < 2
    named = names(grads, (4, 4))
    expected = {k.removeprefix("grad/"): v for k, v in reference.items() if k.startswith("grad/")}
    assert len(expected) == 7
    for name, gradient in expected.items():
        close(named[name], gradient, 1e-4)


def test_momentum(reference, inputs):
    system = make_system(reference)
    update = jax.jit(system.update)
    updated = update(inputs[0], 0.0)
    encoder = updated["teacher"]["average"]["encoder"]
    close(
        encoder["stack"]["blocks"]["attention"]["out"]["kernel"][0].T,
        reference["out/ema/blocks.0.attn.proj.weight"],
        1e-6,
    )
    close(encoder["norm"]["bias"], reference["out/ema/norm.bias"], 1e-6)
    end = update(inputs[0], 1.0)["teacher"]
    jax.tree.map(np.testing.assert_array_equal, end, inputs[0]["teacher"])
