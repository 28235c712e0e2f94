"""Fitting codes."""

import numpy as np
import pytest

import test_configs
from maskjax.config import part
from maskjax.errors import UserError
from maskjax.systems import build_system
from maskjax.training.code_fitting import fit_codes


def config_with(path, **options):
    config = test_configs.load("hubert:tiny")
    with config.unlocked():
        config.system.targets = dict(codes=part("targets.KMeansCodes", path=str(path), **options))
    return config


def test_cepstra(tmp_path):
    config = config_with(tmp_path / "new" / "codes.npz", clusters=8)
    with pytest.raises(UserError, match="no file"):
        build_system(config)
    text = fit_codes(config, tokens=1200)
    assert text.startswith("Fitted 8 codes of 39 features to 1200 tokens;")
    assert float(text.split("; ")[1].split(" %")[0]) < 80
    target = build_system(config).targets["codes"]
    assert target.centroids.shape == (8, 39) and np.ptp(target.centroids) > 0
    first = target.centroids
    fit_codes(config, out=str(tmp_path / "again.npz"), tokens=1200)
    with np.load(tmp_path / "again.npz") as file:
        np.testing.assert_array_equal(file["centroids"], first)  # the seed decides


def test_a_layer_of_a_teacher(tmp_path):
    config = config_with(tmp_path / "codes.npz", clusters=4, features="teachers.before.blocks.0")
    with config.unlocked():
        teacher = part("systems.FrozenTeacher", network=config.system.encoder)
        config.system.teachers = dict(before=teacher)
    text = fit_codes(config, tokens=600)
    assert "4 codes of 16 features to 600 tokens" in text
    build_system(config)


def test_refusals(tmp_path):
    path = tmp_path / "codes.npz"
    with pytest.raises(UserError, match="no targets.KMeansCodes 'codes': there is nothing to fit"):
        fit_codes(test_configs.load("hubert:tiny"))
    with pytest.raises(UserError, match="no targets.KMeansCodes 'kodes': it has codes"):
        fit_codes(config_with(path), name="kodes")
    with pytest.raises(UserError, match="24 tokens are too few for 100 codes"):
        fit_codes(config_with(path), tokens=20)
    config = test_configs.load("audio_mae:tiny")
    with config.unlocked():
        config.system.targets = dict(codes=part("targets.KMeansCodes", path=str(path)))
    with pytest.raises(UserError, match="along time alone"):
        fit_codes(config)
