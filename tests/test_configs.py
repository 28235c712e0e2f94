"""Every configuration builds, and a step of it has the right shapes."""

import importlib.util
from pathlib import Path

import jax
import pytest

from maskjax.config import ConfigDict, build, from_json, to_json, validate
from maskjax.data import batch_shapes
from maskjax.systems import build_system
from maskjax.training.durations import Clock
from maskjax.training.state import init_state
from maskjax.training.step import make_train_step

CONFIGS = Path(__file__).parents[1] / "configs"
VARIANTS = [
    *["quickstart", "mae", "mae:L/16", "mae:H/14", "mae:cifar10", "mae:camvid", "mae:tiny"],
    "folder:photos",
    *["colormae", "colormae:red", "colormae:cifar10", "colormae:tiny"],
    *["ijepa", "ijepa:B/16", "ijepa:cifar10", "ijepa:tiny"],
    *["hpm", "hpm:L/16", "hpm:cifar10", "hpm:tiny"],
    *["dmae", "dmae:cifar10-teacher", "dmae:cifar10", "dmae:tiny"],
    *["mrmae", "mrmae:cifar10", "mrmae:tiny"],
    *["vq", "vq:cifar10", "vq:tiny", "umd", "umd:L/4", "umd:cifar10", "umd:tiny"],
    *["maskgit", "maskgit:cifar10", "maskgit:tiny"],
    *["dbot", "dbot:L/16", "dbot:cifar10", "dbot:tiny"],
    *["audio_mae", "audio_mae:global", "audio_mae:structured", "audio_mae:digits"],
    *["audio_mae:tiny", "hubert:tiny"],  # its other variants need codes: systems/test_speech.py
    *["point_mae", "point_mae:block", "point_mae:radhar", "point_mae:tiny"],
    *["simmim", "simmim:L/16", "simmim:cifar10", "simmim:tiny"],
    *["beit", "beit:L/16", "beit:cifar10", "beit:tiny"],
    *["videomae", "videomae:L/16", "videomae:v2", "videomae:v2-B/16", "videomae:cifar10"],
    *["videomae:v2-cifar10", "videomae:tiny", "videomae:v2-tiny"],
    *["spark", "spark:convnext_b", "spark:cifar10", "spark:tiny"],
    *["m3ae", "m3ae:L/16", "m3ae:flickr8k", "m3ae:tiny"],
    *["multimae", "multimae:rgb_nir", "multimae:remote_sensing", "multimae:tiny"],
    *["finetune", "finetune:repo-L/16", "finetune:linear-H/14", "finetune:cifar10"],
    *["finetune:linear-cifar10", "finetune:tiny", "finetune:linear-tiny"],
    *["finetune:attentive-L/16", "finetune:attentive-cifar10", "finetune:attentive-tiny"],
    *["finetune_video", "finetune_video:H/16", "finetune_video:ssv2-B/16"],
    *["finetune_video:cifar10", "finetune_video:tiny"],
    *["finetune_audio", "finetune_audio:as20k", "finetune_audio:as2m", "finetune_audio:tiny"],
    *["finetune_points", "finetune_points:radhar", "finetune_points:tiny"],
    *["retromae:tiny", "retromae:dupmae-tiny"],  # the others need files: systems/test_retro.py
]


def load(variant):
    name, _, argument = variant.partition(":")
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.__doc__
    assert "python -m maskjax.train" in module.__doc__
    return module.get_config(argument) if argument else module.get_config()


def scan_all(section):
    """Sets `scan` wherever there is one: the parameters are the same, and depth costs nothing."""
    for name, value in section.items():
        if isinstance(value, ConfigDict):
            scan_all(value)
        elif name == "scan":
            section.scan = True


def test_every_file_is_tested():
    assert {path.stem for path in CONFIGS.glob("*.py")} == {v.split(":")[0] for v in VARIANTS}


# Those that end in "tiny" are trained by test_systems.py.
@pytest.mark.parametrize("variant", [v for v in VARIANTS if not v.endswith("tiny")])
def test_a_step_of_every_variant_has_the_right_shapes(variant):
    config = load(variant)
    validate(config)
    config = from_json(to_json(config))
    scan_all(config)
    clock = Clock(config.train.batch_size, steps_per_epoch=1000)
    total = clock.steps(config.train.duration, "train.duration")
    clock = Clock(config.train.batch_size, 1000, total)
    batch_size = 8 * config.train.accumulate
    with config.unlocked():
        config.train.batch_size = batch_size
    system = build_system(config)
    optimizer = build(config.optimizer).build(total)
    step = make_train_step(
        system,
        optimizer,
        build(config.schedule).build(clock),
        total,
        config.train.accumulate,
    )
    state = jax.eval_shape(lambda: init_state(system, optimizer, 0))
    batch = batch_shapes(system.inputs, batch_size, train=True)
    batch["label"] = jax.ShapeDtypeStruct((batch_size,), jax.numpy.int32)
    after, metrics = jax.eval_shape(step, state, batch)
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) for tree in (state, after)]
    assert shapes[0] == shapes[1]
    assert metrics["loss"].shape == ()
