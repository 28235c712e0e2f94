"""AdamW agrees with the reference's updates and groups of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.training import AdamW
from optimizer_checks import classifier, descend


def test_reference_updates(golden):
    arrays = golden("mae_recipes")
    given = {k.removeprefix("cfg/adamw/"): v.item() for k, v in arrays.items() if "cfg/adamw" in k}
    optimizer = AdamW(given["b1"], given["b2"], given["eps"], given["wd"])
    course = descend(
        optimizer,
        {"kernel": jnp.asarray(arrays["in/adamw/p0"])},
        [{"kernel": jnp.asarray(g)} for g in arrays["in/adamw/g"]],
        given["lr"],
    )
    assert len(course) == 5
    for params, expected in zip(course, arrays["out/adamw/p"], strict=True):
        np.testing.assert_allclose(
            params["kernel"], expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max()
        )


def test_decay_makes_the_difference(golden):
    """The comparison above would notice a bias that is decayed, or a kernel that is not."""
    p0 = jnp.asarray(golden("mae_recipes")["in/adamw/p0"])
    grads = [{name: jnp.zeros_like(p0) for name in ("kernel", "bias", "scale")}]
    params = dict.fromkeys(grads[0], p0)
    after = descend(AdamW(weight_decay=0.5), params, grads, 0.1)[0]
    np.testing.assert_allclose(after["kernel"], p0 * 0.95, rtol=1e-6)
    for name in ("bias", "scale"):
        np.testing.assert_array_equal(after[name], p0)


def test_decay_that_grows():
    """From the first value to the last along half a cosine; without gradients only it acts."""
    params = {"kernel": jnp.ones(()), "bias": jnp.ones(())}
    grads = [jax.tree.map(jnp.zeros_like, params)] * 5
    course = descend(AdamW(weight_decay=0.04, final_weight_decay=0.4), params, grads, 1.0)
    kernels = np.array([1.0, *(after["kernel"] for after in course)])
    cosine = (1 - np.cos(np.linspace(0, np.pi, 5))) / 2
    np.testing.assert_allclose(1 - kernels[1:] / kernels[:-1], 0.04 + 0.36 * cosine, rtol=1e-5)
    assert course[-1]["bias"] == 1


def test_decay_groups(golden):
    arrays = golden("mae_recipes")
    names = [str(name) for name in arrays["out/lrd/names"]]
    expected = dict(zip(names, arrays["out/lrd/weight_decay"] > 0, strict=True))
    # Fine-tuning spares the class token and the position table too; pretraining does not.
    rule = (*AdamW().no_decay, r"(^|/)cls$", r"(^|/)positions$")
    params = classifier(names, arrays)
    seen = {}
    decays = AdamW(no_decay=rule).decays(params)
    for values, decayed in zip(jax.tree.leaves(params), jax.tree.leaves(decays), strict=True):
        seen |= {names[int(i)]: decayed for i in np.unique(values)}
    assert seen == expected
    assert {True, False} == set(expected.values())
    pretraining = AdamW().decays(params)
    assert pretraining["encoder"]["cls"]
    assert not pretraining["encoder"]["norm"]["scale"]
    assert not pretraining["encoder"]["stack"]["blocks"]["attention"]["query"]["bias"]


@pytest.mark.parametrize(("norm", "factor"), [(None, 1.0), (1.0, 0.2), (10.0, 1.0)])
def test_clipping(norm, factor):
    """Clips by the norm over all arrays: here 5."""
    grads = {"a": {"kernel": jnp.array([3.0, 0.0])}, "b": {"kernel": jnp.array([4.0])}}
    params = jax.tree.map(jnp.zeros_like, grads)
    optimizer = AdamW(clip_norm=norm).build(1)
    state = optimizer.init(params)
    _, state = optimizer.update(grads, state, params)
    first = next(
        s for s in jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, "mu")) if hasattr(s, "mu")
    )
    moments = jax.tree.map(lambda g: 0.1 * factor * g, grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), first.mu, moments)
