import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mask_checks import check_mask, check_sampler
from maskjax.errors import UserError
from maskjax.masking import Guided
from maskjax.masking.guided import guided_mask
from maskjax.tokens import TokenGrid

GRID = TokenGrid((8, 8), (2, 2), 3)


@pytest.mark.parametrize("epoch", [0, 2, 50, 100, 199])
def test_hard_tokens_are_those_of_the_reference(golden, epoch):
    arrays = golden("hpm")
    sampler = Guided(0.75, epochs=int(arrays["cfg/gen/total_epoch"]))
    hard = int(arrays[f"out/gen/epoch{epoch}/n_hard"])
    assert sampler.num_hard(48, epoch / 200) == hard
    assert sampler.num_hard(48, (epoch + 0.99) / 200) == hard

    scores = jnp.asarray(arrays["in/gen/loss_pred"])
    top = np.argsort(-scores, axis=1)[:, :hard]
    expected = arrays[f"out/gen/epoch{epoch}/mask"]
    assert np.take_along_axis(expected, top, axis=1).all()  # as the reference has it
    mask = sampler(jax.random.key(epoch), 4, GRID, scores, epoch / 200)
    check_mask(mask, 16, 64, ascending=True)
    assert expected.sum(axis=1).tolist() == mask.is_masked.sum(axis=1).tolist()
    assert np.take_along_axis(np.asarray(mask.is_masked), top, axis=1).all()


def test_the_rest_is_uniform():
    scores = jnp.broadcast_to(jnp.arange(64.0)[None, :], (512, 64))
    draw = jax.jit(lambda key, scores: Guided()(key, 512, GRID, scores, 1.0))
    mask = draw(jax.random.key(0), scores)
    share = np.asarray(mask.is_masked).mean(axis=0)
    assert (share[-24:] == 1).all()
    np.testing.assert_allclose(share[:-24], 24 / 40, atol=4 * np.sqrt(0.24 / 512))


def test_the_share_grows_inside_one_compilation():
    scores = jax.random.normal(jax.random.key(2), (4, 64))
    draw = jax.jit(lambda progress: Guided()(jax.random.key(1), 4, GRID, scores, progress))
    top = np.argsort(-scores, axis=1)[:, :24]
    hidden = [
        np.take_along_axis(np.asarray(draw(p).is_masked), top, axis=1).sum()
        for p in (0.0, 0.5, 1.0)
    ]
    assert hidden[0] < hidden[1] < hidden[2] == top.size
    assert draw._cache_size() == 1


def test_without_scores_masks_are_uniform():
    check_sampler(Guided(), GRID, 16)


def test_ties_go_to_the_first():
    mask = guided_mask(jnp.zeros((1, 4)), jnp.zeros((1, 4)), 2, jnp.int32(2))
    np.testing.assert_array_equal(mask.drop, [[0, 1]])


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (Guided(1.0), "masks all"),
        (Guided(hard_share=1.5), "hard_share must lie in"),
        (Guided(epochs=0), "epochs must be positive"),
    ],
)
def test_refusals(sampler, message):
    with pytest.raises(UserError, match=message):
        sampler.check(GRID)
