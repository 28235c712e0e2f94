"""Models of transformers with random weights compute the same here, and the other way round."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.config import default_config, part
from maskjax.data import Image, Video
from maskjax.errors import UserError
from maskjax.interop.files import read_weights
from maskjax.interop.huggingface import write_model
from maskjax.interop.weights import read_variables
from maskjax.loading import Loaded
from maskjax.masking import Uniform, mask_from_hidden, mask_from_scores
from maskjax.models import LinearHead, MAEDecoder, VideoDecoder, ViT
from maskjax.objectives import MaskedRegression
from maskjax.report.history import History
from maskjax.systems import MaskedAutoencoder
from maskjax.targets import NormalisedPixels, Pixels, RandomCodes
from maskjax.tokens import resize_table, sincos

torch = pytest.importorskip("torch", reason="needs the extra [interop]")
transformers = pytest.importorskip("transformers", reason="needs the extra [interop]")

ENCODER = dict(width=16, depth=2, heads=2, mlp_ratio=2.0, dtype="float32")
DECODER = dict(width=12, depth=1, heads=2, mlp_ratio=2.0, dtype="float32")
THEIRS = dict(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    layer_norm_eps=1e-6,
)
THEIR_DECODER = dict(
    decoder_hidden_size=12,
    decoder_num_hidden_layers=1,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=24,
)


def system(size, patch, normalise=False, decoder=None, target=None, input_name="image", **encoder):
    data = (Image if len(size) == 2 else Video)(size, 3, mean=(0.5,) * 3, std=(0.25,) * 3)
    target = target or (NormalisedPixels() if normalise else Pixels())
    term = MaskedRegression("decoder.prediction", "targets.pixels", mask=f"masks.{input_name}")
    return MaskedAutoencoder(
        input_name=input_name,
        encoder=ViT(patch, **ENCODER, **encoder),
        decoder=decoder or MAEDecoder(**DECODER),
        mask=Uniform(0.5),
        targets={"pixels": target},
        terms={"reconstruction": term},
        inputs={input_name: data},
    )


def random(model, positions=False):
    """Fresh biases are zero, which would hide a mistake."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if positions or ("position" not in name and "pos_embed" not in name):
                value.copy_(torch.randn_like(value) * 0.2 + (0.5 if "norm" in name else 0))
    return model.eval()


def read(system, model, layout, path, grid=None):
    model.save_pretrained(path)
    shapes = system.shapes
    variables = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    variables, left = read_variables(system, variables, read_weights(path), layout, grid)
    return jax.tree.map(jnp.asarray, variables), left


def written(system, variables, layout, path):
    config = default_config()
    config.data.source = part("data.Digits")
    write_model(Loaded(config, system, variables, 0), path, layout, History({}, {}, 0))
    return path


def close(what, ours, theirs, rtol=1e-5):
    """Compares with a tensor, and prints the difference (`pytest -rP` shows it)."""
    theirs = theirs.detach().numpy()
    largest = np.abs(theirs).max()
    print(f"{what}, {theirs.shape}: {np.abs(np.asarray(ours) - theirs).max() / largest:.1e}")
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol * largest)


def images(size):
    values = np.random.default_rng(0).integers(0, 256, (3, *size, 3)).astype(np.uint8)
    scaled = (values / 255 - 0.5) / 0.25
    return values, torch.tensor(np.moveaxis(scaled, -1, -3), dtype=torch.float32)


@pytest.mark.parametrize(
    ("size", "patch", "normalise"), [((8, 8), (2, 2), False), ((12, 12), (4, 4), True)]
)
def test_vit_mae(size, patch, normalise, tmp_path):
    ours = system(size, patch, normalise)
    model = random(
        transformers.ViTMAEForPreTraining(
            transformers.ViTMAEConfig(
                **THEIRS,
                **THEIR_DECODER,
                image_size=size[0],
                patch_size=patch[0],
                mask_ratio=0.5,
                norm_pix_loss=normalise,
            )
        )
    )
    count = size[0] * size[1] // patch[0] ** 2
    noise = np.random.default_rng(1).random((3, count)).astype(np.float32)
    values, pixels = images(size)
    masks = {"image": mask_from_scores(jnp.asarray(noise), count // 2)}
    # A fresh model of transformers has zeros here, published ones the table.
    grid = ours.grid.shape
    for table in (model.vit.embeddings.position_embeddings, model.decoder.decoder_pos_embed):
        table.data[0, 1:] = torch.tensor(sincos(grid, table.shape[-1]))
    variables, left = read(ours, model, "vit_mae", tmp_path / "in")
    assert left == ()

    def compare(way, model):
        with torch.no_grad():
            theirs = model(pixels, noise=torch.tensor(noise))
        out = jax.jit(ours.forward)(variables, {"image": values}, masks)
        np.testing.assert_array_equal(masks["image"].restore, theirs.ids_restore)
        np.testing.assert_array_equal(masks["image"].is_masked, theirs.mask.bool())
        close(f"vit_mae {way}, predictions", out["decoder"]["prediction"], theirs.logits)
        value = ours.term_values(variables, {"image": values}, masks)[0]["reconstruction"]
        close(f"vit_mae {way}, loss", value.total / value.count, theirs.loss)

    compare("in", model)
    path = written(ours, variables, "vit_mae", tmp_path / "out")
    back, info = transformers.ViTMAEForPreTraining.from_pretrained(path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert back.config.norm_pix_loss == normalise
    compare("out", back.eval())


def test_vit_mae_of_transformers_is_square(tmp_path):
    ours = system((8, 16), (4, 4))
    variables = jax.jit(ours.init)(jax.random.key(0))
    with pytest.raises(UserError, match="square"):
        written(ours, variables, "vit_mae", tmp_path)


@pytest.mark.parametrize(
    ("layout", "size"), [("vit", (8, 8)), ("vit", (8, 16)), ("ijepa", (8, 8)), ("dinov2", (8, 8))]
)
def test_encoders(layout, size, tmp_path):
    kind = {"vit": "ViT", "ijepa": "IJepa", "dinov2": "Dinov2"}[layout]
    options = dict(THEIRS, image_size=size if size[0] != size[1] else size[0], patch_size=4)
    if layout == "dinov2":
        del options["intermediate_size"]
        options |= dict(mlp_ratio=2, layerscale_value=0.5)
    model_class = getattr(transformers, f"{kind}Model")
    config = getattr(transformers, f"{kind}Config")(**options)
    extra = {} if layout == "dinov2" else dict(add_pooling_layer=False)
    model = random(model_class(config, **extra))
    changes = dict(positions="learned", class_token=layout != "ijepa")
    if layout == "dinov2":
        changes["layer_scale"] = 1.0
    ours = system(size, (4, 4), **changes)
    if layout == "ijepa":
        # An encoder without class token needs another decoder; here there is none to speak of.
        ours = system(size, (4, 4), decoder=VideoDecoder(**DECODER), **changes)
    variables, left = read(ours, model, layout, tmp_path / "in")
    assert left == ("decoder",)
    values, pixels = images(size)
    with torch.no_grad():
        theirs = model(pixels).last_hidden_state
    tokens = ours.encode(variables, {"image": values})["encoder"]["tokens"]
    close(f"{layout} in, tokens", tokens, theirs)
    if layout == "vit":
        path = written(ours, variables, layout, tmp_path / "out")
        back = model_class.from_pretrained(path, **extra).eval()
        with torch.no_grad():
            close(f"{layout} out, tokens", tokens, back(pixels).last_hidden_state)


def test_videomae(tmp_path):
    options = dict(bias="qv", class_token=False, positions="flat")
    ours = system(
        (4, 8, 8),
        (2, 4, 4),
        decoder=VideoDecoder(**DECODER),
        input_name="video",
        **options,
    )
    config = transformers.VideoMAEConfig(
        **THEIRS,
        **THEIR_DECODER,
        image_size=8,
        patch_size=4,
        num_frames=4,
        tubelet_size=2,
        norm_pix_loss=False,
        use_mean_pooling=False,
    )
    model = random(transformers.VideoMAEForPreTraining(config))
    variables, left = read(ours, model, "videomae", tmp_path / "in")
    assert left == ()
    values, pixels = images((4, 8, 8))
    hidden = np.stack([np.roll([True] * 5 + [False] * 3, i) for i in range(3)])
    masks = {"video": mask_from_hidden(jnp.asarray(hidden), 3)}

    def compare(way, model):
        with torch.no_grad():
            logits = model(pixels, bool_masked_pos=torch.tensor(hidden)).logits
        out = jax.jit(ours.forward)(variables, {"video": values}, masks)
        prediction = np.asarray(out["decoder"]["prediction"])
        close(f"videomae {way}, predictions", prediction[hidden].reshape(3, 5, -1), logits)

    compare("in", model)
    path = written(ours, variables, "videomae", tmp_path / "out")
    back, info = transformers.VideoMAEForPreTraining.from_pretrained(path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    compare("out", back.eval())


@pytest.mark.parametrize(
    ("size", "shared", "own", "positions"),
    [(8, True, False, "none"), (12, False, True, "none"), (8, True, True, "learned")],
)
def test_beit(size, shared, own, positions, tmp_path):
    count = (size // 4) ** 2
    options = dict(
        positions=positions,
        bias="qv",
        mask_token=True,
        layer_scale=0.1,
        relative_bias=shared,
        block_bias=own,
    )
    ours = system(
        (size, size),
        (4, 4),
        decoder=LinearHead(dtype="float32"),
        target=RandomCodes(clusters=7, width=4),
        **options,
    )
    config = transformers.BeitConfig(
        **THEIRS,
        image_size=size,
        patch_size=4,
        vocab_size=7,
        use_mask_token=True,
        use_shared_relative_position_bias=shared,
        use_relative_position_bias=own,
        use_absolute_position_embeddings=positions != "none",
    )
    model = random(transformers.BeitForMaskedImageModeling(config), positions=True)
    variables, left = read(ours, model, "beit", tmp_path / "in")
    assert left == ()
    values, pixels = images((size, size))
    hidden = np.stack([np.roll([True] * 2 + [False] * (count - 2), i) for i in range(3)])
    masks = {"image": mask_from_hidden(jnp.asarray(hidden), count - 2)}

    def compare(way, model):
        with torch.no_grad():
            logits = model(pixels, bool_masked_pos=torch.tensor(hidden)).logits
        out = jax.jit(ours.forward)(variables, {"image": values}, masks)
        close(f"beit {way}, logits", out["decoder"]["prediction"], logits)

    compare("in", model)
    path = written(ours, variables, "beit", tmp_path / "out")
    kind = transformers.BeitForMaskedImageModeling
    back, info = kind.from_pretrained(path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    compare("out", back.eval())
    # The encoder alone, from the same file and from one of its own.
    alone, left = read(ours, model, "beit_model", tmp_path / "in")
    assert left == ("decoder",)
    jax.tree.map(
        np.testing.assert_array_equal, alone["params"]["encoder"], variables["params"]["encoder"]
    )
    path = written(ours, variables, "beit_model", tmp_path / "model")
    back = transformers.BeitModel.from_pretrained(path, add_pooling_layer=False).eval()
    with torch.no_grad():
        theirs = back(pixels).last_hidden_state
    tokens = ours.encode(variables, {"image": values})["encoder"]["tokens"]
    close("beit_model out, tokens", tokens, theirs)


def test_beit_with_a_norm_of_the_mean(tmp_path):
    """As fine-tuned models have it: the encoder ends without a norm, and no mask token is left."""
    config = transformers.BeitConfig(
        **THEIRS, image_size=8, patch_size=4, use_relative_position_bias=True
    )
    model = random(transformers.BeitForImageClassification(config), positions=True)
    ours = system((8, 8), (4, 4), positions="none", bias="qv", layer_scale=0.1, block_bias=True)
    variables, left = read(ours, model, "beit_model", tmp_path)
    assert left == ("decoder",)
    values, pixels = images((8, 8))
    with torch.no_grad():
        theirs = model.beit(pixels)
    out = ours.encode(variables, {"image": values})["encoder"]
    close("beit_model in, tokens before the norm", out["output"], theirs.last_hidden_state)
    norm = variables["params"]["encoder"]["norm"]
    mean = torch.tensor(np.asarray(out["output"][:, 1:].mean(axis=1)))
    scale, bias = (torch.tensor(np.asarray(norm[name])) for name in ("scale", "bias"))
    pooled = torch.nn.functional.layer_norm(mean, (16,), scale, bias, 1e-6)
    close("beit_model in, pooled", pooled.numpy(), theirs.pooler_output)


def test_beit_of_transformers_has_no_bias_of_the_key_and_is_square(tmp_path):
    beit = dict(positions="none", relative_bias=True)
    for size, bias, words in (((8, 8), "qkv", "not for the key"), ((8, 12), "qv", "square")):
        ours = system(size, (4, 4), bias=bias, **beit)
        shapes = jax.eval_shape(ours.init, jax.random.key(0))
        variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        with pytest.raises(UserError, match=words):
            written(ours, variables, "beit_model", tmp_path)


@pytest.mark.parametrize(("layout", "size"), [("vit", (24, 24)), ("dinov2", (20, 8))])
def test_positions_are_resized_as_there(layout, size, tmp_path):
    options = dict(THEIRS, image_size=12, patch_size=4)
    changes = dict(positions="learned")
    if layout == "vit":
        config = transformers.ViTConfig(**options)
        model = random(transformers.ViTModel(config, add_pooling_layer=False), positions=True)
        arguments = dict(interpolate_pos_encoding=True)
    else:
        del options["intermediate_size"]
        config = transformers.Dinov2Config(**options, mlp_ratio=2)
        model, arguments = random(transformers.Dinov2Model(config), positions=True), {}
        changes["layer_scale"] = 1.0
    ours = system(size, (4, 4), **changes)
    variables, _ = read(ours, model, layout, tmp_path, grid=(3, 3))
    values, pixels = images(size)
    with torch.no_grad():
        theirs = model(pixels, **arguments).last_hidden_state
    tokens = ours.encode(variables, {"image": values})["encoder"]["tokens"]
    close(f"{layout} resized from (3, 3), tokens", tokens, theirs)


@pytest.mark.parametrize("new", [(7, 5), (2, 9), (4, 3)])
def test_tables_are_resized_as_pytorch_does(new):
    table = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.tensor(table).reshape(1, 4, 3, 6).permute(0, 3, 1, 2),
        size=new,
        mode="bicubic",
        align_corners=False,
        antialias=False,
    )
    theirs = theirs.permute(0, 2, 3, 1).reshape(-1, 6)
    close("numpy", resize_table(table, (4, 3), new), theirs, rtol=1e-6)
    close("jax", resize_table(jnp.asarray(table), (4, 3), new), theirs, rtol=1e-6)
