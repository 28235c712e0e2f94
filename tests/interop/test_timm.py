"""ViTs of timm compute the same with weights from here, and the other way round."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.config import default_config, part
from maskjax.data import Image
from maskjax.interop.files import read_weights
from maskjax.interop.huggingface import write_model
from maskjax.interop.weights import read_variables
from maskjax.loading import Loaded
from maskjax.masking import Uniform
from maskjax.models import MAEDecoder, ViT
from maskjax.objectives import MaskedRegression
from maskjax.report.history import History
from maskjax.systems import MaskedAutoencoder
from maskjax.targets import Pixels

torch = pytest.importorskip("torch", reason="needs the extra [interop]")
timm = pytest.importorskip("timm", reason="timm is not installed")

SIZES = dict(width=16, depth=2, heads=2, mlp_ratio=2.0)
THEIRS = dict(embed_dim=16, depth=2, num_heads=2, mlp_ratio=2.0, num_classes=0)
SHAPES = [
    ("square", (8, 8), (4, 4), {}, {}),
    ("rectangular", (8, 12), (4, 2), {}, {}),
    ("patches of 7 x 7", (21, 21), (7, 7), {}, {}),
    (
        "learned positions, scaled blocks",
        (12, 8),
        (2, 2),
        *(dict(positions="learned", layer_scale=0.1), dict(init_values=0.1)),
    ),
]
# Name here, pooling there: the norm of each token, and then the first of them or the mean of the
# patches; `fc_norm=False` keeps timm from moving the norm behind the mean.
POOLED = [("cls", dict(global_pool="token")), ("mean", dict(global_pool="avg", fc_norm=False))]


def make(size, patch, options):
    return MaskedAutoencoder(
        encoder=ViT(patch, **SIZES, dtype="float32", **options),
        decoder=MAEDecoder(12, 1, 2, dtype="float32"),
        mask=Uniform(0.5),
        targets={"pixels": Pixels()},
        terms={"reconstruction": MaskedRegression("decoder.prediction", "targets.pixels")},
        inputs={"image": Image(size, 3, mean=(0.5,) * 3, std=(0.25,) * 3)},
    )


def variables_of(system):
    """Returns random variables; zeros and ones of fresh biases and norms would hide a mistake."""
    leaves, tree = jax.tree.flatten(jax.jit(system.init)(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [x + 0.2 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def images(size):
    values = np.random.default_rng(0).integers(0, 256, (3, *size, 3)).astype(np.uint8)
    return values, torch.tensor(np.moveaxis((values / 255 - 0.5) / 0.25, -1, 1).astype(np.float32))


def close(what, ours, theirs):
    """Compares with a tensor, and prints the difference (`pytest -rP` shows it)."""
    theirs = theirs.detach().numpy()
    difference = np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()
    print(f"{what}, {theirs.shape}: {difference:.1e}")
    assert difference <= 1e-5


@pytest.mark.parametrize(("name", "size", "patch", "here", "there"), SHAPES)
def test_a_file_that_create_model_loads(name, size, patch, here, there, tmp_path):
    system = make(size, patch, here)
    variables = variables_of(system)
    config = default_config()
    config.data.source = part("data.Digits")
    write_model(Loaded(config, system, variables, 0), tmp_path, "timm", History({}, {}, 0))
    values, pixels = images(size)
    encoded = jax.jit(system.encode)(variables, {"image": values})["encoder"]
    for output, pooling in POOLED:
        model = timm.create_model(
            "vit_base_patch16_224",
            checkpoint_path=str(tmp_path / "model.safetensors"),
            img_size=size,
            patch_size=patch,
            **THEIRS,
            **there,
            **pooling,
        ).eval()
        with torch.no_grad():
            close(f"timm out, {output}, {name}", encoded[output], model(pixels))
            tokens = model.forward_features(pixels)
    close(f"timm out, tokens, {name}", encoded["tokens"], tokens)


def test_weights_of_timm_are_read(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_base_patch16_224", img_size=(8, 12), patch_size=(4, 2), **THEIRS
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    torch.save(model.state_dict(), tmp_path / "model.pth")
    system = make((8, 12), (4, 2), dict(positions="learned"))
    shapes = system.shapes
    fresh = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    variables, left = read_variables(system, fresh, read_weights(tmp_path / "model.pth"), "timm")
    assert left == ("decoder",)
    values, pixels = images((8, 12))
    encoded = jax.jit(system.encode)(variables, {"image": values})["encoder"]
    with torch.no_grad():
        close("timm in, tokens, rectangular", encoded["tokens"], model.forward_features(pixels))
