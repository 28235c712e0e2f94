"""What an import of maskjax costs, and in which direction its packages import each other."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "maskjax"

# From the ground up; a room may import rooms to the left of it, and itself.
ORDER = [
    ["errors", "files"],
    ["config"],
    ["config_file", "data_sections"],
    ["paths"],
    ["parallel"],
    ["tokens"],
    ["data"],
    ["masking"],
    ["models"],
    ["targets"],
    ["objectives"],
    ["systems"],
    ["training"],
    ["loading"],
    ["evaluation", "report", "interop"],
    ["pretraining"],
    ["planning"],
    ["cli"],
    ["plan", "train", "eval", "export", "inspect", "statistics", "tokenizer", "codes", "convert"],
    ["reconstruct", "maps"],
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    ).stdout


def test_no_heavy_package_is_imported():
    loaded = run(
        "import maskjax, maskjax.loading, maskjax.training.loop, maskjax.evaluation, "
        "maskjax.report, sys; print(*sys.modules)"
    ).split()
    for heavy in ("tensorflow", "torch", "matplotlib", "sklearn", "tensorflow_datasets"):
        assert heavy not in loaded


def test_import_takes_little_beyond_jax_and_flax():
    """CPU seconds, since the clock on the wall depends on what else the machine does."""
    code = (
        "import time, jax, flax.linen; began = time.process_time(); {}; "
        "print(time.process_time() - began)"
    )
    assert float(run(code.format("import maskjax"))) < 0.5
    assert float(run(code.format("import maskjax; maskjax.load"))) < 3.0


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.name))
def test_imports_run_one_way(path):
    room = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if room == "__init__":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("maskjax."):
            others = [node.module.split(".")[1]]
        elif isinstance(node, ast.ImportFrom) and node.module == "maskjax":
            others = [alias.name for alias in node.names]
        else:
            continue
        for other in others:
            assert (
                other == room
                or LEVEL[other] < LEVEL[room]
                or {room, other}
                <= {
                    "evaluation",
                    "report",
                    "interop",
                }
            ), f"{room} imports {other}"
