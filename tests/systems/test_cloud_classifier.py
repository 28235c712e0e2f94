"""Fine-tuning of point clouds: the pretrained parameters, what is new beside them, and votes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.data import DigitPoints, PointAugment, Points, eval_batches, view_count
from maskjax.errors import UserError
from maskjax.evaluation.features import extract, selector
from maskjax.models import MLPHead
from maskjax.paths import named_leaves
from maskjax.systems import build_system
from test_configs import load


@pytest.fixture(scope="module")
def systems():
    return build_system(load("point_mae:tiny")), build_system(load("finetune_points:tiny"))


def pretrained(system, variables, asked):
    """What a run of Point-MAE would give: its parameters, by name and no more."""

    def restore(run, path, tree, step, network):
        asked.append((path, type(network).__name__))
        given = variables
        for name in path.split("/"):
            given = given[name]
        shapes = [jax.tree.map(lambda leaf: leaf.shape, each) for each in (dict(tree), dict(given))]
        assert shapes[0] == shapes[1]
        return given

    return restore


def test_the_parameters_are_those_of_the_pretraining_and_a_class_token(systems):
    there, here = systems
    first = jax.jit(there.init)(jax.random.key(1))
    fresh = jax.jit(here.init)(jax.random.key(2))
    names = {name for name, _ in named_leaves(fresh["params"]["encoder"]).items()}
    assert names - set(named_leaves(first["params"]["encoder"])) == {"cls", "cls_position"}
    asked = []
    config = load("finetune_points:tiny")
    config.system.run = "somewhere"
    system = build_system(config)
    loaded = system.load_pretrained(fresh, pretrained(there, first, asked))
    assert sorted(asked) == [
        ("params/encoder", "PointEncoder"),
        ("stats/encoder", "PointEncoder"),
    ]
    for name, leaf in named_leaves(loaded["params"]["encoder"]).items():
        source = fresh if name in ("cls", "cls_position") else first
        np.testing.assert_array_equal(leaf, named_leaves(source["params"]["encoder"])[name])
    np.testing.assert_array_equal(
        loaded["params"]["head"]["linear"]["kernel"], fresh["params"]["head"]["linear"]["kernel"]
    )


def test_the_head_reads_the_class_token_beside_the_maximum_of_the_groups(systems):
    there, here = systems
    rng = np.random.default_rng(0)
    points = jnp.asarray(rng.normal(size=(3, 64, 3)) / 4, jnp.float32)
    variables = jax.jit(here.init)(jax.random.key(0))
    encode = jax.jit(here.encode)
    out = encode(variables, {"points": points})
    encoder = out["encoder"]
    assert encoder["tokens"].shape == (3, 13, 16) and encoder["patches"].shape == (3, 12, 16)
    np.testing.assert_array_equal(encoder["cls"], encoder["tokens"][:, 0])
    largest = encoder["tokens"][:, 1:].max(axis=1)
    pooled = np.concatenate([encoder["tokens"][:, 0], largest], axis=1)
    np.testing.assert_allclose(encoder["pooled"], pooled, rtol=1e-6)
    np.testing.assert_allclose(out["head"]["features"], pooled, rtol=1e-6)
    assert out["head"]["logits"].shape == (3, 10)
    # Without a class token nothing has changed: groups see each other alone.
    plain = {
        "params": {"encoder": dict(variables["params"]["encoder"])},
        "stats": variables["stats"],
    }
    for name in ("cls", "cls_position"):
        del plain["params"]["encoder"][name]
    alone = jax.jit(there.encode)(plain, {"points": points})["encoder"]
    assert alone["tokens"].shape == (3, 12, 16) and "cls" not in alone
    np.testing.assert_allclose(alone["embedded"], encoder["embedded"], atol=1e-6)
    assert abs(alone["tokens"] - encoder["patches"]).max() > 1e-4
    # The order of the points does not matter, but for where the farthest points begin.
    order = np.concatenate([[0], 1 + rng.permutation(63)])
    again = encode(variables, {"points": points[:, order]})
    np.testing.assert_allclose(again["head"]["logits"], out["head"]["logits"], atol=1e-5)


def test_the_mlp_drops_in_training_alone():
    head = MLPHead(4, source="x", hidden=(32,), dropout=0.5)
    out = {"x": jax.random.normal(jax.random.key(0), (6, 8))}
    variables = head.init(jax.random.key(1), out, 1)
    logits = head.apply(variables, out, 1)["logits"]
    np.testing.assert_array_equal(head.apply(variables, out, 1)["logits"], logits)
    drawn = [
        head.apply(variables, out, 1, rngs={"dropout": jax.random.key(i)}, mutable=["batch_stats"])[
            0
        ]["logits"]
        for i in range(2)
    ]
    assert (drawn[0] != drawn[1]).any()
    with pytest.raises(UserError, match="neither tokens nor a vector"):
        MLPHead(4, source="x").init(jax.random.key(0), {"x": jnp.zeros((2, 3, 4, 5))}, 1)


def test_votes_are_drawn_alike_for_all_clouds_and_averaged():
    records = DigitPoints(count=40).open("test")
    points = Points(count=16, eval_votes=4, augment=PointAugment(rotate=90.0, axis="z"))
    clouds = [np.asarray(records[i]["points"]) for i in range(5)]
    votes = [np.stack([points.read_view(cloud, v) for v in range(4)]) for cloud in clouds]
    assert all(len({vote.tobytes() for vote in each}) == 4 for each in votes)
    np.testing.assert_array_equal(votes[0][2], points.read_view(clouds[0], 2))
    inputs = {"points": points}
    with eval_batches(
        records, inputs, batch_size=30, max_examples=None, threads=2, views=view_count(inputs)
    ) as batches:
        encode = lambda variables, batch: {"mean": batch["points"].mean(axis=1)}  # noqa: E731
        found = extract(selector(encode, ["mean"]), None, batches, jax.device_put)["mean"]
    assert len(found) == len(records)
    expected = [vote.mean(axis=(0, 1)) for vote in votes]
    np.testing.assert_allclose(found.values[:5], expected, atol=1e-6)


def test_augmentation_on_the_host_is_that_of_the_device():
    """Turned, scaled along each axis, moved: the same matrix for all points of a cloud."""
    augment = PointAugment(rotate=30.0, axis="y", scale=(0.5, 2.0), shift=0.3)
    points = np.concatenate([np.eye(3), np.zeros((1, 3))]).astype(np.float32)
    for seed in range(20):
        moved = augment.on_host(np.random.default_rng(seed), points)
        shift, matrix = moved[3], moved[:3] - moved[3]
        assert abs(shift).max() <= 0.3
        scale = np.linalg.norm(matrix, axis=0)
        assert (scale >= 0.5 - 1e-6).all() and (scale <= 2 + 1e-6).all()
        turn = matrix / scale
        np.testing.assert_allclose(turn[1], [0, 1, 0], atol=1e-6)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-5)
        assert turn[0, 0] >= np.cos(np.radians(30)) - 1e-5
    with pytest.raises(UserError, match="eval_votes"):
        Points(eval_votes=0)
