"""Farthest points, neighbours and groups: against the reference and against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.tokens.points import farthest_points, group_points, nearest_points, squared_distances


@pytest.fixture(scope="module")
def reference(golden):
    return golden("point_mae")


def test_farthest_points_agree(reference):
    points = jnp.asarray(reference["in/points"])
    np.testing.assert_array_equal(
        jax.jit(farthest_points, static_argnums=(1, 2))(points, 16, 1e-3), reference["out/fps_idx"]
    )


def test_groups_agree(reference):
    groups = group_points(jnp.asarray(reference["in/points"]), 16, 8, skip_ball=1e-3)
    np.testing.assert_array_equal(groups.index, reference["out/knn_idx"])
    np.testing.assert_array_equal(groups.centre_index, reference["out/fps_idx"])
    np.testing.assert_array_equal(groups.centres, reference["out/center"])
    np.testing.assert_allclose(groups.neighbours, reference["out/neighborhood"], rtol=1e-6)


def test_farthest_points_against_a_loop():
    cloud = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    chosen = [0]
    while len(chosen) < 12:
        distance = np.square(cloud[:, None] - cloud[None, chosen]).sum(-1).min(1)
        chosen.append(int(distance.argmax()))
    assert farthest_points(jnp.asarray(cloud)[None], 12)[0].tolist() == chosen
    assert len(set(chosen)) == 12


def test_skip_ball_leaves_out_what_is_near_the_origin():
    cloud = jnp.asarray([[[1.0, 0, 0], [0, 0, 0], [1.1, 0, 0], [0.9, 0, 0]]])
    assert farthest_points(cloud, 2)[0].tolist() == [0, 1]
    assert farthest_points(cloud, 2, skip_ball=1e-3)[0].tolist() == [0, 2]


def test_neighbours_ascend_and_ties_go_by_index():
    cloud = jnp.asarray([[[0.0, 0, 0], [2, 0, 0], [1, 0, 0], [-1, 0, 0]]])
    assert nearest_points(cloud, cloud[:, :1], 4)[0, 0].tolist() == [0, 2, 3, 1]


def test_distances_of_near_points_far_from_the_origin():
    a = jnp.asarray([[1000.0, 0, 0]])
    b = jnp.asarray([[1000.0, 0.001, 0], [1000.0, 0.002, 0]])
    np.testing.assert_allclose(squared_distances(a, b), [[1e-6, 4e-6]], rtol=1e-5)


def test_grouping_is_not_differentiated():
    cloud = jnp.asarray(np.random.default_rng(1).normal(size=(1, 20, 3)), jnp.float32)
    gradient = jax.grad(lambda x: group_points(x, 4, 5).neighbours.sum())(cloud)
    assert not np.asarray(gradient).any()
