"""The learning rate of every layer agrees with the reference's groups."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.paths import named_leaves
from maskjax.training import AdamW, LayerwiseAdamW
from optimizer_checks import classifier, descend


def test_reference_groups(golden):
    arrays = golden("mae_recipes")
    names = [str(name) for name in arrays["out/lrd/names"]]
    optimizer = LayerwiseAdamW(layer_decay=float(arrays["cfg/lrd/layer_decay"]))
    params = classifier(names, arrays)  # every value is the place of its name
    params["encoder"].pop("norm")
    params["head"]["norm"] = {"scale": np.float32([28]), "bias": np.float32([29])}
    assert names[28:30] == ["fc_norm.weight", "fc_norm.bias"]
    for tree, expected in (
        (optimizer.scales(params), arrays["out/lrd/lr_scale"]),
        (optimizer.decays(params), arrays["out/lrd/weight_decay"] > 0),
    ):
        seen = {}
        each = jax.tree.map(lambda v, x: np.broadcast_to(x, v.shape), params, tree)
        for values, found in zip(jax.tree.leaves(params), jax.tree.leaves(each), strict=True):
            for place, value in zip(values.ravel(), found.ravel(), strict=True):
                assert seen.setdefault(int(place), value) == value
        np.testing.assert_allclose([seen[i] for i in range(len(names))], expected, rtol=1e-6)


def params():
    rng = np.random.default_rng(0)
    shapes = {
        "embed": {"kernel": (3, 4)},
        "stack": {"blocks": {"mlp": {"kernel": (2, 4, 4)}}},
    }
    tree = {"encoder": shapes, "head": {"kernel": (4, 2)}}
    return jax.tree.map(
        lambda s: jnp.asarray(rng.normal(size=s), jnp.float32),
        tree,
        is_leaf=lambda s: type(s) is tuple,
    )


def test_a_layer_moves_as_with_its_own_rate():
    """Adam's part and the decay alike."""
    start = params()
    grads = [jax.tree.map(jnp.cos, start), jax.tree.map(jnp.sin, start)]
    options = dict(weight_decay=0.3, b2=0.999)
    found = descend(LayerwiseAdamW(layer_decay=0.5, **options), start, grads, 0.1)[-1]
    for name, depth in (("encoder/embed/kernel", 3), ("head/kernel", 0)):
        expected = descend(AdamW(**options), start, grads, 0.1 * 0.5**depth)[-1]
        np.testing.assert_allclose(
            named_leaves(found)[name], named_leaves(expected)[name], rtol=1e-5
        )
    name = "encoder/stack/blocks/mlp/kernel"
    for block in range(2):
        expected = descend(AdamW(**options), start, grads, 0.1 * 0.5 ** (2 - block))[-1]
        np.testing.assert_allclose(
            named_leaves(found)[name][block], named_leaves(expected)[name][block], rtol=1e-5
        )


def test_one_stack_of_blocks_is_needed():
    with pytest.raises(UserError, match="there is none"):
        LayerwiseAdamW().scales({"head": {"kernel": jnp.ones((2, 2))}})
    with pytest.raises(UserError, match=r"layer_decay is 0\.0"):
        LayerwiseAdamW(layer_decay=0.0)
