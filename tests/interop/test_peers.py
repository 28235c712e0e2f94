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
from maskjax.interop.weights import read_params
from maskjax.loading import Loaded
from maskjax.masking import Uniform, mask_from_hidden, mask_from_scores
from maskjax.models import MAEDecoder, VideoDecoder, ViT
from maskjax.objectives import MaskedRegression
from maskjax.systems import MaskedAutoencoder
from maskjax.targets import NormalisedPixels, Pixels
from maskjax.tokens import sincos

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


def random(model):
    """Fresh biases are zero, which would hide a mistake."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "position" not in name and "pos_embed" not in name:
                value.copy_(torch.randn_like(value) * 0.2 + (0.5 if "norm" in name else 0))
    return model.eval()


def read(system, model, layout, path):
    model.save_pretrained(path)
    shapes = jax.eval_shape(system.init, jax.random.key(0))["params"]
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    params, left = read_params(system, params, read_weights(path), layout)
    return {"params": jax.tree.map(jnp.asarray, params)}, left


def written(system, variables, layout, path):
    config = default_config()
    config.data.source = part("data.Digits")
    write_model(Loaded(config, system, variables, 0), path, layout, {})
    return path


def close(ours, theirs, rtol=1e-5):
    theirs = theirs.detach().numpy()
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol * np.abs(theirs).max())


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

    def compare(model):
        with torch.no_grad():
            theirs = model(pixels, noise=torch.tensor(noise))
        out = jax.jit(ours.forward)(variables, {"image": values}, masks)
        np.testing.assert_array_equal(masks["image"].restore, theirs.ids_restore)
        np.testing.assert_array_equal(masks["image"].is_masked, theirs.mask.bool())
        close(out["decoder"]["prediction"], theirs.logits)
        value = ours.term_values(variables, {"image": values}, masks)[0]["reconstruction"]
        close(value.total / value.count, theirs.loss)

    compare(model)
    path = written(ours, variables, "vit_mae", tmp_path / "out")
    back, info = transformers.ViTMAEForPreTraining.from_pretrained(path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert back.config.norm_pix_loss == normalise
    compare(back.eval())


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
    close(ours.encode(variables, {"image": values})["encoder"]["tokens"], theirs)
    if layout == "vit":
        path = written(ours, variables, layout, tmp_path / "out")
        back = model_class.from_pretrained(path, **extra).eval()
        with torch.no_grad():
            close(back(pixels).last_hidden_state, theirs)


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

    def compare(model):
        with torch.no_grad():
            logits = model(pixels, bool_masked_pos=torch.tensor(hidden)).logits
        out = jax.jit(ours.forward)(variables, {"video": values}, masks)
        prediction = np.asarray(out["decoder"]["prediction"])
        close(prediction[hidden].reshape(3, 5, -1), logits)

    compare(model)
    path = written(ours, variables, "videomae", tmp_path / "out")
    back, info = transformers.VideoMAEForPreTraining.from_pretrained(path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    compare(back.eval())
