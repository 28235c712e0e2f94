"""The commands as a user types them, on a run of a few steps."""

import json

import commands
import numpy as np

import maskjax
from maskjax.config import from_json


def metrics(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_run_leaves_what_its_contract_says(tiny_run):
    config = from_json((tiny_run / "config.json").read_text())
    assert config.train.duration == "6 steps"
    names = set().union(*metrics(tiny_run))
    assert {"step", "train/loss", "train/examples_per_second", "train/data_wait_share"} <= names
    for row in ("eval", "eval/raw", "eval/random"):
        assert {f"{row}/knn/accuracy", f"{row}/linear/accuracy"} <= names
    assert "train/mfu" not in names  # the peak of a CPU is not known
    assert list(tiny_run.glob("events.out.tfevents.*"))
    assert (tiny_run / "checkpoints" / "6").is_dir()
    assert list((tiny_run / "pictures").glob("*.png"))
    report = (tiny_run / "report.html").read_text()
    assert "http://" not in report.replace("http://www.w3.org", "")
    assert "pretrained encoder" in report


def test_a_finished_run_says_so_and_changes_nothing(tiny_run):
    before = (tiny_run / "metrics.jsonl").read_text()
    flags = f"--workdir={tiny_run}", "--config.train.duration=6 steps"
    result = commands.run("train", "--config=configs/mae.py:tiny", *flags)
    assert result.returncode == 0, result.stderr
    assert "nothing to do" in result.stdout
    assert (tiny_run / "metrics.jsonl").read_text() == before


def test_eval_repeats_the_figures_and_adds_a_feature(tiny_run):
    first = {k: v for line in metrics(tiny_run) for k, v in line.items()}
    result = commands.run("eval", f"--workdir={tiny_run}", "--nobaselines")
    assert result.returncode == 0, result.stderr
    again = metrics(tiny_run)[-1]
    assert again["eval/linear/accuracy"] == first["eval/linear/accuracy"]
    assert again["eval/knn/accuracy"] == first["eval/knn/accuracy"]
    result = commands.run("eval", f"--workdir={tiny_run}", "--feature=encoder.cls")
    assert result.returncode == 0, result.stderr
    assert "encoder.cls" in result.stdout
    assert 0 <= metrics(tiny_run)[-1]["eval/encoder.cls/knn/accuracy"] <= 1
    wrong = commands.run("eval", f"--workdir={tiny_run}", "--feature=encoder.clss")
    assert wrong.returncode == 1
    assert "did you mean 'encoder.cls'" in wrong.stderr


def test_inspect_prints_parameters_checkpoints_and_configuration(tiny_run):
    result = commands.run("inspect", f"--workdir={tiny_run}")
    assert result.returncode == 0, result.stderr
    for words in ("encoder/stack/blocks", "opt_state/0/mu", '"patch_size"', "Total"):
        assert words in result.stdout


def test_export_prints_the_line_that_reloads(tiny_run, tmp_path):
    result = commands.run("export", f"--workdir={tiny_run}", f"--out={tmp_path / 'x'}")
    assert result.returncode == 0, result.stderr
    assert "jax.export.deserialize" in result.stdout


def test_statistics_are_those_of_the_digits():
    result = commands.run("statistics", "--config=configs/mae.py:tiny")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == "c.data.inputs.image.mean = (0.3052,)"


def test_load_encodes_without_masks_at_any_size(tiny_run):
    run = maskjax.load(tiny_run)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    out = run.encode(images)["encoder"]
    assert out["patches"].shape == (3, 16, 16)
    np.testing.assert_array_equal(out["mean"], run.encode(images)["encoder"]["mean"])
    larger = run.encode(np.repeat(images, 2, axis=1))["encoder"]["patches"]
    assert larger.shape == (3, 32, 16)
    # Token order is raster order: a patch changes its own embedding and no other.
    changed = images.copy()
    changed[:, :2, 2:4] = 255 - changed[:, :2, 2:4]
    difference = run.encode(changed)["encoder"]["embedded"] - out["embedded"]
    np.testing.assert_array_equal(np.flatnonzero(np.abs(difference).sum((0, 2))), [1])


def test_no_run_and_no_checkpoint_are_one_sentence(tmp_path):
    result = commands.run("eval", f"--workdir={tmp_path}")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "not the directory of a run" in result.stderr
