"""A run that an earlier version wrote is read, used and continued by this one.

`tests/fixtures/run_VERSION.zip` holds the directory of a run of that version:

    python -m maskjax.train --config=configs/mae.py:tiny --workdir=DIR \
      --config.train.duration="3 steps" --config.log.pictures=0 --config.log.tensorboard=False \
      --config.data.test_split=None --config.system.encoder.depth=1 --config.checkpoint.keep_last=1

and in `mean.npy` what it made of the three images below. None of them is ever made again: a version
that changes what is stored adds one.
"""

import json
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

import maskjax
from maskjax.errors import UserError
from maskjax.training.run import prepare, read_config
from maskjax.training.writers import METRICS_FILE, read_metrics

STORED = sorted((Path(__file__).parents[1] / "fixtures").glob("run_*.zip"))


@pytest.fixture(params=STORED, ids=lambda path: path.stem)
def stored(request, tmp_path):
    """Returns the directory of a stored run, to do with as one likes."""
    with zipfile.ZipFile(request.param) as archive:
        archive.extractall(tmp_path)
    return tmp_path


def test_it_encodes_as_it_did(stored):
    images = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8, 1)
    run = maskjax.load(stored)
    assert run.step == 3
    mean = run.encode(images)["encoder"]["mean"]
    np.testing.assert_allclose(mean, np.load(stored / "mean.npy"), rtol=1e-5, atol=1e-5)


def test_it_goes_on(stored, launch, capsys):
    config = read_config(stored).copy_and_resolve_references().unlock()
    config.train.duration = "5 steps"
    config.log.every = "1 steps"
    run = prepare(config, jax.devices()[:1])
    (stored / "config.json").unlink()  # another duration would be another run
    assert launch(run, stored)
    assert "step 3: its checkpoint is the newest" in capsys.readouterr().out
    losses = {
        line["step"]: line["train/loss"]
        for line in read_metrics(stored / METRICS_FILE)
        if "train/loss" in line
    }
    assert {4, 5} <= set(losses) and all(np.isfinite(loss) for loss in losses.values())


def test_keys_that_came_later_have_their_defaults(stored):
    path = stored / "config.json"
    config = json.loads(path.read_text())
    before = read_config(stored)
    assert "slice" not in config["parallel"]["mesh"] and before.parallel.mesh.slice == 1
    assert config["train"].pop("non_finite_limit") == 3
    assert config["system"]["encoder"].pop("class_token") is True
    assert config["parallel"].pop("mesh")
    path.write_text(json.dumps(config))
    assert read_config(stored).to_dict() == before.to_dict()
    config["train"]["no_longer"] = 1
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match="no key 'config.train.no_longer'"):
        read_config(stored)
