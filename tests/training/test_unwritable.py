"""What is written beside checkpoints may fail without ending a run."""

import errno
import json

from maskjax.training.loop import train
from maskjax.training.run import claim_workdir
from maskjax.training.writers import METRICS_FILE, MetricWriter, read_metrics


def test_metrics(tmp_path):
    said = []
    writer = MetricWriter(tmp_path, 0, say=said.append)
    writer.write(1, {"a": 1.0})
    path = tmp_path / METRICS_FILE
    kept = path.rename(tmp_path / "kept")
    path.mkdir()  # nothing can be appended to a directory
    writer.write(2, {"a": 2.0})
    assert len(said) == 1 and "metrics of step 2 could not be written" in said[0]
    path.rmdir()
    kept.rename(path)
    writer.write(3, {"a": 3.0})
    assert [line["step"] for line in read_metrics(path)] == [1, 3]
    assert len(said) == 1


def test_pictures(tiny, one_device, tmp_path, capsys):
    run = one_device(tiny(train__duration="4 steps", log__pictures_every="2 steps"))
    claim_workdir(tmp_path, run.config, print)

    def draw(variables, step):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert train(run, tmp_path, lambda *_: {}, draw)
    out = capsys.readouterr().out
    for step in (2, 4):
        assert f"pictures of step {step} could not be written ([Errno 28] No space left" in out
    lines = [json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    assert any("train/finished" in line for line in lines)
