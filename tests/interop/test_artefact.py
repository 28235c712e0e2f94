import json
import subprocess
import sys

import commands
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import maskjax
from maskjax.errors import UserError
from maskjax.interop.artefact import DESCRIPTION, WEIGHTS, export_run, reload_line
from maskjax.interop.card import model_card
from maskjax.interop.reduced import reduce_weights, restore_weights
from maskjax.report.history import History

ENCODER = "encoder.jax_export"


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    run = maskjax.load(tiny_run)
    out = tmp_path_factory.mktemp("exported")
    difference = export_run(
        run, out, ["encoder.mean", "encoder.blocks.0"], ["cpu", "cuda", "tpu"], programs=["encoder"]
    )
    assert difference <= 1e-5
    return run, out


def test_the_program_runs_with_jax_alone_at_any_batch_size(exported, tmp_path):
    run, out = exported
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, numpy as np, jax.export\n"
        f"encode = jax.export.deserialize(open({str(out / ENCODER)!r}, 'rb').read())\n"
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
    assert description["inputs"] == {
        "image": {"shape": ["b", 8, 8, 1], "dtype": "uint8", "fit": [8, 8]}
    }
    assert description["programs"] == {
        "encoder": {
            "file": ENCODER,
            "outputs": {
                "encoder.mean": {"shape": ["b", 16], "dtype": "float32"},
                "encoder.blocks.0": {"shape": ["b", 17, 16], "dtype": "float32"},
            },
        }
    }
    assert description["platforms"] == ["cpu", "cuda", "tpu"]


@pytest.mark.parametrize(
    ("weights", "least", "most"), [("bfloat16", 1e-4, 2e-2), ("int8", 1e-4, 5e-2)]
)
def test_fewer_bits_and_what_they_change(exported, tmp_path, weights, least, most):
    run, out = exported
    outputs = ["encoder.mean", "encoder.patches"]
    difference = export_run(run, tmp_path, outputs, ["cpu"], weights, ["encoder"])
    description = json.loads((tmp_path / DESCRIPTION).read_text())
    assert description["weights"] == weights
    errors = description["programs"]["encoder"]["error"]
    assert set(errors) == set(outputs)
    # What is written is what a user measures.
    images = run.read()["image"]
    assert description["examples"] == len(images)
    program = jax.export.deserialize(bytearray((tmp_path / ENCODER).read_bytes()))
    found, wanted = program.call(images), run.encode(images)["encoder"]
    for path, error in errors.items():
        exact = np.asarray(wanted[path.removeprefix("encoder.")])
        change = np.abs(found[path] - exact)
        assert error["largest"] == pytest.approx(change.max() / np.abs(exact).max(), rel=0.02)
        assert least < error["rms"] < most
    assert difference == max(error["largest"] for error in errors.values())
    kind, files = {"bfloat16": "bf16", "int8": "i8"}[weights], load_file(tmp_path / WEIGHTS)
    assert f"x{kind}>" in str(program.mlir_module())
    full = jax.export.deserialize(bytearray((out / ENCODER).read_bytes()))
    assert f"x{kind}>" not in str(full.mlir_module())
    kernel = files["encoder/stack/blocks/mlp/up/kernel"]
    assert kernel.dtype == (np.int8 if weights == "int8" else jax.numpy.bfloat16)
    assert files["encoder/stack/blocks/mlp/up/bias"].dtype == np.float32
    if weights == "int8":
        exact = np.asarray(
            run.variables["params"]["encoder"]["stack"]["blocks"]["mlp"]["up"]["kernel"]
        )
        scale = files["encoder/stack/blocks/mlp/up/kernel_scale"]
        assert scale.shape == (exact.shape[0], 1, exact.shape[2])
        assert np.abs(kernel * scale - exact).max() <= scale.max() * 0.5001


def test_weights_of_unknown_kinds_are_refused_before_anything_is_written(exported, tmp_path):
    with pytest.raises(UserError, match="float32, bfloat16, int8, not 'int4'"):
        export_run(exported[0], tmp_path / "out", weights="int4")
    assert not (tmp_path / "out").exists()


def test_int8_keeps_zeros_and_the_largest_weights():
    kernel = np.array([[0.0, 3.0], [0.0, -1.5], [0.0, 0.01]], np.float32)
    tree = {"dense": {"kernel": kernel, "bias": np.ones(2, np.float32)}}
    reduced = reduce_weights(tree, "int8")
    np.testing.assert_array_equal(reduced["dense"]["kernel"].values, [[0, 127], [0, -64], [0, 0]])
    restored = restore_weights(reduced)
    np.testing.assert_allclose(
        restored["dense"]["kernel"], [[0, 3], [0, -1.5118], [0, 0]], rtol=1e-4
    )
    np.testing.assert_array_equal(restored["dense"]["bias"], 1)


def test_the_command_writes_a_card(tiny_run, tmp_path):
    """Of losses and evaluations it shows those that were written up to the checkpoint."""
    out = commands.run(
        "export", f"--workdir={tiny_run}", f"--out={tmp_path}", "--weights=int8", "--platforms=cpu"
    )
    assert out.returncode == 0, out.stderr
    assert "| encoder.patches | " in out.stdout
    assert "| paste-back | " in out.stdout
    card = (tmp_path / "README.md").read_text()
    assert "| encoder.patches | " in card
    assert "`reconstruction.jax_export`" in card
    assert "Kernels are int8" in card
    assert '"kind": "data.Digits"' in card
    assert "License" in card
    metrics = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    last = {name: value for row in metrics for name, value in row.items()}
    shown = [name for name in last if name.startswith(("eval/", "train/loss"))]
    assert any(name.startswith("eval/") for name in shown)
    for name in shown:
        assert f"| {name} | {last[name]:.4g} | " in card
    assert "train/finished" not in card


def test_a_card_shows_nothing_that_was_measured_later(exported):
    run, _ = exported
    series = {"eval/knn": [(3, 0.25), (6, 0.5), (9, 0.75)], "eval/late": [(9, 1.0)]}
    card = model_card(run, History(series, {}, 0), ["Contents."])
    assert "| eval/knn | 0.5 | 6 |" in card
    assert "eval/late" not in card
    assert "0.75 |" not in card
    assert "Nothing was measured." in model_card(run, History({}, {}, 0), [])


def test_unknown_output_is_refused_before_anything_is_written(exported, tmp_path):
    with pytest.raises(UserError, match=r"encoder\.mean"):
        export_run(exported[0], tmp_path / "out", ["encoder.maen"], ["cpu"])
    assert not (tmp_path / "out").exists()
