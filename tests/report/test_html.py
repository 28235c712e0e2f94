import html.parser
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from maskjax.config import default_config, to_json
from maskjax.errors import UserError
from maskjax.report import save_sheet, write_report
from maskjax.report.curves import _average, curve
from maskjax.report.history import History, read_history
from maskjax.report.summary import duration, training_seconds

VOID = {"meta", "img", "path", "use", "br", "hr", "link"}


class Page(html.parser.HTMLParser):
    """What a browser would make of a page, as far as the tests ask."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.sources, self.words = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        for name in ("src", "href", "xlink:href"):
            self.sources += [attributes[name]] if name in attributes else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


def read(path):
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


@pytest.fixture
def run(tmp_path):
    config = json.loads(to_json(default_config()))
    config["name"] = "<script>alert('x')</script>"
    config["train"]["batch_size"] = 123
    (tmp_path / "config.json").write_text(json.dumps(config))
    lines = []
    for step in range(10, 1001, 10):
        lines.append({"step": step, "train/loss": 2 / step, "train/learning_rate": 1e-3})
        lines[-1] |= {"train/gradient_norm": 1.0, "train/examples_per_second": 1230.0}
        lines[-1] |= {"train/epoch": step / 100}
        lines[-1] |= {"train/<odd> & name": float(step)}
    for step in (500, 1000):
        lines.append({"step": step, "eval/knn/accuracy": step / 2000})
    lines.append({"step": 1000, "eval/random/linear/accuracy": 0.25, "train/text": "no number"})
    for seconds in (59.0, 81.0):  # stopped twice, at the same step
        lines.append({"step": 1000, "time/waiting_for_data": 30.0, "time/training": seconds})
    text = "\n".join(map(json.dumps, lines)) + '\n{"step": 1010, "train/lo'
    (tmp_path / "metrics.jsonl").write_text(text)
    start = "2026-01-01 00:00 UTC\n   versions  maskjax 9\n"
    start += "    devices  2 x some device in 1 process(es)\n parameters  1,234,567 (encoder 1)\n"
    start += "   duration  2,000 steps, 20.0 epochs\n"
    start += "       data  1,442 examples, 22 steps an epoch\n\n"
    (tmp_path / "startup.txt").write_text("2025-12-31 00:00 UTC\n  devices  none\n\n" + start)
    picture = {"original": np.zeros((1, 8, 8, 1), np.uint8)}
    for step in (500, 1000):
        sheet = save_sheet(tmp_path / "pictures" / f"step_{step}.png", picture)
    (tmp_path / "pictures" / "step_2000.png").write_bytes(sheet.read_bytes()[:200])
    return tmp_path


def test_a_whole_run(run):
    path = write_report(run)
    assert path == run / "report.html"
    page = read(path)
    for expected in (
        "<script>alert('x')</script>",
        "1 unreadable line(s)",
        "0.0020",
        "1,230",
        "1,000 of 2,000 steps of 123 examples, 10 epochs, 1 min 40 s of training",
        "3 min 20 s in 2 starts: training 70 %, waiting for data 30 %",
        "encoder ViT (patch 16 x 16, width 768, depth 12, heads 12), decoder MAEDecoder",
        "masks Uniform (75 %), 1,234,567 parameters",
        "TFDS imagenet2012, 1,442 examples, 22 steps an epoch, image 224 x 224",
        "2 x some device in 1 process(es); maskjax 9",
        "start-up report, the last of 2",
        "raw data — —",
        "random-init encoder — 25.0 %",
        "pretrained encoder 50.0 % —",
        "Loss",
        "Learning rate",
        "Gradient norm",
        "Examples per second",
        "Accuracy",
        "train/<odd> & name",
        "train.batch_size 123 4096",
        '"batch_size": 123',
    ):
        assert expected in page.text, expected
    assert page.tags.count("svg") == 7
    # The newest picture that can be read is large, older ones follow; nothing else is loaded.
    assert page.text.index("step 1,000") < page.text.index("step 500")
    assert "step 2,000" not in page.text
    assert page.tags.count("img") == 2
    assert all(s.startswith(("data:image/", "#")) for s in page.sources)


def test_names_in_the_page_are_unique_and_defined(run):
    page = read(write_report(run))
    assert len(page.ids) == len(set(page.ids))
    text = (run / "report.html").read_text()
    used = re.findall(r'(?:url\(|href=")#([^)"]*)', text)
    assert used and set(used) <= set(page.ids)


def test_nothing_can_break_out_of_the_page(run):
    page = read(write_report(run))
    assert "script" not in page.tags
    assert "odd" not in page.tags


def test_only_real_differences_are_listed(run):
    text = read(write_report(run)).text
    assert "2 values differ" in text  # tuples that became lists in JSON are no difference


def test_partial_runs(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    page = read(write_report(tmp_path))
    assert "svg" not in page.tags and "table" not in page.tags
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": NaN}\n')
    (tmp_path / "config.json").write_text('{"name": "cut o')
    page = read(write_report(tmp_path))
    assert tmp_path.name in page.text
    assert "last loss nan" in page.text
    assert "svg" not in page.tags  # a single value is no curve
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "config.json").write_text('{"name": "old", "removed": {"key": [1, null]}}')
    assert "removed.key [1, null] —" in read(write_report(tmp_path)).text


def test_another_folder_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        write_report(tmp_path)


def test_without_matplotlib_the_rest_is_written(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = read(write_report(run))
    assert "Curves need matplotlib" in page.text
    assert "pretrained encoder" in page.text


def test_matplotlib_is_imported_only_when_needed():
    code = "import sys, maskjax.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_history_keeps_the_last_value_of_each_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [(1, 1.0), (2, 2.0), (3, 3.0), (2, 20.0)]  # killed after step 3, resumed from step 1
    lines = [json.dumps({"step": s, "loss": v}) for s, v in rows]
    bad = ["[1]", "null", '{"loss": 1}', '{"step": null}', '{"step": 5, "lo']
    path.write_text("\n".join([*lines, '{"step": 4, "loss": null, "done": true}', "", *bad]))
    history = read_history(path)
    assert history.series == {"loss": [(1, 1.0), (2, 20.0), (3, 3.0)]}
    assert history.last == {"loss": 20.0}
    assert history.unreadable == len(bad)
    assert history.step == 3
    assert read_history(tmp_path / "none").series == {}


def test_long_curves_are_averaged_but_spikes_stay():
    steps = np.arange(100_000.0)
    values = np.ones(100_000)
    values[777], values[99_999], values[5] = 50, -3, np.nan
    mean_step, mean, low, high = _average(steps, values)
    assert len(mean) == 400
    assert (high.max(), low.min()) == (50, -3)
    assert np.all(np.diff(mean_step) > 0)
    np.testing.assert_allclose(mean[100:300], 1)
    assert len(curve("Loss", {"loss": list(zip(steps, values, strict=True))})) < 100_000


def test_curves_survive_infinities_and_zeros():
    points = [(1, float("inf")), (2, 0.0), (3, float("nan")), (4, 0.0), (5, -1e30)]
    assert curve("Loss", {"loss": points}).startswith("<svg")


def test_training_time_is_that_of_the_steps():
    rates = [(10, 100.0), (20, 50.0), (30, 0.0)]
    history = History({"train/examples_per_second": rates}, {}, 0)
    assert training_seconds(history, 5) == 10 * 5 / 100 + 10 * 5 / 50
    assert training_seconds(History({}, {}, 0), 5) is None


def test_durations_have_two_units():
    assert [duration(s) for s in (0.4, 59.6, 3599, 3725, 200_000)] == [
        "0 s",
        "1 min 0 s",
        "59 min 59 s",
        "1 h 2 min",
        "2 d 7 h",
    ]


def test_pictures_are_spread_over_the_training(run):
    sheet = (run / "pictures" / "step_500.png").read_bytes()
    for step in range(1, 61):
        (run / "pictures" / f"reconstruction_{step:08d}.png").write_bytes(sheet)
    text = write_report(run).read_text()
    captions = re.findall(r"<figcaption>step ([\d,]+)<", text)
    steps = [int(caption.replace(",", "")) for caption in captions]
    assert len(steps) == text.count("<img") == 25
    assert steps[0] == 1000 and steps[1] == 1 and steps[-1] == 500
    assert steps[1:] == sorted(steps[1:])
    assert "37 more in pictures/" in text


@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no browser")
@pytest.mark.parametrize("width", [500, 1100])
def test_a_browser_has_nothing_to_complain_about(run, tmp_path, width):
    page = write_report(run)
    sheet = tmp_path / "page.png"
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu"]
    command += ["--enable-logging=stderr", f"--user-data-dir={tmp_path / 'browser'}"]
    command += [f"--window-size={width},900", f"--screenshot={sheet}", page.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert sheet.stat().st_size > 5000, result.stderr
    assert "CONSOLE" not in result.stderr
