"""Weights under other names: read, written, refused."""

import dataclasses
import zipfile

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import maskjax
import torch_names
from maskjax.data import Image, Points
from maskjax.errors import UserError
from maskjax.interop.files import read_weights, write_weights
from maskjax.interop.layouts import LAYOUTS
from maskjax.interop.weights import read_variables, write_variables
from maskjax.masking import Uniform, mask_from_scores
from maskjax.models import LinearHead, MAEDecoder, PointDecoder, PointEncoder, ViT
from maskjax.objectives import Chamfer, MaskedRegression
from maskjax.systems import MaskedAutoencoder, PointAutoencoder
from maskjax.targets import Pixels
from maskjax.tokens import resize_table
from point_mae_names import params as params_of_points
from point_mae_names import statistics

SMALL = dict(mlp_ratio=2.0, dtype="float32")


def make(size=(8, 12), patch=(4, 2), linear=False, **encoder):
    encoder = dict(width=16, depth=2, heads=2) | SMALL | encoder
    return MaskedAutoencoder(
        encoder=ViT(patch, **encoder),
        decoder=LinearHead() if linear else MAEDecoder(12, 1, 2, **SMALL),
        mask=Uniform(0.5),
        targets={"pixels": Pixels()},
        terms={"reconstruction": MaskedRegression("decoder.prediction", "targets.pixels")},
        inputs={"image": Image(size, 3, mean=(0.5,) * 3, std=(0.25,) * 3)},
    )


def point_system():
    """The sizes of the golden weights of Point-MAE."""
    options = dict(width=32, heads=2, dtype="float32", drop_path=0.0)
    return PointAutoencoder(
        groups=16,
        group_size=8,
        encoder=PointEncoder(depth=2, embed_hidden=(16, 32, 64), **options),
        decoder=PointDecoder(depth=1, **options),
        mask=Uniform(9 / 16),
        terms={"chamfer": Chamfer()},
        inputs={"points": Points(count=128)},
    )


@pytest.fixture(scope="module")
def system():
    return make()


def random_params(system):
    """Zeros and ones of fresh biases and norms would hide a mistake."""
    rng = np.random.default_rng(0)
    shapes = system.shapes["params"]
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def params(system):
    return random_params(system)


def read_params(system, params, *arguments, **named):
    variables, left = read_variables(system, {"params": params}, *arguments, **named)
    return variables["params"], left


def write_params(system, params, layout):
    return write_variables(system, {"params": params}, layout)


def same(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def close(what, ours, theirs, most=1e-5):
    """Compares with an array, and prints the difference (`pytest -rP` shows it)."""
    difference = np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()
    print(f"{what}, {theirs.shape}: {difference:.1e}")
    assert difference <= most


def test_the_reference_of_mae(golden):
    arrays = golden("mae")
    cfg = {k.removeprefix("cfg/"): v.item() for k, v in arrays.items() if k.startswith("cfg/")}
    system = make((cfg["img_size"],) * 2, (cfg["patch_size"],) * 2)
    system = dataclasses.replace(
        system,
        encoder=ViT(
            (cfg["patch_size"],) * 2,
            cfg["embed_dim"],
            cfg["depth"],
            cfg["num_heads"],
            cfg["mlp_ratio"],
        ),
        decoder=MAEDecoder(
            cfg["decoder_embed_dim"],
            cfg["decoder_depth"],
            cfg["decoder_num_heads"],
            cfg["mlp_ratio"],
        ),
    )
    theirs = {k.removeprefix("param/"): v for k, v in arrays.items() if k.startswith("param/")}
    shapes = system.shapes["params"]
    params, left = read_params(system, shapes, theirs, "mae")
    assert left == ()
    same(params, torch_names.mae_params(arrays), rtol=0)
    identity = Image((cfg["img_size"],) * 2, 3, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    system = dataclasses.replace(system, inputs={"image": identity})
    images = jnp.asarray(arrays["in/imgs_nchw"].transpose(0, 2, 3, 1))
    masks = {"image": mask_from_scores(jnp.asarray(arrays["in/noise"]), 4)}
    variables = {"params": jax.tree.map(jnp.asarray, params)}
    out = jax.jit(system.forward)(variables, {"image": images}, masks)
    close("mae in, latents", out["encoder"]["tokens"], arrays["out/latent"])
    close("mae in, predictions", out["decoder"]["prediction"], arrays["out/pred"])
    written = write_params(system, params, "mae")
    assert set(written) == set(theirs)
    for name, value in theirs.items():
        if "pos_embed" not in name:  # which are computed, and rounded otherwise
            np.testing.assert_array_equal(written[name], value)
            continue
        close(f"mae out, {name}", written[name], value, 1e-6)
    encoder = {k: v for k, v in theirs.items() if "decoder" not in k and k != "mask_token"}
    some, left = read_params(system, params, encoder | {"head.weight": np.ones((2, 32))}, "timm")
    assert left == ("decoder",)
    same(some, params, rtol=0)


@pytest.mark.parametrize("layout", ["mae", "vit_mae"])
def test_there_and_back(system, params, layout):
    written = write_params(system, params, layout)
    assert all(value.dtype == np.float32 and value.flags.c_contiguous for value in written.values())
    back, left = read_params(system, params, written, layout)
    assert left == ()
    same(back, params, rtol=0)


@pytest.mark.parametrize("layout", ["timm", "vit"])
def test_the_encoder_alone(system, params, layout):
    written = write_params(system, params, layout)
    other = jax.tree.map(jnp.zeros_like, params)
    back, left = read_params(system, other, written, layout)
    assert left == ("decoder",)
    same(back["encoder"], params["encoder"], rtol=0)
    same(back["decoder"], other["decoder"], rtol=0)


def test_learned_positions_and_those_of_the_class_token(params):
    """The sum of class token and its position is all that the network sees."""
    learned = make(positions="learned", layer_scale=0.5)
    own = random_params(learned)
    table = own["encoder"]["positions"]
    assert table.shape == (12, 16)
    written = write_params(learned, own, "dinov2")
    assert written["embeddings.position_embeddings"].shape == (1, 13, 16)
    assert written["encoder.layer.1.layer_scale2.lambda1"].shape == (16,)
    moved = np.float32(np.arange(16))
    written["embeddings.position_embeddings"][0, 0] += moved
    back, _ = read_params(learned, own, written, "dinov2")
    same(back["encoder"]["positions"], table, rtol=0)
    same(back["encoder"]["cls"], own["encoder"]["cls"] + moved, rtol=1e-6)
    # At another size the table is resized, as for fixed positions.
    images = jax.ShapeDtypeStruct((2, 16, 16, 3), np.float32)
    out = jax.eval_shape(learned.encode, {"params": own}, {"image": images})
    assert out["encoder"]["patches"].shape == (2, 32, 16)
    plain = make(positions="learned")
    written = write_params(plain, random_params(plain), "vit")
    with pytest.raises(UserError, match="positions='learned'"):
        read_params(make(), params, written, "vit")


def test_positions_that_can_be_resized_and_those_that_cannot(system, params):
    learned = make((16, 12), positions="learned")
    fresh = jax.eval_shape(learned.init, jax.random.key(0))["params"]
    written = write_params(system, params, "timm")
    written["pos_embed"] = written["pos_embed"] + np.float32(np.arange(13 * 16).reshape(1, 13, 16))
    table = written["pos_embed"][0, 1:]
    read, _ = read_params(learned, fresh, written, "timm", grid=(2, 6))
    expected = resize_table(table, (2, 6), (4, 6))
    np.testing.assert_array_equal(read["encoder"]["positions"], expected)
    # The same grid changes nothing, and the order of the axes counts.
    same_grid = make(positions="learned")
    shapes = jax.eval_shape(same_grid.init, jax.random.key(0))["params"]
    read, _ = read_params(same_grid, shapes, written, "timm", grid=(2, 6))
    np.testing.assert_array_equal(read["encoder"]["positions"], table)
    read, _ = read_params(same_grid, shapes, written, "timm", grid=(6, 2))
    assert np.abs(read["encoder"]["positions"] - table).max() > 1
    for grid, words in (
        ((3, 3), "for 12 tokens, but --positions_grid=3x3 has 9"),
        ((12,), "lie along 2 axes, 4x6"),
        ((2, 6, 1), "lie along 2 axes"),
        ((-2, -6), "positive"),
    ):
        with pytest.raises(UserError, match=words):
            read_params(learned, fresh, written, "timm", grid=grid)
    fixed = make((16, 12))
    original = write_params(system, params, "mae")
    with pytest.raises(UserError, match="'pos_embed' resized is not.*positions='learned'"):
        read_params(fixed, params, original, "mae", grid=(2, 6))
    with pytest.raises(UserError, match="the decoder computes.*at its own size"):
        read_params(learned, fresh, original, "mae", grid=(2, 6))
    options = dict(positions="none", bias="qv", mask_token=True, layer_scale=0.1)
    for name in ("relative_bias", "block_bias"):
        beit = make(**options, **{name: True}, linear=True)
        shapes = jax.eval_shape(beit.init, jax.random.key(0))["params"]
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
        written = write_params(beit, zeros, "beit")
        with pytest.raises(UserError, match="relative positions, which is not resized"):
            read_params(beit, shapes, written, "beit", grid=(3, 6))
    videos = make(bias="qv", class_token=False)
    with pytest.raises(UserError, match="no table of positions to resize"):
        read_params(videos, {"encoder": {}}, {}, "videomae", grid=(3, 6))


def test_a_table_of_another_grid_is_not_resized():
    for old, new in (((2, 2), (3, 3)), ((2, 3), (3, 3, 3)), ((2, 3), (0, 3))):
        with pytest.raises(UserError, match=r"6 positions cannot be resized"):
            resize_table(np.ones((6, 4)), old, new)


def test_point_mae(golden, tmp_path):
    """A checkpoint as the original program writes it: weights among what else it saves."""
    torch = pytest.importorskip("torch", reason="needs the extra [interop]")
    arrays = golden("point_mae")
    theirs = {k.removeprefix("param/"): v for k, v in arrays.items() if k.startswith("param/")}
    theirs |= {k.removeprefix("out/after/"): v for k, v in arrays.items() if "out/after/" in k}
    checkpoint = {
        "base_model": {f"module.{name}": torch.tensor(v) for name, v in theirs.items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
        "epoch": 300,
        "metrics": {},
        "best_metrics": {"acc": np.float64(91.5)},
    }
    torch.save(checkpoint, tmp_path / "ckpt-last.pth")
    found = read_weights(tmp_path / "ckpt-last.pth")
    assert set(found) == set(theirs)
    # Before numpy 2, what makes a number was called otherwise.
    with (
        zipfile.ZipFile(tmp_path / "ckpt-last.pth") as new,
        zipfile.ZipFile(tmp_path / "older.pth", "w") as older,
    ):
        for name in new.namelist():
            older.writestr(name, new.read(name).replace(b"numpy._core.", b"numpy.core."))
    same(read_weights(tmp_path / "older.pth"), found, rtol=0)
    system = point_system()
    shapes = system.shapes
    variables, left = read_variables(system, shapes, found, "point_mae")
    assert left == ()
    same(variables["params"], params_of_points(arrays), rtol=0)
    same(variables["stats"]["encoder"], statistics(arrays, "out/after/"), rtol=0)
    written = write_variables(system, variables, "point_mae")
    same(written, {k: v for k, v in theirs.items() if "num_batches" not in k}, rtol=0)
    # The numbers of the original, in evaluation, which uses the statistics.
    variables = jax.tree.map(jnp.asarray, variables)
    encoder = {
        "params": variables["params"]["encoder"],
        "batch_stats": variables["stats"]["encoder"],
    }
    groups = jnp.asarray(arrays["out/neighborhood"]), jnp.asarray(arrays["out/center"])
    embedded = jax.jit(system.encoder.apply)(encoder, *groups)["embedded"]
    expected = arrays["out/tokens_eval_after_one_train_step_stats"]
    close("point_mae in, tokens of groups", embedded, expected)
    lacking = {k: v for k, v in found.items() if "running_var" not in k}
    with pytest.raises(
        UserError, match=r"lacks 'MAE_encoder\.encoder\.first_conv\.1\.running_var'"
    ):
        read_variables(system, shapes, lacking, "point_mae")
    with pytest.raises(UserError, match=r"also has 'cls_head"):
        read_variables(system, shapes, found | {"cls_head.weight": np.ones(2)}, "point_mae")


def test_blocks_of_other_kinds_have_no_place(params):
    scaled = make(layer_scale=0.1)
    shapes = jax.eval_shape(scaled.init, jax.random.key(0))["params"]
    with pytest.raises(UserError, match="no place for 'encoder/stack/blocks/scale1/scale'"):
        write_params(scaled, shapes, "vit_mae")
    related = make(relative_bias=True, positions="none")
    shapes = jax.eval_shape(related.init, jax.random.key(0))["params"]
    with pytest.raises(UserError, match="no place for 'encoder/relative_bias/table'"):
        write_params(related, shapes, "mae")


def test_refusals(system, params):
    written = write_params(system, params, "mae")
    lacking = {k: v for k, v in written.items() if "blocks.1.norm1" not in k and k != "pos_embed"}
    with pytest.raises(UserError, match=r"lacks 'blocks\.1\.norm1\.bias'.*'pos_embed'"):
        read_params(system, params, lacking, "mae")
    more = {"blocks.2.extra": np.ones(1), "blocks.3.extra": np.ones(1), "head": np.ones(1)}
    with pytest.raises(UserError, match=r"also has 'blocks\.2-3\.extra', 'head'"):
        read_params(system, params, written | more, "mae")
    with pytest.raises(UserError, match=r"'norm.bias' gives encoder/norm/bias the shape \(3,\)"):
        read_params(system, params, written | {"norm.bias": np.ones(3)}, "mae")
    with pytest.raises(UserError, match="for 5 tokens, but this system has 12"):
        read_params(system, params, written | {"pos_embed": np.ones((1, 6, 16))}, "mae")
    wrong = written | {"pos_embed": written["pos_embed"][:, ::-1]}
    with pytest.raises(UserError, match="not the sine-cosine table"):
        read_params(system, params, wrong, "mae")
    moved = written | {"decoder_pos_embed": written["decoder_pos_embed"] + 1}
    with pytest.raises(UserError, match="moves the class token of the decoder"):
        read_params(system, params, moved, "mae")
    with pytest.raises(UserError, match=r"'norm\.bias' twice, once as 'fc_norm\.bias'"):
        read_params(system, params, written | {"fc_norm.bias": np.ones(16)}, "timm")
    with pytest.raises(UserError, match="must be one of .*vit_mae"):
        write_params(system, params, "vitmae")
    with pytest.raises(UserError, match="'decoder'"):
        write_params(system, {"encoder": params["encoder"]}, "mae")


def test_layouts_name_nothing_twice():
    for name, layout in LAYOUTS.items():
        places = [(row.name, row.part) for row in layout.rows]
        assert len(places) == len(set(places)), name
        assert len({row.path for row in layout.rows}) == len(layout.rows), name


def test_files(tmp_path):
    arrays = {"a.b": np.arange(6, dtype=np.float32).reshape(2, 3), "c": np.ones(2, np.float32)}
    write_weights(tmp_path / "model.safetensors", arrays)
    np.savez(tmp_path / "x.npz", **arrays)
    for path in (tmp_path / "model.safetensors", tmp_path, tmp_path / "x.npz"):
        same(read_weights(path), arrays, rtol=0)
    pieces = tmp_path / "pieces"
    pieces.mkdir()
    for i, name in enumerate(arrays):
        write_weights(pieces / f"{i}.safetensors", {name: arrays[name]})
    index = '{"weight_map": {"a.b": "0.safetensors", "c": "1.safetensors"}}'
    (pieces / "model.safetensors.index.json").write_text(index)
    same(read_weights(pieces), arrays, rtol=0)
    for name in ("broken.safetensors", "broken.npz"):
        (tmp_path / name).write_bytes(b"\x09" * 20)
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            read_weights(tmp_path / name)
    (tmp_path / "x.h5").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("x.h5", "unknown kind"),
        ("none.npz", "no file"),
        ("empty", "has neither model.safetensors"),
    ):
        with pytest.raises(UserError, match=message):
            read_weights(tmp_path / name)


def test_commands(tiny_run, tmp_path):
    """Out of a run, into another, which then is the same."""
    config, layout = "--config=configs/mae.py:tiny", "--layout=vit_mae"
    out = commands.run("convert", f"--workdir={tiny_run}", layout, f"--out={tmp_path / 'hf'}")
    assert out.returncode == 0, out.stderr
    assert "Checkpoint 6" in out.stdout
    names = {path.name for path in (tmp_path / "hf").iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert "eval/linear/accuracy" in (tmp_path / "hf" / "README.md").read_text()
    back = ["convert", config, layout, f"--file={tmp_path / 'hf'}", f"--workdir={tmp_path / 'b'}"]
    out = commands.run(*back)
    assert out.returncode == 0, out.stderr
    assert "run at step 0" in out.stdout
    before, after = maskjax.load(tiny_run), maskjax.load(tmp_path / "b")
    assert after.step == 0
    same(before.variables["params"], after.variables["params"], rtol=0)
    for flags, message in (
        (back, "has checkpoints already"),
        (back[:3], "--out"),
        ([*back[:3], "--file=none.npz", f"--workdir={tmp_path / 'c'}"], "no file none.npz"),
    ):
        out = commands.run(*flags, *([] if "--workdir" in flags[-1] else [f"--workdir={tmp_path}"]))
        assert out.returncode == 1 and message in out.stderr, out.stderr
    assert not (tmp_path / "c").exists()
