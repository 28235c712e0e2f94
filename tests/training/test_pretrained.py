"""Weights of an earlier run: a teacher gets them before the first step, or is refused."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

import maskjax
from maskjax.errors import UserError
from maskjax.systems import build_system
from maskjax.training.pretrained import restore_part
from maskjax.training.run import prepare

CONFIGS = Path(__file__).parents[2] / "configs"


def dmae(**network):
    """DMAE's smallest configuration with a teacher of the size of MAE's smallest."""
    spec = importlib.util.spec_from_file_location("dmae", CONFIGS / "dmae.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("tiny")
    config.system.teachers.teacher.network.update({"width": 16, **network})
    config.system.heads.projection.width = 16
    return config


def test_a_teacher_has_the_weights_of_its_run(tiny_run):
    config = dmae()
    config.system.teachers.teacher.run = str(tiny_run)
    state = prepare(config, jax.devices()[:1]).init_state()
    before = maskjax.load(tiny_run).variables["params"]["encoder"]
    jax.tree.map(np.testing.assert_array_equal, state.variables["teacher"]["teacher"], before)


@pytest.mark.parametrize(
    ("network", "source", "words"),
    [
        (dict(heads=4), "params/encoder", "has heads 2, here it is 4"),
        (dict(depth=3), "params/encoder", "has depth 2, here it is 3"),
        (dict(), "params/decoder", "decoder of .* is a models.MAEDecoder"),
        (dict(), "teacher/average/encoder", "absent there"),
    ],
)
def test_another_network_than_that_of_the_run_is_refused(tiny_run, network, source, words):
    config = dmae(**network)
    teacher = config.system.teachers.teacher
    teacher.run, teacher.source = str(tiny_run), source
    system = build_system(config)
    variables = system.shapes
    with pytest.raises(UserError, match=words):
        system.load_pretrained(variables, restore_part)


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    config = dmae()
    config.system.teachers.teacher.run = str(tmp_path)
    system = build_system(config)
    variables = system.shapes
    with pytest.raises(UserError, match="has no checkpoint"):
        system.load_pretrained(variables, restore_part)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.terms.distillation.update(target="teachers.teacher.blocks.7"), "there are 2"),
        (lambda s: s.terms.distillation.update(target="teachers.other.blocks.0"), "did you mean"),
        (lambda s: s.heads.projection.update(source="encoder.block.0"), "did you mean"),
        (lambda s: s.heads.projection.update(width=20), "same D"),
        (lambda s: s.teachers.teacher.network.update(patch_size=(4, 4)), "2x2 tokens.* 4x4"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(change, words):
    config = dmae()
    change(config.system)
    with pytest.raises(UserError, match=words):
        build_system(config)
