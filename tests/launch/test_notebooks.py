"""The notebooks run from top to bottom, and show what they promise."""

import base64
import inspect
import io
import os
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from maskjax import masking

pytestmark = pytest.mark.long
FOLDER = Path(__file__).parents[2] / "launch" / "colab"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Returns a function that runs a notebook with short training: its outputs, cell by cell."""

    def run(name):
        folder = tmp_path_factory.mktemp("notebook")
        notebook = nbformat.read(FOLDER / name, as_version=4)
        # One device, and nothing from outside: pip would fail.
        env = os.environ | {"DURATION": "6 steps", "PIP_NO_INDEX": "1"}
        resources = {"metadata": {"path": str(folder)}}
        client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources)
        client.execute(env=env)
        return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]

    return run


def text(cells):
    """Returns what was printed, and the text of results."""
    parts = [o.get("text") or o.get("data", {}).get("text/plain", "") for c in cells for o in c]
    return "\n".join(parts)


def pictures(cells):
    data = [o["data"]["image/png"] for c in cells for o in c if "image/png" in o.get("data", {})]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(d))).convert("RGB")) for d in data]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_that_was_run_is_stored(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_pip_is_called_only_where_maskjax_is_missing(path):
    first = next(c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
    *_, condition, install = first.source.splitlines()
    assert condition == 'if importlib.util.find_spec("maskjax") is None:'
    assert install == "    %pip install -q {SOURCE}"


def test_quickstart(outputs):
    cells = outputs("quickstart.ipynb")
    shown = text(cells)
    for row in ("raw data", "random-init encoder", "pretrained encoder"):
        assert re.search(rf"{row} +\d+\.\d % +\d+\.\d %", shown)
    accuracy = re.search(r"'eval/encoder\.cls/knn/accuracy': ([\d.]+)", shown)[1]
    assert float(accuracy) > 0.5
    assert "'mean': (16, 96)" in shown and "'patches': (16, 8, 96)" in shown
    digits, losses, reconstructions = pictures(cells)
    assert all(picture.std() > 10 for picture in (digits, losses, reconstructions))


def test_your_images(outputs):
    cells = outputs("your_images.ipynb")
    shown = text(cells)
    assert "1,797 images, classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in shown
    assert "(1797, 96)" in shown
    figures = dict(
        re.findall(r"^(most frequent class|raw pixels|features) +([\d.]+)%", shown, re.M)
    )
    assert float(figures["features"]) > 5 * float(figures["most frequent class"])
    assert re.search(r"digits/0/000000\.png: 0", shown)
    assert len(pictures(cells)) == 2


def test_masks(outputs):
    """Every sampler is drawn, and a picture has visible and hidden tokens."""
    source = (FOLDER / "masks.ipynb").read_text()
    for name in masking.__all__:
        kind = getattr(masking, name)
        if inspect.isclass(kind) and "__call__" in vars(kind) and kind is not masking.Sampler:
            assert f"masking.{name}(" in source, name
    drawn = pictures(outputs("masks.ipynb"))
    assert len(drawn) == 11
    for picture in drawn:
        colours = {tuple(c) for c in picture.reshape(-1, 3)}
        assert {(222, 226, 232), (52, 56, 66)} <= colours
