import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.masking import mask_from_indices
from maskjax.objectives import MaskedRegression
from maskjax.paths import get_path
from maskjax.targets import NormalisedPixels, Pixels
from maskjax.tokens import TokenGrid, take_tokens


def outputs():
    keys = jax.random.split(jax.random.key(0))
    return {
        "decoder": {"prediction": jax.random.normal(keys[0], (3, 4, 5))},
        "targets": {"pixels": jax.random.normal(keys[1], (3, 4, 5))},
        "masks": {"image": mask_from_indices(jnp.array([[0], [2], [3]]), 4)},
    }


def term(**options):
    return MaskedRegression("decoder.prediction", "targets.pixels", **options)


@pytest.mark.parametrize(
    ("error", "formula"),
    [
        ("l2", np.square),
        ("l1", np.abs),
        ("smooth_l1", lambda d: np.where(abs(d) < 1, d**2 / 2, abs(d) - 0.5)),
    ],
)
def test_only_masked_tokens_count(error, formula):
    out = outputs()
    difference = np.asarray(out["decoder"]["prediction"] - out["targets"]["pixels"])
    expected = formula(difference).mean(-1)[np.asarray(out["masks"]["image"].is_masked)]
    value = term(error=error)(out, {})
    assert float(value.count) == 9
    np.testing.assert_allclose(value.total / value.count, expected.mean(), rtol=1e-6)


@pytest.mark.parametrize("shown", [None, "masks.decoder"])
def test_masked_tokens_alone_may_have_a_prediction(shown):
    out = outputs()
    out["masks"]["decoder"] = mask_from_indices(jnp.array([[0, 1], [2, 3], [0, 1]]), 4)
    prediction = out["decoder"]["prediction"]
    out["decoder"]["masked"] = take_tokens(prediction, out["masks"]["image"].drop)
    batch = {"_mask": jnp.array([True, False, True])}
    of_all = term(shown=shown)(out, batch)
    of_masked = MaskedRegression("decoder.masked", "targets.pixels", shown=shown)(out, batch)
    assert float(of_masked.count) == float(of_all.count)
    np.testing.assert_allclose(of_masked.total, of_all.total, rtol=1e-6)


def test_predictions_of_neither_all_nor_the_masked_tokens_are_refused():
    out = outputs()
    out["decoder"]["prediction"] = out["decoder"]["prediction"][:, :2]
    with pytest.raises(UserError, match="has 2 tokens, but there are 4 .*, of which 3 are masked"):
        term()(out, {})


def test_padding_examples_do_not_count():
    out = outputs()
    real = jnp.array([True, False, True])
    value, first = term()(out, {"_mask": real}), term()(out, {})
    assert float(value.count) == 6
    poisoned = {**out, "targets": {"pixels": out["targets"]["pixels"].at[1].set(99.0)}}
    assert float(term()(poisoned, {"_mask": real}).total) == float(value.total)
    assert float(value.total) < float(first.total)


def test_only_what_is_masked_and_shown_counts():
    out = outputs()
    out["masks"]["decoder"] = mask_from_indices(jnp.array([[0, 1], [2, 3], [0, 1]]), 4)
    counted = np.array([[0, 1, 0, 0], [0, 0, 0, 1], [1, 1, 0, 0]], bool)
    difference = np.asarray(out["decoder"]["prediction"] - out["targets"]["pixels"])
    value = term(shown="masks.decoder")(out, {})
    assert float(value.count) == 4
    expected = (difference**2).mean(-1)[counted].mean()
    np.testing.assert_allclose(value.total / value.count, expected, rtol=1e-6)


def test_targets_get_no_gradient():
    def loss(x):
        out = outputs()
        out["targets"]["pixels"] = out["targets"]["pixels"] * x
        return term()(out, {}).total

    assert float(jax.grad(loss)(1.0)) == 0.0


def test_unknown_error_is_refused():
    with pytest.raises(UserError, match="l2, l1, smooth_l1"):
        term(error="l3")


def test_normalised_pixels_have_mean_zero_and_unbiased_variance_one():
    patches = 3 + 5 * jax.random.normal(jax.random.key(0), (2, 4, 12))
    out = {"patches": patches}
    target = NormalisedPixels()(out, None)
    np.testing.assert_allclose(target.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(target.var(-1, ddof=1), 1, rtol=1e-5)
    np.testing.assert_allclose(NormalisedPixels().invert(target, out), patches, rtol=1e-5)
    assert NormalisedPixels().uses_target_statistics
    np.testing.assert_array_equal(Pixels().invert(target, out), target)


def test_a_flat_patch_stays_finite():
    flat = {"patches": jnp.full((1, 1, 4), 7.0)}
    assert np.isfinite(NormalisedPixels()(flat, None)).all()


def test_one_value_per_patch_cannot_be_normalised():
    with pytest.raises(UserError, match="more than one value per patch"):
        NormalisedPixels().check(TokenGrid((8, 8), (1, 1), 1))


def test_paths_reach_into_dicts_lists_arrays_and_structs():
    out = {"a": {"b": [10, 20]}, "m": outputs()["masks"]["image"], "x": jnp.arange(3)}
    assert get_path(out, "a.b.1") == get_path(out, "a.b.-1") == 20
    assert get_path(out, "m.keep").shape == (3, 1)
    assert get_path(out, "x.2") == 2


@pytest.mark.parametrize(
    ("path", "words"),
    [("a.c", "did you mean 'a.b'"), ("a.b.2", "there are 2"), ("a.b.1.c", "has no parts")],
)
def test_wrong_paths_say_what_there_is(path, words):
    with pytest.raises(UserError, match=words):
        get_path({"a": {"b": [10, 20]}}, path)
