import jax
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.masking import Fixed, hidden_tokens
from maskjax.tokens import TokenGrid

GRID = TokenGrid.of((8, 12), (4, 4), 1)  # 2 x 3 tokens


def test_the_mask_hides_what_it_names_and_nothing_else():
    mask = jax.jit(lambda key: Fixed((4, 1))(key, 3, GRID))(jax.random.key(0))
    np.testing.assert_array_equal(mask.keep, np.tile([0, 2, 3, 5], (3, 1)))
    np.testing.assert_array_equal(mask.drop, np.tile([1, 4], (3, 1)))
    np.testing.assert_array_equal(np.flatnonzero(mask.is_masked[2]), [1, 4])
    everything = np.concatenate([mask.keep, mask.drop], axis=1)
    np.testing.assert_array_equal(np.take_along_axis(everything, mask.restore, 1)[0], np.arange(6))


def test_every_way_to_write_a_mask_is_the_same(tmp_path):
    grid = np.array([[False, True, False], [False, True, False]])
    np.save(tmp_path / "grid.npy", grid)
    np.save(tmp_path / "numbers.npy", [4, 1])
    ways = ["4,1", " 1, 4,", [1, 4, 4], np.array([4, 1], np.uint8), grid, grid.reshape(-1)]
    ways += [grid.astype(int), grid.tolist(), tmp_path / "grid.npy", str(tmp_path / "numbers.npy")]
    for way in ways:
        assert hidden_tokens(way, GRID) == (1, 4), way


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ("", "none of the 6 tokens"),
        ([], "none of the 6 tokens"),
        ("0,1,2,3,4,5", "all of the 6 tokens"),
        (np.ones((2, 3), bool), "all of the 6 tokens"),
        (np.ones((3, 2), bool), "3 x 2, but the tokens form a grid of 2 x 3"),
        (np.ones(7, bool), "7, but the tokens"),
        ("3,6", "hides token 6, but the 6 tokens"),
        ("-1", "hides token -1"),
        ("a,b", "no list of token numbers"),
        (np.ones((2, 3)), "float64"),
        (np.full((2, 3), 2), "int64"),
        ("none.npy", "cannot be read"),
    ],
)
def test_what_is_no_mask_is_one_sentence(mask, words):
    with pytest.raises(UserError, match=words):
        hidden_tokens(mask, GRID)


def test_a_file_that_is_no_array_is_one_sentence(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read"):
        hidden_tokens(tmp_path / "x.npy", GRID)


def test_tokens_are_named_once():
    with pytest.raises(UserError, match="twice"):
        Fixed((1, 1)).check(GRID)
