"""Features of a network as a target."""

import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.targets import Features
from maskjax.targets.features import NORMALISERS
from maskjax.tokens import TokenGrid

GRID = TokenGrid((2, 3), (4, 4), 1)


@pytest.fixture
def out():
    rng = np.random.default_rng(0)
    return {"teacher": {"blocks": [jnp.asarray(rng.normal(2, 3, (2, 7, 8)), jnp.float32)] * 2}}


def test_normalisers_by_their_definition(out):
    x = np.asarray(out["teacher"]["blocks"][0], np.float64)
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred**2).sum(-1, keepdims=True)
    expected = {
        None: x,
        "layer_norm": centred / np.sqrt(variance / 8 + 1e-5),
        "standardise": centred / np.sqrt(variance / 7 + 1e-6),
        "l2": x / np.linalg.norm(x, axis=-1, keepdims=True),
    }
    assert expected.keys() == NORMALISERS.keys()
    for name, function in NORMALISERS.items():
        np.testing.assert_allclose(function(x.astype(np.float32)), expected[name], rtol=2e-5)
    assert np.isfinite(NORMALISERS["l2"](jnp.zeros((1, 4)))).all()


def test_class_token_is_dropped_or_kept(out):
    target = Features("teacher.blocks.-1", width=8)
    assert target.size(GRID) == 8
    np.testing.assert_array_equal(target(out, GRID), out["teacher"]["blocks"][1][:, 1:])
    kept = Features("teacher.blocks.-1", width=8, class_token=True)
    np.testing.assert_array_equal(kept(out, GRID), out["teacher"]["blocks"][1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(path="teacher.blocks.2", width=8), "there are 2 of them"),
        (dict(path="teacher.block.0", width=8), "did you mean 'teacher.blocks'"),
        (dict(path="teacher.blocks.0", width=9), "is 8 wide"),
        (dict(path="teacher.short", width=8), "N = 6 tokens"),
        (dict(path="teacher.bare", width=8, class_token=True), "no class token"),
    ],
)
def test_what_does_not_fit_is_one_sentence(out, arguments, words):
    out["teacher"]["short"] = jnp.zeros((2, 3, 8))
    out["teacher"]["bare"] = jnp.zeros((2, 6, 8))
    with pytest.raises(UserError, match=words):
        Features(**arguments)(out, GRID)


def test_unknown_normalisation_is_refused():
    with pytest.raises(UserError, match="standardise"):
        Features("a", width=8, normalise="whiten")
