"""Tokens that only fill a list up to its static length have no influence on an encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.masking import Kept, mask_from_indices
from maskjax.models import ViT
from maskjax.tokens import TokenGrid

GRID = TokenGrid((4, 4), (2, 2), 1)


@pytest.mark.parametrize("class_token", [False, True])
def test_fillers_are_read_by_nobody(class_token):
    vit = ViT((2, 2), 8, 2, 2, class_token=class_token, dtype="float32")
    patches = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 4)), jnp.float32)
    keep = jnp.array([[3, 1, 7], [0, 9, 12]])
    filled = jnp.concatenate([keep, jnp.array([[5, 6], [1, 2]])], axis=1)
    weight = jnp.concatenate([jnp.ones((2, 3)), jnp.zeros((2, 2))], axis=1)

    @jax.jit
    def outputs(key):
        variables = vit.init(key, patches, GRID)
        masks = mask_from_indices(keep, 16), Kept(filled, weight), Kept(filled, jnp.ones((2, 5)))
        return [vit.apply(variables, patches, GRID, mask) for mask in masks]

    short, padded, read = outputs(jax.random.key(0))
    np.testing.assert_allclose(padded["patches"][:, :3], short["patches"], atol=1e-5)
    for name in ("mean", "cls") if class_token else ("mean",):
        np.testing.assert_allclose(padded[name], short[name], atol=1e-5)
        assert np.abs(np.asarray(read[name]) - short[name]).max() > 1e-3
