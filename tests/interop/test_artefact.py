import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import maskjax
from maskjax.errors import UserError
from maskjax.interop.artefact import DESCRIPTION, PROGRAM, WEIGHTS, export_encoder, reload_line


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    run = maskjax.load(tiny_run)
    out = tmp_path_factory.mktemp("exported")
    difference = export_encoder(
        run, out, ["encoder.mean", "encoder.blocks.0"], ["cpu", "cuda", "tpu"]
    )
    assert difference <= 1e-5
    return run, out


def test_the_program_runs_with_jax_alone_at_any_batch_size(exported, tmp_path):
    run, out = exported
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, numpy as np, jax.export\n"
        f"encode = jax.export.deserialize(open({str(out / PROGRAM)!r}, 'rb').read())\n"
        f"out = encode.call(np.load({str(tmp_path / 'images.npy')!r}))\n"
        f"np.savez({str(tmp_path / 'out.npz')!r}, **out)\n"
        "assert not any(m.split('.')[0] in ('maskjax', 'flax') for m in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    expected = run.encode(images)["encoder"]
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_allclose(out["encoder.mean"], expected["mean"], rtol=1e-4, atol=1e-5)
        assert out["encoder.blocks.0"].shape == (5, 17, 16)


def test_the_line_that_is_printed_works(exported):
    run, out = exported
    printed = subprocess.run(
        reload_line(run, out), shell=True, check=True, capture_output=True, text=True, timeout=120
    )
    assert "encoder.mean" in printed.stdout


def test_weights_and_description(exported):
    run, out = exported
    weights = load_file(out / WEIGHTS)
    np.testing.assert_array_equal(
        weights["encoder/embed/kernel"], run.variables["params"]["encoder"]["embed"]["kernel"]
    )
    assert len(weights) == len(jax.tree.leaves(run.variables["params"]))
    description = json.loads((out / DESCRIPTION).read_text())
    assert description["inputs"] == {"image": {"shape": ["b", 8, 8, 1], "dtype": "uint8"}}
    assert description["platforms"] == ["cpu", "cuda", "tpu"]


def test_unknown_output_is_refused_before_anything_is_written(exported, tmp_path):
    with pytest.raises(UserError, match=r"encoder\.mean"):
        export_encoder(exported[0], tmp_path / "out", ["encoder.maen"], ["cpu"])
    assert not (tmp_path / "out").exists()
