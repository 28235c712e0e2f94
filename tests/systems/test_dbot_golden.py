"""dBOT agrees with the numbers of the original implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import torch_names
from maskjax.masking import Uniform, mask_from_scores
from maskjax.objectives import FeatureRegression
from maskjax.systems import MaskedAutoencoder
from maskjax.systems.teacher import FrozenTeacher
from maskjax.targets import Features
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

# The teacher of a later stage, and that of the first one for large models: no blocks at all.
TAPS = {"teacher": "teachers.teacher.output", "teacher0": "teachers.teacher.input"}


def system(teacher, normalise):
    return MaskedAutoencoder(
        encoder=encoder(32, 2),
        decoder=decoder(24),
        mask=Uniform(0.75),
        teachers={"teacher": FrozenTeacher(encoder(32, 2))},
        targets={
            "features": Features(TAPS[teacher], 32, normalise=normalise, class_token=True),
        },
        terms={
            "distillation": FeatureRegression(
                "decoder.with_cls",
                "targets.features",
                class_token=True,
                error="smooth_l1",
                beta=2.0,
            )
        },
        inputs=INPUTS,
    )


@pytest.fixture(scope="module")
def reference(golden):
    return golden("dbot")


def arguments(reference, teacher):
    own = {k: v for k, v in reference.items() if k.startswith(f"param/{teacher}/")}
    if teacher == "teacher0":  # it has no blocks; those of the other are never read
        blocks = [k for k in reference if k.startswith("param/teacher/blocks")]
        own |= {k.replace("teacher", "teacher0", 1): reference[k] for k in blocks}
    variables = {
        "params": params(reference, "param/student/"),
        "teacher": {"teacher": encoder_params(own, f"param/{teacher}/")},
    }
    masks = {"image": mask_from_scores(jnp.asarray(reference["in/noise"]), 4)}
    return variables, images(reference), masks


@pytest.mark.parametrize("teacher", TAPS)
def test_prediction_features_and_losses(reference, teacher):
    inputs = arguments(reference, teacher)
    dbot = system(teacher, None)
    out = jax.jit(dbot.forward)(*inputs)
    np.testing.assert_array_equal(inputs[2]["image"].restore, reference["out/ids_restore"])
    close(out["encoder"]["tokens"], reference["out/latent"], 1e-5)
    close(out["decoder"]["with_cls"], reference["out/pred"], 1e-5)
    close(out["targets"]["features"], reference[f"out/{teacher}_features_ln0"], 1e-5)
    if teacher == "teacher":
        close(out["teachers"]["teacher"]["tokens"], reference["out/teacher_features_ln1"], 1e-5)
    term = dbot.terms["distillation"]
    np.testing.assert_array_equal(term.per_token(out)[1], reference["out/mask_with_cls"])
    for number, normalise in enumerate((None, "standardise")):
        target = system(teacher, normalise).targets["features"](out, dbot.grid)
        value = term({**out, "targets": {"features": target}}, inputs[1])
        expected = reference[f"out/{teacher}_normfeat{number}/loss"]
        close(value.total / value.count, expected, 1e-5)


@pytest.mark.parametrize(
    ("name", "normalise"),
    [("teacher_normfeat1", "standardise"), ("teacher0_normfeat0", None)],
)
def test_gradients(reference, name, normalise):
    teacher = name.partition("_")[0]
    loss, _, grads = gradients(system(teacher, normalise), *arguments(reference, teacher))
    close(loss, reference[f"out/{name}/loss"], 1e-5)
    close(global_norm(grads), reference[f"out/{name}/grad_global_norm"], 1e-4)
    named = torch_names.mae_names(grads, patch=8)
    named["decoder_predp.bias"] = named["decoder_pred.bias"]
    check_named(named, reference, f"grad/{name}/")
