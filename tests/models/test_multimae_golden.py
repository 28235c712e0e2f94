"""MultiMAE's masks, networks and losses agree with the numbers of the original implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import multimodal_names
from maskjax.data.maps import standardise_depth
from maskjax.masking import Hidden
from maskjax.masking.budget import budget_mask, split_budget
from maskjax.models import ClassEmbedding, MultiMAEDecoder, MultimodalEncoder, PatchEmbedding
from maskjax.models.multimodal import fixed_positions
from maskjax.objectives import CrossEntropyPerExample, RegressionPerExample, TermValue
from maskjax.objectives.multimodal import weigh_by_uncertainty
from maskjax.targets import Categories, NormalisedPixels
from maskjax.tokens import TokenGrid, patchify, unpatchify

GRIDS = {
    "rgb": TokenGrid.of((32, 32), (8, 8), 3),
    "depth": TokenGrid.of((32, 32), (8, 8), 1),
    "semseg": TokenGrid.of((8, 8), (2, 2), 1),
}
OUTPUTS = {
    "rgb": ("rgb", 192),
    "depth": ("depth", 64),
    "semseg": ("semseg", Categories(5).size(GRIDS["semseg"])),
    "norm_rgb": ("rgb", 192),
}
ENCODER = MultimodalEncoder(
    {
        "rgb": PatchEmbedding((8, 8)),
        "depth": PatchEmbedding((8, 8)),
        "semseg": ClassEmbedding((2, 2), classes=5, class_width=8),
    },
    width=24,
    depth=2,
    heads=2,
    globals_last=True,
    types=False,
    norm=False,
    rows_first=True,
    dtype="float32",
)
DECODER = MultiMAEDecoder(width=16, depth=1, heads=2, dtype="float32")


def term(task, kind, mask, **options):
    return kind(
        prediction=f"{task}.prediction", target=f"targets.{task}", mask=f"masks.{mask}", **options
    )


TERMS = {
    "rgb": term("rgb", RegressionPerExample, "rgb"),
    "depth": term("depth", RegressionPerExample, "depth", error="l1"),
    "semseg": term("semseg", CrossEntropyPerExample, "semseg"),
    "norm_rgb": term("norm_rgb", RegressionPerExample, "rgb"),
}


def close(actual, expected, rtol=1e-5):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=rtol, atol=rtol * scale)


@pytest.fixture(scope="module")
def reference(golden):
    return golden("multimae")


@pytest.fixture(scope="module")
def params(reference):
    return jax.tree.map(jnp.asarray, multimodal_names.multimae_params(reference))


@pytest.fixture(scope="module")
def tokens(reference):
    values = {n: reference[f"in/{n}"].transpose(0, 2, 3, 1) for n in ("rgb", "depth")}
    values["semseg"] = reference["in/semseg"][..., None]
    return {name: patchify(jnp.asarray(x), GRIDS[name]) for name, x in values.items()}


@pytest.fixture(scope="module")
def mask(reference):
    noises = [jnp.asarray(reference[f"in/noise_{name}"]) for name in GRIDS]
    shares, joint = (jnp.asarray(reference[f"in/{n}"]) for n in ("dirichlet", "noise_all"))
    return split_budget(budget_mask(shares, noises, joint, 12), GRIDS)


@jax.jit
def forward(params, tokens, mask):
    encoded = ENCODER.apply({"params": params["encoder"]}, tokens, GRIDS, mask.joint)
    decoded = DECODER.apply({"params": params["decoder"]}, encoded, GRIDS, mask.joint, OUTPUTS)
    targets = {
        "rgb": tokens["rgb"],
        "depth": tokens["depth"],
        "semseg": tokens["semseg"],
        "norm_rgb": NormalisedPixels()({"patches": tokens["rgb"]}, GRIDS["rgb"]),
    }
    out = {"masks": mask.modalities, "encoder": encoded, "targets": targets}
    return decoded | out


def test_positions(reference):
    table = reference["posemb/h4w4_d24"][0].reshape(24, 16).T
    close(fixed_positions(GRIDS["rgb"], 24, rows_first=True), table)
    with pytest.raises(AssertionError):
        close(fixed_positions(GRIDS["rgb"], 24), table)


def test_masks(reference, mask):
    np.testing.assert_array_equal(mask.joint.keep, reference["out/ids_keep"])
    np.testing.assert_array_equal(mask.joint.restore, reference["out/ids_restore"])
    for name, hidden in mask.modalities.items():
        np.testing.assert_array_equal(hidden.is_masked, reference[f"out/mask_{name}"].astype(bool))


def test_depth_is_standardised_without_its_extremes(reference):
    depth = jnp.asarray(reference["in/depth_raw"].transpose(0, 2, 3, 1))
    close(standardise_depth(depth), reference["in/depth"].transpose(0, 2, 3, 1))


def test_latents_and_predictions(reference, params, tokens, mask):
    out = forward(params, tokens, mask)
    for name in GRIDS:
        close(out["encoder"]["embedded"][name], reference[f"out/tokens_{name}"])
    close(out["encoder"]["tokens"], reference["out/encoder"])
    close(out["encoder"]["cls"], reference["out/encoder"][:, -1])
    for task, (name, values) in OUTPUTS.items():
        grid = TokenGrid(GRIDS[name].shape, GRIDS[name].patch, values // np.prod(GRIDS[name].patch))
        picture = unpatchify(out[task]["prediction"][:2], grid)
        close(picture.transpose(0, 3, 1, 2), reference[f"out/pred_{task}"])


def test_losses(reference, params, tokens, mask):
    out = forward(params, tokens, mask)
    values = {name: term(out, {}) for name, term in TERMS.items()}
    for task, value in values.items():
        close(value.total / value.count, reference[f"out/loss_{task}"])


def test_an_example_without_masked_patches_is_left_out(reference, params, tokens, mask):
    out = forward(params, tokens, mask)
    hidden = {"rgb": Hidden(jnp.asarray(reference["nan/mask"]).astype(bool))}
    assert not hidden["rgb"].is_masked[1].any()

    def mean(prediction):
        value = TERMS["rgb"]({**out, "rgb": {"prediction": prediction}, "masks": hidden}, {})
        return value.total / value.count

    value, gradient = jax.value_and_grad(mean)(out["rgb"]["prediction"])
    close(value, reference["nan/loss_rgb"])
    # Where the reference divides 0 by 0, and all gradients become NaN.
    assert np.isfinite(gradient).all() and not np.asarray(gradient[1]).any()


def test_uncertainty(reference):
    values = [
        weigh_by_uncertainty(TermValue(jnp.float32(3 * x), jnp.float32(3)), jnp.float32(s))
        for x, s in zip(
            reference["uncertainty/loss_in"], reference["uncertainty/log_vars"], strict=True
        )
    ]
    close([v.total / v.count for v in values], reference["uncertainty/loss_out"])
