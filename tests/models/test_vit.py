import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.masking import Uniform, mask_from_indices
from maskjax.models import MAEDecoder, ViT, vit_variant
from maskjax.parallel.flops import count_flops
from maskjax.tokens import TokenGrid, take_tokens

GRID = TokenGrid((2, 4), (2, 2), 1)
SMALL = dict(patch_size=(2, 2), width=16, depth=2, heads=2, dtype="float32")


@pytest.fixture(scope="module")
def patches():
    return jax.random.normal(jax.random.key(0), (3, GRID.num_tokens, GRID.values_per_token))


@pytest.fixture(scope="module")
def params(patches):
    return jax.jit(lambda x: ViT(**SMALL).init(jax.random.key(1), x, GRID))(patches)


def encode(params, patches, mask=None, **options):
    vit = ViT(**SMALL | options)
    return jax.jit(lambda p, x, m: vit.apply(p, x, GRID, m))(params, patches, mask)


def test_a_mask_selects_tokens_and_order_does_not_matter(patches, params):
    keep = jnp.array([[5, 0, 2], [1, 2, 3], [7, 6, 0]])
    here = encode(params, patches, mask_from_indices(keep, 8))
    assert here["tokens"].shape == (3, 4, 16)
    np.testing.assert_allclose(
        here["embedded"],
        take_tokens(encode(params, patches)["embedded"], keep),
        rtol=1e-5,
        atol=1e-6,
    )
    turned = encode(params, patches, mask_from_indices(keep[:, ::-1], 8))
    np.testing.assert_allclose(here["cls"], turned["cls"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(here["patches"], turned["patches"][:, ::-1], rtol=1e-4, atol=1e-5)


def test_hidden_patches_have_no_influence(patches, params):
    mask = mask_from_indices(jnp.array([[5, 0, 2]] * 3), 8)
    changed = patches.at[:, 1].add(100.0)
    np.testing.assert_array_equal(
        encode(params, patches, mask)["tokens"], encode(params, changed, mask)["tokens"]
    )


@pytest.mark.parametrize("remat", ["none", "full", "hidden", "dots", "dots_with_no_batch_dims"])
@pytest.mark.parametrize("scan", [False, True])
def test_scan_and_remat_change_nothing(patches, params, scan, remat):
    plain = encode(params, patches)
    other = encode(params, patches, scan=scan, remat=remat)
    for path in ("tokens", "mean"):
        np.testing.assert_allclose(other[path], plain[path], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(other["blocks"][1], plain["blocks"][1], rtol=1e-5, atol=1e-6)


def test_bfloat16_computes_in_bfloat16_with_float32_parameters(patches, params):
    out = encode(params, patches, dtype="bfloat16")
    assert out["tokens"].dtype == jnp.bfloat16
    assert out["mean"].dtype == jnp.float32
    exact = encode(params, patches)["mean"]
    np.testing.assert_allclose(out["mean"], exact, atol=0.05)
    again = jax.eval_shape(
        lambda x: ViT(**SMALL | dict(dtype="bfloat16")).init(jax.random.key(1), x, GRID), patches
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(again)} == {jnp.dtype("float32")}


def test_initialisation_is_that_of_the_paper(params):
    encoder = params["params"]
    up = encoder["stack"]["blocks"]["mlp"]["up"]["kernel"]
    assert up.shape == (2, 16, 64)
    assert np.abs(up).max() <= np.sqrt(6 / (16 + 64))
    assert np.abs(up).max() > 0.9 * np.sqrt(6 / (16 + 64))
    assert (np.asarray(up[0]) != np.asarray(up[1])).any()
    assert 0.005 < np.std(encoder["cls"]) < 0.04


@pytest.mark.parametrize(("name", "millions"), [("B/16", 111.9), ("L/16", 329.5), ("H/14", 657.1)])
def test_published_parameter_counts(name, millions):
    size = vit_variant(name)
    grid = TokenGrid.of((224, 224), size["patch_size"], 3)
    abstract = jax.ShapeDtypeStruct((1, grid.num_tokens, grid.values_per_token), jnp.float32)
    mask = jax.eval_shape(lambda: Uniform()(jax.random.key(0), 1, grid))

    def init(patches, mask):
        encoder = ViT(**size, dtype="float32")
        out, variables = encoder.init_with_output(jax.random.key(0), patches, grid, mask)
        decoder = MAEDecoder(dtype="float32")
        return variables, decoder.init(
            jax.random.key(0), out["tokens"], grid, mask, grid.values_per_token
        )

    leaves = jax.tree.leaves(jax.eval_shape(init, abstract, mask))
    count = sum(np.prod(leaf.shape) for leaf in leaves)
    # The published counts include the fixed position tables, which are constants here.
    tables = (grid.num_tokens + 1) * (size["width"] + 512)
    assert round((count + tables) / 1e6, 1) == millions


def test_flops_are_those_of_the_closed_form(patches, params):
    n, d, k = GRID.num_tokens, 16, GRID.values_per_token
    blocks = 2 * (24 * (n + 1) * d**2 + 4 * (n + 1) ** 2 * d)
    flops = count_flops(lambda x: ViT(**SMALL).apply(params, x, GRID), patches[:1])
    assert flops == 2 * n * k * d + blocks
    scanned = count_flops(lambda x: ViT(**SMALL, scan=True).apply(params, x, GRID), patches[:1])
    assert scanned == flops


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(heads=3), "not divisible by 3 attention heads"),
        (dict(remat="everything"), "remat must be one of"),
        (dict(dtype="float16"), "dtype must be"),
        (dict(width=18, heads=2), "divisible by 4"),
    ],
)
def test_impossible_networks_are_refused(patches, change, words):
    with pytest.raises(UserError, match=words):
        ViT(**SMALL | change).init(jax.random.key(0), patches, GRID)


@pytest.mark.parametrize("name", ["B", "X/16", "B/x", "B/0"])
def test_unknown_variants_are_refused(name):
    with pytest.raises(UserError, match="SIZE/PATCH"):
        vit_variant(name)
