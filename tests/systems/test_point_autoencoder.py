"""Point-MAE as a system: agreement with the reference, statistics, encoding, refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.data import Points
from maskjax.errors import UserError
from maskjax.masking import Ball, Uniform
from maskjax.models import PointDecoder, PointEncoder
from maskjax.objectives import Chamfer
from maskjax.systems import PointAutoencoder
from maskjax.training.gradients import loss_and_gradients
from point_mae_names import mask_of, params, statistics


def close(actual, expected, rtol):
    np.testing.assert_allclose(
        np.asarray(actual), expected, rtol=rtol, atol=rtol * np.abs(expected).max()
    )


def system(**changes):
    options = dict(width=32, heads=2, dtype="float32", drop_path=0.0)
    arguments = dict(
        groups=16,
        group_size=8,
        skip_ball=1e-3,
        encoder=PointEncoder(depth=2, embed_hidden=(16, 32, 64), **options),
        decoder=PointDecoder(depth=1, **options),
        mask=Uniform(9 / 16),
        terms={"chamfer": Chamfer()},
        inputs={"points": Points(count=128)},
    )
    return PointAutoencoder(**{**arguments, **changes})


@pytest.fixture(scope="module")
def reference(golden):
    return golden("point_mae")


@pytest.fixture(scope="module")
def given(reference):
    stats = jax.tree.map(jnp.asarray, {"encoder": statistics(reference, "param/")})
    variables = {"params": params(reference), "stats": stats}
    batch = {"points": jnp.asarray(reference["in/points"])}
    return variables, batch, {"points": mask_of(reference)}


def test_a_training_step_agrees(reference, given):
    keys = {"dropout": jax.random.key(0)}
    loss, grads, _, stats = jax.jit(lambda *a: loss_and_gradients(system(), *a))(*given, keys)
    close(loss, reference["out/loss"], 1e-5)
    expected = statistics(reference, "out/after/")
    jax.tree.map(lambda a, b: close(a, b, 1e-5), stats["encoder"], expected)
    head = grads["decoder"]["head"]["kernel"].T[:, :, None]
    close(head, reference["grad/increase_dim.0.weight"], 1e-4)
    close(
        grads["encoder"]["embed"]["first_up"]["kernel"].T[:, :, None],
        reference["grad/MAE_encoder.encoder.first_conv.0.weight"],
        1e-4,
    )


def test_fresh_variables_draw_encode_and_reconstruct(given):
    points = system(mask=Ball(0.6))
    points.check()
    variables = jax.jit(points.init)(jax.random.key(0))
    shapes = jax.tree.map(jnp.shape, variables)
    assert shapes == jax.tree.map(jnp.shape, given[0])

    @jax.jit
    def run(variables, batch):
        masks = points.sample_masks(jax.random.key(1), variables, batch, 0.0)
        return masks, points.reconstruct(variables, batch, masks), points.encode(variables, batch)

    batch = given[1]
    masks, pictures, encoded = run(variables, batch)
    assert masks["points"].drop.shape == (2, 9)
    assert tuple(sorted(pictures)) == tuple(sorted(points.titles))
    counts = {title: cloud.shape[1] for title, cloud in pictures.items()}
    assert counts == {"original": 128, "masked": 56, "prediction": 72, "paste-back": 128}
    # Points of visible groups are points of the cloud, at their places.
    nearest = jnp.abs(pictures["masked"][:, :, None] - batch["points"][:, None]).sum(-1).min(-1)
    assert nearest.max() < 1e-5
    assert encoded["encoder"]["mean"].shape == encoded["encoder"]["max"].shape == (2, 32)
    assert encoded["encoder"]["pooled"].shape == (2, 64)


def test_evaluation_does_not_depend_on_the_rest_of_the_batch(given):
    variables, batch, _ = given
    both = jax.jit(system().encode)(variables, batch)["encoder"]["mean"]
    one = jax.jit(system().encode)(variables, {"points": batch["points"][:1]})["encoder"]["mean"]
    np.testing.assert_allclose(both[:1], one, rtol=1e-5, atol=1e-6)


def test_stochastic_depth_needs_keys(given):
    variables, batch, masks = given
    dropping = system()
    dropping = dataclasses.replace(dropping, encoder=dropping.encoder.clone(drop_path=0.9))

    @jax.jit
    def tokens(key):
        out = dropping.forward(variables, batch, masks, {"dropout": key})
        return out["encoder"]["tokens"]

    assert not np.allclose(tokens(jax.random.key(0)), tokens(jax.random.key(3)))
    fixed = jax.jit(dropping.forward)(variables, batch, masks)["encoder"]["tokens"]
    np.testing.assert_array_equal(
        fixed, jax.jit(system().forward)(variables, batch, masks)["encoder"]["tokens"]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(inputs={"points": Points(count=15)}), r"count is 15, fewer than groups \(16\)"),
        (dict(group_size=200), r"fewer than points of a group \(200\)"),
        (dict(groups=0), "system.groups is 0"),
        (dict(mask=Uniform(0.99)), "masks all of the 16 tokens"),
        (dict(input_name="cloud"), "did you mean|there are"),
        (dict(encoder=PointEncoder(width=30, heads=4, depth=1)), "not divisible by 4"),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(UserError, match=message):
        system(**changes).check()


def test_encode_refuses_clouds_of_too_few_points(given):
    with pytest.raises(UserError, match="The clouds have 10 points"):
        system().encode(given[0], {"points": given[1]["points"][:, :10]})
