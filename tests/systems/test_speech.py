"""Masked speech and Audio-MAE, put together."""

import jax
import numpy as np
import pytest

import test_configs
from maskjax.config import build
from maskjax.data import eval_batches
from maskjax.errors import UserError
from maskjax.report.views import columns
from maskjax.systems import build_system
from maskjax.training.gradients import loss_and_gradients


def small_batch(config, size=4):
    records = build(config.data.source).open("test")
    with eval_batches(records, build(config.data.inputs), batch_size=size) as batches:
        return {"audio": next(batches)["audio"]}


@pytest.fixture(scope="module")
def speech():
    """System, variables, batch and masks of hubert:tiny."""
    config = test_configs.load("hubert:tiny")
    system = build_system(config)
    variables = jax.jit(system.init)(jax.random.key(0))
    batch = small_batch(config)
    masks = jax.jit(system.sample_masks)(jax.random.key(1), variables, batch)
    return system, variables, batch, masks


def test_only_masked_frames_are_predicted(speech):
    system, variables, batch, masks = speech
    loss, grads, *_ = jax.jit(lambda *a: loss_and_gradients(system, *a, rngs={}))(*speech[1:])
    out = jax.jit(system.forward)(variables, batch, masks)
    codes, logits = out["targets"]["codes"], out["decoder"]["prediction"]
    assert codes.shape == (4, 12) and logits.shape == (4, 12, 16)
    hidden = np.asarray(masks["audio"].is_masked)
    log = jax.nn.log_softmax(logits)
    errors = -np.take_along_axis(np.asarray(log), np.asarray(codes)[:, :, None], axis=2)[:, :, 0]
    np.testing.assert_allclose(loss, errors[hidden].mean(), rtol=1e-5)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads["encoder"]["mask_token"]))


def test_pictures(speech):
    system, variables, batch, masks = speech
    drawn = columns(jax.device_get(jax.jit(system.reconstruct)(variables, batch, masks)), system)
    assert list(drawn) == ["original", "masked"]
    assert drawn["original"].shape == (4, 16, 24, 3)
    hidden = np.repeat(np.asarray(masks["audio"].is_masked), 2, axis=1)
    covered = (drawn["masked"] == drawn["masked"][0, 0, np.argmax(hidden[0])]).all(axis=(1, 3))
    np.testing.assert_array_equal(covered, hidden)


@pytest.mark.parametrize("variant", ["first", "second", "digits"])
def test_recipes_with_fitted_codes(variant, tmp_path, monkeypatch):
    """Shapes of a step, given a file of codes; without one, a sentence says what to do."""
    config = test_configs.load(f"hubert:{variant}")
    codes = config.system.targets.codes
    with pytest.raises(UserError, match="fit them with `python -m maskjax.codes"):
        build_system(config)
    width = 768 if variant == "second" else 39
    centroids = np.zeros((codes.clusters, width), np.float32)
    np.savez(tmp_path / "codes.npz", centroids=centroids, features=codes.features)
    codes.path = str(tmp_path / "codes.npz")
    monkeypatch.setattr(test_configs, "load", lambda _: config)
    test_configs.test_a_step_of_every_variant_has_the_right_shapes(variant)
