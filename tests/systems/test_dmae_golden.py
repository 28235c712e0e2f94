"""DMAE agrees with the numbers of the original implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import torch_names
from maskjax.masking import Uniform, mask_from_scores
from maskjax.models import Projection
from maskjax.objectives import FeatureRegression, MaskedRegression
from maskjax.systems import MaskedAutoencoder
from maskjax.systems.teacher import FrozenTeacher
from maskjax.targets import Pixels
from teacher_goldens import (
    INPUTS,
    check_named,
    close,
    decoder,
    encoder,
    encoder_params,
    global_norm,
    gradients,
    images,
    params,
)


def system(error):
    return MaskedAutoencoder(
        encoder=encoder(24, 2),
        decoder=decoder(16),
        mask=Uniform(0.75),
        heads={"projection": Projection("encoder.blocks.0", 32, dtype="float32")},
        teachers={"teacher": FrozenTeacher(encoder(32, 3), masked=True)},
        targets={"pixels": Pixels()},
        terms={
            "reconstruction": MaskedRegression("decoder.prediction", "targets.pixels"),
            "distillation": FeatureRegression(
                "heads.projection.prediction",
                "teachers.teacher.blocks.1",
                tokens="visible",
                class_token=True,
                error=error,
                normalise="l2",
            ),
        },
        inputs=INPUTS,
    )


@pytest.fixture(scope="module")
def reference(golden):
    return golden("dmae")


@pytest.fixture(scope="module")
def inputs(reference):
    heads = "param/student/aligned_feature_projection_heads.0"
    projection = {
        "kernel": reference[f"{heads}.weight"].T,
        "bias": reference[f"{heads}.bias"],
    }
    student = params(reference, "param/student/")
    variables = {
        "params": {**student, "heads": {"projection": {"linear": projection}}},
        "teacher": {"teacher": encoder_params(reference, "param/teacher/")},
    }
    masks = {"image": mask_from_scores(jnp.asarray(reference["in/noise"]), 4)}
    return variables, images(reference), masks


def test_mask_blocks_prediction_and_squared_error(reference, inputs):
    mask = inputs[2]["image"]
    np.testing.assert_array_equal(mask.keep, reference["out/ids_keep"])
    np.testing.assert_array_equal(mask.restore, reference["out/ids_restore"])
    l2 = system("l2")
    out = jax.jit(l2.forward)(*inputs)
    value = l2.terms["distillation"](out, inputs[1])
    # The reference's mean squared error is over the same l2-normalised features.
    close(value.total / value.count, reference["out/loss_distill_L2"], 1e-5)
    close(out["encoder"]["blocks"][0], reference["out/student_block_out"], 1e-5)
    close(out["encoder"]["tokens"], reference["out/student_latent"], 1e-5)
    close(out["teachers"]["teacher"]["blocks"][1], reference["out/teacher_block_out"], 1e-5)
    close(out["teachers"]["teacher"]["tokens"], reference["out/teacher_latent"], 1e-5)
    close(out["decoder"]["prediction"], reference["out/pred"], 1e-5)


def test_losses_and_gradients(reference, inputs):
    loss, terms, grads = gradients(system("l1"), *inputs)
    close(terms["reconstruction"], reference["out/loss_recon"], 1e-5)
    close(terms["distillation"], reference["out/loss_distill_L1"], 1e-5)
    close(loss, reference["out/loss_total"], 1e-5)
    close(global_norm(grads), reference["out/grad_global_norm"], 1e-4)
    named = torch_names.mae_names(grads, patch=8)
    kernel = grads["heads"]["projection"]["linear"]["kernel"]
    named["aligned_feature_projection_heads.0.weight"] = kernel.T
    check_named(named, reference, "grad/")
