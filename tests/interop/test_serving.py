"""Reconstructions as artefacts, and pictures served where maskjax and flax are not installed."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export
from PIL import Image

import maskjax
from maskjax.errors import UserError
from maskjax.interop import export_run
from maskjax.interop.programs import input_shapes, program_of, trace
from maskjax.loading import Loaded
from maskjax.systems import build_system
from test_configs import VARIANTS, load

SCRIPT = Path(__file__).parents[2] / "launch" / "serve.py"
# What `pip install jax numpy pillow flatbuffers` brings.
ALONE = ("jax", "jaxlib", "numpy", "ml_dtypes", "opt_einsum", "scipy", "flatbuffers", "PIL")
FILE = "reconstruction.jax_export"


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    run = maskjax.load(tiny_run)
    out = tmp_path_factory.mktemp("exported")
    assert export_run(run, out, ["encoder.mean", "encoder.patches"]) <= 1e-5
    return run, out


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Returns a directory with the packages of `ALONE` and no others."""
    folder = tmp_path_factory.mktemp("alone")
    for name in ALONE:
        spec = importlib.util.find_spec(name)
        (folder / name).symlink_to(spec.submodule_search_locations[0])
    return folder


def without_weights(variant):
    """Returns a run of which only the shapes of the variables are known."""
    config = load(variant)
    system = build_system(config)
    return Loaded(config, system, system.shapes, 0)


def test_a_reconstruction_is_that_of_the_run(exported):
    run, out = exported
    program = export.deserialize(bytearray((out / FILE).read_bytes()))
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    found = program.call(images, np.uint32(7))
    wanted = run.reconstruct(images, seed=7)
    assert tuple(wanted) == ("original", "masked", "prediction", "paste-back")
    for title, pictures in wanted.items():
        assert found[title].shape == (5, 8, 8, 1)
        np.testing.assert_allclose(found[title], pictures, atol=1e-5)
    np.testing.assert_allclose(found["original"], images / 255, atol=1e-6)
    described = json.loads((out / "export.json").read_text())["programs"]["reconstruction"]
    assert tuple(described["outputs"]) == run.system.titles
    assert described["outputs"]["masked"] == {"shape": ["b", 8, 8, 1], "dtype": "float32"}
    assert described["seed"] == "uint32"
    assert described["note"] == run.system.picture_note()


def test_masks_are_drawn_for_each_example_by_the_seed(exported):
    _, out = exported
    program = export.deserialize(bytearray((out / FILE).read_bytes()))
    images = np.full((6, 8, 8, 1), 255, np.uint8)
    first, again, other = (
        np.asarray(program.call(images, np.uint32(seed))["masked"] < 0.6)
        for seed in (0, 0, 2**32 - 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first.mean(axis=(1, 2, 3)) == 0.75).all()
    assert len(np.unique(first, axis=0)) == 6
    assert not (first == other).all(axis=(1, 2, 3)).any()


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v.endswith("tiny")])
def test_every_system_can_be_traced_with_any_batch_size(variant):
    run = without_weights(variant)
    (batch,) = export.symbolic_shape("b")
    shapes = input_shapes(run, batch)
    jax.eval_shape(run.system.encode, run.variables, shapes)
    if not run.system.shows_predictions:
        return
    program = program_of(run, "reconstruction", ())
    found = jax.eval_shape(program.compute, run.variables, shapes, *program.further)
    assert set(found) == set(run.system.titles)
    assert all(each.shape[0] == batch for each in found.values())


def test_serving_where_maskjax_is_not_installed(exported, alone, tmp_path):
    run, out = exported
    rng = np.random.default_rng(1)
    files = [tmp_path / name for name in ("grey.png", "colour.png", "flat.jpg")]
    for file, shape in zip(files, [(8, 8), (30, 20, 3), (9, 40, 3)], strict=True):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(file)
    code = (
        "import importlib.util, runpy, sys\n"
        f"sys.path.insert(0, {str(alone)!r})\n"
        "for name in ('maskjax', 'flax', 'optax', 'orbax', 'safetensors'):\n"
        "    assert importlib.util.find_spec(name) is None, name\n"
        f"sys.argv = {['serve.py', str(out), str(tmp_path / 'served'), *map(str, files)]!r}\n"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
    )
    # -I and -S: nothing of this environment is seen, neither PYTHONPATH nor its packages.
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    served = tmp_path / "served"
    assert {file.name for file in served.iterdir()} == {
        *("encoder.mean.npy", "encoder.patches.npy", "grey.png", "colour.png", "flat.png")
    }
    for i, file in enumerate(files):
        read = run.read(file)
        encoded = run.encode(read["image"])["encoder"]
        for name in ("mean", "patches"):
            features = np.load(served / f"encoder.{name}.npy")
            assert len(features) == 3
            np.testing.assert_allclose(features[i], encoded[name][0], rtol=1e-4, atol=1e-5)
    images = np.concatenate([run.read(file)["image"] for file in files])
    wanted = np.concatenate(list(run.reconstruct(images, seed=0).values()), axis=2)
    for i, file in enumerate(files):
        with Image.open(served / f"{file.stem}.png") as picture:
            shown = np.asarray(picture, np.float32)
        assert shown.shape == (8, 32)
        np.testing.assert_allclose(shown, 255 * wanted[i, ..., 0], atol=0.6)


def test_what_evaluation_crops_is_cropped_in_serving(tmp_path):
    """Pictures are fitted to a larger size first: `export.json` says to which."""
    config = load("finetune:tiny")
    with config.unlocked():
        config.data.inputs.image.eval_crop = 0.8
    system = build_system(config)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.uniform(size=x.shape).astype(x.dtype), system.shapes)
    run = Loaded(config, system, variables, 0)
    export_run(run, tmp_path, ["head.logits"], ["cpu"])
    described = json.loads((tmp_path / "export.json").read_text())
    assert set(described["programs"]) == {"encoder"}
    assert described["inputs"]["image"]["fit"] == [10, 10]
    picture = rng.integers(0, 256, (20, 40, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    command = [sys.executable, SCRIPT, tmp_path, tmp_path, tmp_path / "picture.png"]
    subprocess.run(command, check=True, timeout=120)
    wanted = run.encode(run.read(tmp_path / "picture.png")["image"])["head"]["logits"]
    np.testing.assert_allclose(np.load(tmp_path / "head.logits.npy"), wanted, rtol=1e-4, atol=1e-5)


def test_programs_that_do_not_exist_are_refused_before_anything_is_written(exported, tmp_path):
    run, _ = exported
    with pytest.raises(UserError, match="encoder, reconstruction, not 'decoder'"):
        export_run(run, tmp_path / "out", programs=["decoder"])
    with pytest.raises(UserError, match="leave 'reconstruction' out of --programs"):
        export_run(without_weights("ijepa:tiny"), tmp_path / "out", programs=["reconstruction"])
    assert not (tmp_path / "out").exists()


def test_an_artefact_holds_no_weights_that_it_does_not_need():
    """Those of a frozen teacher, whose features are a target and not shown."""
    run = without_weights("dmae:tiny")
    (batch,) = export.symbolic_shape("b")
    shapes, program = input_shapes(run, batch), program_of(run, "reconstruction", ())

    values = jax.tree.map(lambda leaf: np.full(leaf.shape, 555, leaf.dtype), run.variables)
    values["teacher"] = jax.tree.map(lambda leaf: np.full_like(leaf, 777), values["teacher"])
    assert len(jax.tree.leaves(values["teacher"])) > 10
    text = str(trace(program, values, shapes, ("cpu",)).mlir_module())
    assert "dense<5.550000e+02>" in text
    assert "7.770000e+02" not in text
