"""The commands of the README, as written."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long
REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()


def bash_lines():
    return [
        line
        for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
        for line in block.splitlines()
    ]


def test_the_two_commands_are_there():
    lines = bash_lines()
    assert (
        "pip install -e . && python -m maskjax.train "
        "--config=configs/quickstart.py --workdir=runs/quickstart"
    ) in lines
    assert "pip install -e '.[test]' && python -m pytest" in lines


def test_every_file_that_is_named_exists():
    for name in re.findall(r"(?:configs|maskjax)/\w+\.py|\]\((\w+\.md)\)", README):
        assert not name or (REPOSITORY / name).exists()
    for name in set(re.findall(r"configs/\w+\.py", README)):
        assert (REPOSITORY / name).exists()


def test_the_main_job(tmp_path):
    """The first command, in a directory of its own so that `runs/` is not in the checkout."""
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    command = bash_lines()[0].partition(" && ")[2].replace("python", sys.executable, 1)
    # As for a user: none of the settings that make the tests compile quickly.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    env["JAX_PLATFORMS"] = "cpu"
    result = subprocess.run(
        command, shell=True, capture_output=True, text=True, cwd=tmp_path, timeout=1200, env=env
    )
    assert result.returncode == 0, result.stderr
    for row in ("raw data", "random-init encoder", "pretrained encoder"):
        assert re.search(rf"{row} +\d+\.\d % +\d+\.\d %", result.stdout)
    run = tmp_path / "runs" / "quickstart"
    last = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        last |= json.loads(line)
    assert last["eval/linear/accuracy"] >= 0.95
    assert last["eval/linear/accuracy"] > last["eval/random/linear/accuracy"]
    assert last["eval/knn/accuracy"] > last["eval/random/knn/accuracy"]
    assert (run / "report.html").stat().st_size > 10_000
    assert list((run / "pictures").glob("*.png"))
