"""Every configuration builds; every variant that is small enough trains."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from maskjax.config import build, from_json, to_json, validate
from maskjax.systems import build_system
from maskjax.training.durations import Clock
from maskjax.training.state import init_state
from maskjax.training.step import make_train_step

CONFIGS = Path(__file__).parents[1] / "configs"
VARIANTS = ["quickstart", "mae", "mae:L/16", "mae:H/14", "mae:cifar10", "mae:tiny", "folder:photos"]


def load(variant):
    name, _, argument = variant.partition(":")
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.__doc__
    assert "python -m maskjax.train" in module.__doc__
    return module.get_config(argument) if argument else module.get_config()


def test_every_file_is_tested():
    assert {path.stem for path in CONFIGS.glob("*.py")} == {v.split(":")[0] for v in VARIANTS}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_of_every_variant_has_the_right_shapes(variant):
    config = load(variant)
    validate(config)
    config = from_json(to_json(config))
    system = build_system(config)
    clock = Clock(config.train.batch_size, steps_per_epoch=1000)
    total = clock.steps(config.train.duration, "train.duration")
    clock = Clock(config.train.batch_size, 1000, total)
    optimizer, augment = build(config.optimizer).build(), build(config.data.augment)
    size = tuple(config.data.image_size)
    step = make_train_step(
        system,
        lambda key, b: {**b, "image": augment.on_device(key, b["image"], size)},
        optimizer,
        build(config.schedule).build(clock),
        total,
        config.train.accumulate,
    )
    state = jax.eval_shape(lambda: init_state(system, optimizer, 0))
    read = size if augment.place == "host" else tuple(config.data.decode_size or size)
    image = jax.ShapeDtypeStruct((8, *read, config.data.channels), jnp.uint8)
    batch = {"image": image, "_mask": jax.ShapeDtypeStruct((8,), bool)}
    after, metrics = jax.eval_shape(step, state, batch)
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) for tree in (state, after)]
    assert shapes[0] == shapes[1]
    assert metrics["loss"].shape == ()
