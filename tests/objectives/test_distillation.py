"""Regression of a teacher's features at chosen tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.masking import mask_from_indices
from maskjax.objectives import FeatureRegression
from maskjax.objectives.distillation import feature_error
from maskjax.targets.features import NORMALISERS
from maskjax.tokens import take_tokens

B, N, K, D = 2, 6, 2, 4


def outputs():
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    mask = mask_from_indices(jnp.asarray([[3, 0], [5, 1]]), N)
    student, teacher = normal(B, N, D), normal(B, N, D)
    cls = normal(B, 1, D), normal(B, 1, D)
    return {
        "masks": {"image": mask},
        "student": student,
        "teacher": teacher,
        "seen": take_tokens(student, mask.keep),
        "seen_teacher": take_tokens(teacher, mask.keep),
        "student_cls": jnp.concatenate([cls[0], student], axis=1),
        "teacher_cls": jnp.concatenate([cls[1], teacher], axis=1),
    }


def mean(term, out, batch=None):
    value = term(out, batch or {})
    return float(value.total / value.count)


def test_errors_by_hand():
    difference = jnp.asarray([[0.5, -3.0]])
    zero = jnp.zeros_like(difference)
    assert feature_error(difference, zero, "l2")[0] == (0.25 + 9) / 2
    assert feature_error(difference, zero, "l1")[0] == 3.5 / 2
    # Quadratic below beta, and both branches meet there with equal slope.
    assert feature_error(difference, zero, "smooth_l1", beta=2.0)[0] == (0.25 / 4 + 2.0) / 2
    assert feature_error(difference, zero, "smooth_l1", beta=1.0)[0] == (0.125 + 2.5) / 2
    cosine = feature_error(jnp.asarray([[3.0, 4.0]]), jnp.asarray([[4.0, 3.0]]), "cosine")
    np.testing.assert_allclose(cosine, 1 - 24 / 25, rtol=1e-6)


@pytest.mark.parametrize("beta", [1, 2])
@pytest.mark.parametrize(
    ("name", "normalise"),
    [("unbiased_eps1e-6", "standardise"), ("layernorm_eps1e-5", "layer_norm")],
)
def test_formulas_of_maskdistill(golden, beta, name, normalise):
    """Computed from the paper's formulas, not by a reference: no faithful code is public."""
    arrays = golden("mim2_formulas")
    prediction, teacher, hidden = (
        jnp.asarray(arrays[f"in/maskdistill/{what}"]) for what in ("pred", "teacher", "mask")
    )
    errors = feature_error(prediction, NORMALISERS[normalise](teacher), "smooth_l1", float(beta))
    expected = arrays[f"out/maskdistill/{name}/beta{beta}"]
    np.testing.assert_allclose((errors * hidden).sum() / hidden.sum(), expected, rtol=1e-5)


@pytest.mark.parametrize(("tokens", "count"), [("masked", 8), ("visible", 4), ("all", 12)])
def test_places(tokens, count):
    out = outputs()
    term = FeatureRegression("student", "teacher", tokens=tokens)
    assert term(out, {}).count == count
    hidden = np.asarray(out["masks"]["image"].is_masked)
    chosen = {"masked": hidden, "visible": ~hidden, "all": hidden | True}[tokens]
    by_hand = np.asarray((out["student"] - out["teacher"]) ** 2).mean(-1)[chosen].mean()
    np.testing.assert_allclose(mean(term, out), by_hand, rtol=1e-6)


@pytest.mark.parametrize("pair", [("seen", "teacher"), ("student", "seen_teacher"),
                                  ("seen", "seen_teacher")])  # fmt: skip
def test_visible_tokens_are_compared_at_their_places_whatever_the_order(pair):
    out = outputs()
    expected = mean(FeatureRegression("student", "teacher", tokens="visible"), out)
    actual = mean(FeatureRegression(*pair, tokens="visible"), out)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_class_token_always_counts():
    out = outputs()
    term = FeatureRegression("student_cls", "teacher_cls", class_token=True)
    errors, weights = term.per_token(out)
    assert errors.shape == (B, 1 + N)
    np.testing.assert_array_equal(weights[:, 0], 1)
    np.testing.assert_array_equal(weights[:, 1:], out["masks"]["image"].is_masked)
    assert term(out, {}).count == B * (1 + N - K)
    assert term(out, {"_mask": jnp.asarray([False, True])}).count == 1 + N - K


def test_the_target_is_not_differentiated():
    out = outputs()
    term = FeatureRegression("student", "teacher", normalise="l2", error="l1")
    total = lambda s, t: term({**out, "student": s, "teacher": t}, {}).total  # noqa: E731
    student, teacher = jax.grad(total, (0, 1))(out["student"], out["teacher"])
    assert np.abs(student).max() > 0
    assert np.abs(teacher).max() == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(prediction="student", target="teachers.b"), "has no output 'teachers.b'"),
        (dict(prediction="student_cls", target="teacher"), "class_token"),
        (dict(prediction="seen", target="teacher"), "visible tokens only"),
        (dict(prediction="narrow", target="teacher"), "same D"),
    ],
)
def test_what_does_not_fit_is_one_sentence(arguments, words):
    out = outputs()
    out["narrow"] = out["student"][:, :, :2]
    with pytest.raises(UserError, match=words):
        FeatureRegression(**arguments)(out, {})


@pytest.mark.parametrize(
    "arguments", [dict(error="l3"), dict(tokens="some"), dict(normalise="max"), dict(beta=0.0)]
)
def test_unknown_options_are_refused(arguments):
    with pytest.raises(UserError):
        FeatureRegression("student", "teacher", **arguments)
