import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.tokens import (
    TokenGrid,
    patchify,
    resize_table,
    restore_order,
    sincos_2d,
    take_tokens,
    unpatchify,
)


@pytest.mark.parametrize(
    ("size", "patch"), [((12,), (3,)), ((4, 6), (2, 3)), ((4, 6, 4), (2, 3, 1))]
)
def test_patches_can_be_put_together(size, patch):
    grid = TokenGrid.of(size, patch, 2)
    x = np.arange(3 * np.prod(size) * 2, dtype=np.float32).reshape(3, *size, 2)
    patches = patchify(jnp.asarray(x), grid)
    assert patches.shape == (3, grid.num_tokens, grid.values_per_token)
    np.testing.assert_array_equal(unpatchify(patches, grid), x)


def test_patch_order_is_row_column_channel(golden):
    reference = golden("mae")
    images = reference["in/imgs_nchw"].transpose(0, 2, 3, 1)
    patches = patchify(jnp.asarray(images), TokenGrid.of((32, 32), (8, 8), 3))
    np.testing.assert_array_equal(patches, reference["out/patchify"])


def test_sincos_tables_are_those_of_the_reference(golden):
    reference = golden("mae")
    with_cls = reference["out/sincos_dim32_grid4_cls"]
    np.testing.assert_array_equal(with_cls[0], 0)
    np.testing.assert_allclose(sincos_2d((4, 4), 32), with_cls[1:], rtol=0, atol=1e-7)
    square = reference["out/sincos_dim48_grid3"]
    np.testing.assert_allclose(sincos_2d((3, 3), 48), square, rtol=0, atol=1e-7)
    np.testing.assert_allclose(
        sincos_2d((4, 4), 32), reference["param/pos_embed"][0, 1:], atol=1e-7
    )


def test_first_half_of_a_table_encodes_the_column():
    table = sincos_2d((2, 5), 8).reshape(2, 5, 8)
    np.testing.assert_array_equal(table[0, :, :4], table[1, :, :4])
    np.testing.assert_array_equal(table[:, 0, 4:], table[:, 3, 4:])


@pytest.mark.parametrize(("old", "new"), [(4, 6), (4, 7), (6, 4)])
def test_tables_are_resized_as_pytorch_does(golden, old, new):
    reference = golden("mae_recipes")
    table = reference[f"in/posinterp_{old}_{new}"][0, 1:]
    expected = reference[f"out/posinterp_{old}_{new}"][0, 1:]
    resized = resize_table(table, (old, old), (new, new))
    np.testing.assert_allclose(resized, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_resizing_is_rectangular_and_the_identity_at_the_same_size():
    table = sincos_2d((3, 4), 8)
    np.testing.assert_array_equal(resize_table(table, (3, 4), (3, 4)), table)
    wide = resize_table(table, (3, 4), (3, 8)).reshape(3, 8, 8)
    # The row half does not change along a row.
    np.testing.assert_allclose(
        wide[:, :, 4:], np.broadcast_to(wide[:, :1, 4:], (3, 8, 4)), atol=1e-6
    )


def test_restore_inverts_take():
    tokens = jnp.arange(2 * 5 * 3, dtype=jnp.float32).reshape(2, 5, 3)
    order = jnp.array([[4, 1, 0, 3, 2], [2, 0, 1, 4, 3]])
    restore = jnp.argsort(order, axis=1)
    fill = jnp.full(3, -1.0)
    np.testing.assert_array_equal(restore_order(take_tokens(tokens, order), fill, restore), tokens)
    placed = restore_order(take_tokens(tokens, order[:, :2]), fill, restore)
    np.testing.assert_array_equal(placed[0, 4], tokens[0, 4])
    np.testing.assert_array_equal(placed[0, 0], fill)


@pytest.mark.parametrize(
    ("size", "patch", "words"),
    [
        ((8, 8), (16, 16), "smaller than a patch"),
        ((20, 16), (16, 16), "not divisible"),
        ((16, 16), (4,), "one extent per axis"),
        ((16, 16), (0, 4), "not divisible"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(size, patch, words):
    with pytest.raises(UserError, match=words):
        TokenGrid.of(size, patch, 3)
