"""FLOPs of whole training steps of MAE equal the closed forms."""

import runpy
from pathlib import Path

import jax
import pytest

from maskjax.data import batch_shapes
from maskjax.parallel.flops import count_flops
from maskjax.planning.program import for_accelerators
from maskjax.planning.search import changed
from maskjax.training.run import prepare

MAE = Path(__file__).parents[2] / "configs" / "mae.py"
BATCH = 8


def block(n, d):
    """Projections 8 N D^2, MLP 16 N D^2, scores and weighted sum 4 N^2 D."""
    return 24 * n * d**2 + 4 * n**2 * d


def last_block(n, m, d):
    """Keys and values of N tokens 4 N D^2; queries, output and MLP of M tokens."""
    return 4 * n * d**2 + 20 * m * d**2 + 4 * n * m * d


def forward(n, kept, patch, width, depth, decoder_width, decoder_depth, scan):
    """One image; the class token is encoded and decoded, but masked tokens alone are predicted.

    In a loop the last block is like the others.
    """
    masked = n - kept
    last = n + 1 if scan else masked
    return (
        2 * kept * patch * width
        + depth * block(kept + 1, width)
        + 2 * (kept + 1) * width * decoder_width
        + (decoder_depth - 1) * block(n + 1, decoder_width)
        + last_block(n + 1, last, decoder_width)
        + 2 * masked * decoder_width * patch
    )


def flops(variant, scan=True, **keys):
    """Returns model and hardware FLOPs of a step."""
    config = runpy.run_path(str(MAE))["get_config"](variant)
    keys = {name.replace("__", "."): value for name, value in keys.items()}
    keys |= {"train.batch_size": BATCH, "data.inputs.image.decode_size": None}
    keys["data.inputs.image.augment.crop"] = "none"
    keys |= {"system.encoder.scan": scan, "system.decoder.scan": scan}
    run = prepare(for_accelerators(changed(config, keys)), jax.devices()[:1], range(100))
    batch = batch_shapes(run.system.inputs, BATCH, train=True)
    state = run.abstract_state
    with jax.set_mesh(run.mesh):
        hardware = count_flops(run.jitted_step, state, batch)
    return run.model_flops(state.variables, batch), hardware


@pytest.mark.parametrize("scan", [True, False])
def test_a_step_without_recomputation(scan):
    """No gradient is taken of pixels, so the embedding's backward pass is half of the usual."""
    keys = dict(system__encoder__remat="none", system__decoder__remat="none")
    model, hardware = flops("tiny", scan, **keys)
    assert model == 3 * BATCH * forward(16, 4, 4, 16, 2, 16, 1, scan)
    assert hardware == model - BATCH * 2 * 4 * 4 * 16


def again(n, d):
    """Projections of attention 8 N D^2, the first of the MLP 8 N D^2, scores 2 N^2 D.

    The weighted sum is kept, and the last product of a branch needs no second time.
    """
    return 16 * n * d**2 + 2 * n**2 * d


@pytest.mark.parametrize("remat", ["full", "hidden", "dots_with_no_batch_dims"])
def test_recomputation_does_not_weigh_the_values_again(remat):
    model, hardware = flops("tiny", system__encoder__remat=remat, system__decoder__remat=remat)
    twice = 2 * again(5, 16) + again(17, 16)
    if remat == "hidden":
        twice -= 2 * 8 * 5 * 16**2 + 8 * 17 * 16**2  # the first of the MLP is kept
    if remat == "dots_with_no_batch_dims":
        twice = 2 * 2 * 5**2 * 16 + 2 * 17**2 * 16  # scores alone
    assert hardware == model - BATCH * 2 * 4 * 4 * 16 + BATCH * twice
    assert hardware / model < 1.3


def test_precision_is_that_of_accelerators():
    config = for_accelerators(runpy.run_path(str(MAE))["get_config"]("B/16"))
    assert config.system.encoder.dtype == config.system.decoder.dtype == "bfloat16"
