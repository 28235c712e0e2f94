"""Predicting the error of the reconstruction: HPM's two losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.masking import mask_from_indices
from maskjax.objectives import ErrorPrediction
from maskjax.objectives.ranking import pairwise_ranking, standardised_error


@pytest.mark.parametrize(
    ("form", "function"), [("relative", pairwise_ranking), ("absolute", standardised_error)]
)
def test_the_published_losses_with_ties(golden, form, function):
    arrays = golden("hpm")
    scores, errors = (jnp.asarray(arrays[f"in/rel/loss_{kind}"]) for kind in ("pred", "target"))
    totals, counts = function(scores, errors)
    np.testing.assert_allclose(totals.sum() / counts.sum(), arrays[f"out/rel/{form}"], rtol=1e-5)
    assert form == "absolute" or counts[0] < 6 * 5  # the ties of the first row


def test_right_order_is_better_than_wrong_order():
    errors = jnp.asarray([[1.0, 2.0, 3.0]])
    right, wrong = (pairwise_ranking(sign * errors, errors)[0][0] for sign in (1, -1))
    assert right < 6 * np.log(2) < wrong


def test_gradients_are_finite_where_a_probability_is_rounded_to_0_or_1():
    scores = jnp.asarray([[0.0, 200.0, -200.0]])
    gradient = jax.grad(lambda s: pairwise_ranking(s, jnp.asarray([[1.0, 1.0, 5.0]]))[0].sum())
    assert np.isfinite(gradient(scores)).all()


def outputs():
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return {
        "masks": {"image": mask_from_indices(jnp.asarray([[0, 3], [5, 1]]), 6)},
        "scores": normal(2, 6),
        "prediction": normal(2, 6, 4),
        "target": normal(2, 6, 4),
    }


def test_only_masked_tokens_of_real_examples_count():
    out = outputs()
    term = ErrorPrediction("scores", "prediction", "target")
    value = term(out, {})
    assert value.count == 2 * 4 * 3
    visible = jnp.where(out["masks"]["image"].is_masked, out["scores"], 100.0)
    np.testing.assert_allclose(term({**out, "scores": visible}, {}).total, value.total)
    alone = term(jax.tree.map(lambda x: x[:1], out), {})
    first = term(out, {"_mask": jnp.asarray([True, False])})
    np.testing.assert_allclose(first.total, alone.total, rtol=1e-6)
    assert first.count == alone.count == 4 * 3


@pytest.mark.parametrize("form", ["relative", "absolute"])
def test_the_reconstruction_learns_nothing_from_it(form):
    out = outputs()
    term = ErrorPrediction("scores", "prediction", "target", form=form)
    total = lambda out: term(out, {}).total  # noqa: E731
    grads = jax.grad(lambda s, p: total({**out, "scores": s, "prediction": p}), (0, 1))(
        out["scores"], out["prediction"]
    )
    assert np.abs(grads[0]).max() > 0
    assert np.abs(grads[1]).max() == 0


def test_refusals():
    with pytest.raises(UserError, match="relative, absolute"):
        ErrorPrediction("scores", "prediction", "target", form="ranked")
    with pytest.raises(UserError, match="one score per token"):
        ErrorPrediction("prediction", "prediction", "target")(outputs(), {})
