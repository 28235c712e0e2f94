"""One device or eight: the same masks, losses and parameters."""

import dataclasses
import functools
import os
import signal

import jax
import numpy as np
import pytest

from maskjax.config import part
from maskjax.errors import UserError
from maskjax.parallel.sharding import batch_sharding, place_batch
from maskjax.training.run import prepare
from maskjax.training.streams import stream

STEPS = 5
MESHES = {
    "data 8": dict(data=8, fsdp=1),
    "fsdp 8": dict(data=1, fsdp=8),
    "data 2, fsdp 2, tensor 2": dict(data=2, fsdp=2, tensor=2),
    "slice 2, data 2, fsdp 2": dict(slice=2, data=2, fsdp=2),
}


@pytest.fixture(scope="module", autouse=True)
def slices():
    """The simulated devices belong to two slices, alternately."""
    kind = type(jax.devices()[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "slice_index", property(lambda d: d.id % 2), raising=False)
        yield


@pytest.fixture(scope="module")
def on(tiny, slices):
    """Returns a function that prepares a run on a mesh, or on the first of the devices."""

    @functools.cache
    def on(devices=None, accumulate=1, **mesh):
        config = tiny(
            train__duration=f"{STEPS} steps",
            train__accumulate=accumulate,
            parallel__fsdp_min_size=256,
            schedule__base_lr=1e-3,
            schedule__reference_batch=0,
            schedule__warmup="0 steps",
            # The gradient of the keys' bias is rounding alone, which Adam would scale up.
            optimizer__epsilon=1e-6,
        )
        config.parallel.mesh.update(mesh)
        # Normalising divides rounding by a standard deviation that is close to zero in the dark
        # corners of the digits: targets, and with them the loss, would differ by about 1e-5.
        with config.unlocked():
            config.system.targets.pixels = part("targets.Pixels")
        return prepare(config, devices and jax.devices()[:devices])

    return on


@pytest.fixture(scope="module")
def reference(on, launch, saved, curves, tmp_path_factory):
    """The run on one device: (parameters at the start, state at the end, curve)."""
    run, workdir = on(1), tmp_path_factory.mktemp("devices") / "one"
    assert launch(run, workdir)
    leaves = jax.tree_util.tree_flatten_with_path(run.init_state())[0]
    initial = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    return initial, saved(run, workdir), curves(workdir)


@pytest.mark.parametrize("mesh", MESHES)
def test_training(on, launch, saved, curves, tmp_path, reference, mesh):
    initial, expected, expected_curve = reference
    run = on(**MESHES[mesh])
    assert run.mesh.size == 8
    assert launch(run, tmp_path / "eight")
    state, curve = saved(run, tmp_path / "eight"), curves(tmp_path / "eight")

    assert [step for step, _ in curve] == list(range(1, STEPS + 1))
    for (_, here), (_, there) in zip(curve, expected_curve, strict=True):
        for name in there:
            rtol = 5e-5 if name == "train/gradient_norm" else 1e-5  # a sum of squares
            np.testing.assert_allclose(here[name], there[name], rtol=rtol, err_msg=name)
    assert state.keys() == expected.keys()
    for path, there in expected.items():
        np.testing.assert_allclose(state[path], there, rtol=1e-5, atol=1e-5, err_msg=path)
        # And that is little against the way they have gone.
        if path.startswith(".variables") and path.endswith("['kernel']"):
            assert np.abs(there - initial[path]).max() > 1e-3


def test_a_run_moves_from_mesh_to_mesh(on, launch, saved, curves, tmp_path, reference):
    """Each takes one step, from the checkpoint of the one before."""
    meshes = [
        on(8, data=2, fsdp=2, tensor=2),
        on(4, data=1, fsdp=4),
        on(2),
        on(1),
        on(8, data=1, fsdp=8),
    ]
    assert len(meshes) == STEPS
    states = []

    def leave(variables, step, final, go_on):
        if step == len(states) + 1:
            os.kill(os.getpid(), signal.SIGTERM)
            go_on()
        return {}

    for run in meshes:
        config = run.config.copy_and_resolve_references()
        config.eval.every = "1 steps"
        run = dataclasses.replace(run, config=config)
        if states:  # bit for bit, however it is split
            restored = saved(run, tmp_path)
            assert {k: v.tobytes() for k, v in restored.items()} == states[-1]
        assert not launch(run, tmp_path, evaluate=leave)
        states.append({k: v.tobytes() for k, v in saved(run, tmp_path).items()})
    curve, (_, _, expected) = curves(tmp_path), reference
    assert [step for step, _ in curve] == list(range(1, STEPS + 1))
    for (_, here), (_, there) in zip(curve, expected, strict=True):
        np.testing.assert_allclose(here["train/loss"], there["train/loss"], rtol=1e-6)


def test_parameters_are_split_under_fsdp(on):
    run = on(**MESHES["fsdp 8"])
    split = [
        leaf
        for leaf in jax.tree.leaves(run.init_state().variables)
        if not leaf.sharding.is_fully_replicated
    ]
    assert len(split) > 8
    assert all(leaf.addressable_shards[0].data.size * 8 == leaf.size for leaf in split)


@pytest.mark.parametrize("mesh", MESHES)
def test_masks(on, mesh):
    """Exactly equal, although each device draws those of its own examples."""
    drawn = []
    for run in (on(1), on(**MESHES[mesh])):
        images = np.zeros((run.config.train.batch_size, 8, 8, 1), np.uint8)
        batch = place_batch(run.mesh, {"image": images})

        def sample(step, batch, run=run):
            key = stream(jax.random.key(run.config.seed), "mask", step)
            return run.system.sample_masks(key, {}, batch, 0.0)["image"]

        with jax.set_mesh(run.mesh):
            sample = jax.jit(sample, out_shardings=batch_sharding(run.mesh))
            drawn.append([jax.device_get(sample(step, batch)) for step in range(3)])
    for one, eight in zip(*drawn, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, eight)
    assert not np.array_equal(drawn[0][0].keep, drawn[0][1].keep)
    assert len(np.unique(drawn[0][0].restore, axis=0)) > 100


def test_initialisation(on):
    one, eight = on(1).init_state(), on(**MESHES["fsdp 8"]).init_state()
    jax.tree.map(np.testing.assert_array_equal, *jax.device_get((one, eight)))


@pytest.mark.parametrize(
    ("mesh", "sentence"),
    [
        (dict(data=3), "data=3, fsdp=1, tensor=1 does not fit 8 devices"),
        (dict(data=-1, fsdp=3), "does not fit 8 devices"),
        (dict(data=16), "does not fit 8 devices"),
        (dict(data=-1, fsdp=-1), "at most one"),
        (dict(data=0), "positive"),
    ],
)
def test_mesh_that_does_not_fit(on, mesh, sentence):
    with pytest.raises(UserError, match=sentence):
        on(**mesh)


def test_batch_that_does_not_fit(on, tiny):
    with pytest.raises(UserError, match="A batch of 100 is not divisible by 8 devices"):
        prepare(tiny(train__batch_size=100))
    with pytest.raises(UserError, match="8 devices x 3 micro-batches"):
        on(accumulate=3)
    with pytest.raises(UserError, match="train.accumulate"):
        on(accumulate=0)
