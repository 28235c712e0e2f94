import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mask_checks import check_mask
from maskjax.errors import UserError
from maskjax.masking import DirichletBudget, budget_mask
from maskjax.masking.budget import round_shares, split_budget
from maskjax.paths import get_path
from maskjax.tokens import TokenGrid

NAMES = ("rgb", "depth", "semseg")
GRIDS = {name: TokenGrid((4, 4), (8, 8), 3) for name in NAMES}


def test_budget_is_that_of_the_reference(golden):
    arrays = golden("multimae")
    shares = jnp.asarray(arrays["in/dirichlet"])
    tokens = int(arrays["cfg/num_encoded_tokens"])
    np.testing.assert_array_equal(round_shares(shares, tokens), arrays["out/samples_per_task"])
    noises = [jnp.asarray(arrays[f"in/noise_{name}"]) for name in NAMES]
    joint = budget_mask(shares, noises, jnp.asarray(arrays["in/noise_all"]), tokens)
    check_mask(joint, tokens, 48)
    np.testing.assert_array_equal(joint.keep, arrays["out/ids_keep"])
    np.testing.assert_array_equal(joint.restore, arrays["out/ids_restore"])
    masks = split_budget(joint, GRIDS)
    for name in NAMES:
        hidden = get_path({"masks": masks}, f"masks.modalities.{name}.is_masked")
        np.testing.assert_array_equal(hidden, arrays[f"out/mask_{name}"].astype(bool))


def test_total_is_exact_and_alpha_decides_how_one_sided():
    grids = {"image": TokenGrid((6, 6), (4, 4), 3), "audio": TokenGrid((20,), (16,), 1)}
    draw = jax.jit(lambda alpha: DirichletBudget(12, alpha)(jax.random.key(0), 256, grids))
    for alpha, low, high in ((0.2, 4, 6), (1.0, 3, 4), (50.0, 0, 1.2)):
        DirichletBudget(12, alpha).check(grids)
        masks = draw(alpha)
        check_mask(masks.joint, 12, 56)
        assert dict(masks.offsets) == {"image": 0, "audio": 36}
        seen = {k: (~np.asarray(m.is_masked)).sum(axis=1) for k, m in masks.modalities.items()}
        np.testing.assert_array_equal(seen["image"] + seen["audio"], 12)
        assert low < seen["image"].std() < high
        assert seen["image"].mean() == pytest.approx(6, abs=1)


def test_subsets_are_uniform_and_not_empty():
    draw = jax.jit(lambda key: DirichletBudget(subsets=True).draw_shares(key, 2000, 3))
    shares = draw(jax.random.key(0))
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    chosen = np.asarray(shares > 1e-3)
    _, counts = np.unique(chosen, axis=0, return_counts=True)
    assert len(counts) == 7  # every subset but the empty one
    assert counts.min() > 2000 / 7 - 5 * np.sqrt(2000 / 7)


def test_a_share_larger_than_its_modality_is_filled_from_the_others():
    noises = [jnp.linspace(0, 1, 4)[None, :], jnp.linspace(0, 1, 12)[None, :]]
    joint_noise = jax.random.uniform(jax.random.key(0), (1, 16))
    mask = budget_mask(jnp.array([[1.0, 0.0]]), noises, joint_noise, 8)
    hidden = np.asarray(mask.is_masked)[0]
    assert not hidden[:4].any() and (~hidden[4:]).sum() == 4


def test_refusals():
    with pytest.raises(UserError, match="between 1 and 47: the modalities rgb, depth, semseg have"):
        DirichletBudget(48).check(GRIDS)
    with pytest.raises(UserError, match="alpha must be positive"):
        DirichletBudget(8, 0.0).check(GRIDS)
