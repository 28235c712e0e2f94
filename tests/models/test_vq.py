"""Quantisation: nearest codes, the straight-through gradient, and a codebook that follows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.models.vq import Codebook, VQDecoder, VQEncoder, nearest_code, straight_through
from maskjax.tokens import TokenGrid


def test_nearest_code_is_the_nearest():
    keys = jax.random.split(jax.random.key(0))
    latents, table = jax.random.normal(keys[0], (2, 5, 3)), jax.random.normal(keys[1], (7, 3))
    distances = np.linalg.norm(
        np.asarray(latents)[:, :, None] - np.asarray(table)[None, None], axis=-1
    )
    np.testing.assert_array_equal(nearest_code(latents, table), distances.argmin(-1))


def test_gradient_passes_straight_through():
    quantised = jnp.array([[1.0, 2.0]])

    def loss(z):
        return (straight_through(z, quantised) ** 2).sum()

    z = jnp.array([[0.0, 5.0]])
    assert loss(z) == pytest.approx(5.0)  # the value is that of the code
    np.testing.assert_allclose(jax.grad(loss)(z), 2 * quantised)  # as if z were the code


def test_the_first_batch_is_sampled():
    book = Codebook(size=4)
    latents = jax.random.normal(jax.random.key(0), (2, 50, 3)) + 7.0
    state = book.init(jax.random.key(1), 3)
    state = book.update(state, latents, nearest_code(latents, state["table"]), jax.random.key(2))
    flat = np.asarray(latents).reshape(-1, 3)
    distance = np.abs(flat[None] - np.asarray(state["table"])[:, None]).sum(-1).min(-1)
    assert (distance < 1e-5).sum() >= 3  # one code may have had nearly everything, and kept it


def test_codes_find_the_means_of_clusters():
    book = Codebook(size=4, decay=0.8)
    means = jnp.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    state = book.init(jax.random.key(0), 2)

    @jax.jit
    def step(state, key):
        first, second, third = jax.random.split(key, 3)
        which = jax.random.randint(first, (1, 64), 0, 4)
        latents = means[which] + 0.1 * jax.random.normal(second, (1, 64, 2))
        return book.update(state, latents, nearest_code(latents, state["table"]), third)

    for i in range(60):
        state = step(state, jax.random.key(i))
    found = np.asarray(state["table"])
    distance = np.linalg.norm(found[:, None] - np.asarray(means)[None], axis=-1)
    assert sorted(distance.argmin(1)) == [0, 1, 2, 3]
    assert distance.min(1).max() < 0.2


def test_without_restarts_it_is_a_moving_average():
    book = Codebook(size=2, decay=0.5, restart=0.0)
    state = book.init(jax.random.key(0), 1)
    state["table"] = jnp.array([[0.0], [1.0]])
    state["sums"] = jnp.array([[0.0], [1.0]])
    latents, codes = jnp.array([[[0.5], [0.1], [0.3]]]), jnp.array([[0, 0, 0]])
    state = book.update(state, latents, codes, None)
    # counts (1, 1) -> (0.5 + 1.5, 0.5); sums (0, 1) -> (0.45, 0.5).
    np.testing.assert_allclose(state["counts"], [2.0, 0.5])
    np.testing.assert_allclose(state["table"], [[0.225], [1.0]], rtol=1e-6)


@pytest.mark.parametrize(("stem", "multipliers"), [(1, (1, 2)), (2, (1,)), (2, (1, 1, 2))])
def test_networks_mirror_each_other(stem, multipliers):
    levels = dict(width=8, multipliers=multipliers, blocks=1, stem=stem, dtype="float32")
    encoder, decoder = VQEncoder(**levels, latent_width=6), VQDecoder(**levels)
    grid = TokenGrid.of((16, 8), encoder.patch_size, 3)
    image = jax.ShapeDtypeStruct((2, 16, 8, 3), jnp.float32)

    def both(image):
        latents, _ = encoder.init_with_output(jax.random.key(0), image)
        return latents, decoder.init_with_output(jax.random.key(1), latents, grid)[0]

    latents, decoded = jax.eval_shape(both, image)
    assert latents.shape == (2, grid.num_tokens, 6)
    assert decoded.shape == image.shape


def test_a_token_is_where_its_pixels_are():
    levels = dict(width=4, multipliers=(1,), blocks=1, stem=4, dtype="float32")
    encoder, decoder = VQEncoder(**levels, latent_width=4), VQDecoder(**levels)
    image = jnp.zeros((1, 32, 32, 1))
    latents, params = jax.jit(lambda i: encoder.init_with_output(jax.random.key(0), i))(image)
    changed = jax.jit(encoder.apply)(params, image.at[0, 30, 1].set(1.0))
    # Three convolutions reach three tokens; group norm spreads a little over the whole image.
    difference = np.abs(np.asarray(changed - latents)).sum(-1).reshape(8, 8)
    row, column = np.unravel_index(difference.argmax(), (8, 8))
    assert row >= 4
    assert column <= 3
    grid = TokenGrid.of((32, 32), (4, 4), 1)
    start, params = jax.jit(lambda v: decoder.init_with_output(jax.random.key(0), v, grid))(
        jnp.zeros((1, 64, 4))
    )
    other = jnp.zeros((1, 64, 4)).at[0, 56].set(1.0)
    changed = jax.jit(lambda p, v: decoder.apply(p, v, grid))(params, other)
    difference = np.abs(np.asarray(changed - start))[0, :, :, 0]
    row, column = np.unravel_index(difference.argmax(), difference.shape)
    assert row >= 16
    assert column < 16


def test_refusals():
    with pytest.raises(UserError, match="1 codes"):
        Codebook(size=1)
    with pytest.raises(UserError, match="decay"):
        Codebook(decay=1.0)
