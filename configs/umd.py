"""UMD: Unified Auto-Encoding with Masked Diffusion (Hansen-Estruch et al., 2024, arXiv 2406.17688).

    python -m maskjax.train --config=configs/umd.py:B/4 --workdir=gs://bucket/umd_b
    python -m maskjax.train --config=configs/umd.py:cifar10 --workdir=runs/umd \
        --config.data.source.data_dir=DATA/tfds

Arguments: `B/4` (default) or `L/4`: the paper's recipe on ImageNet at 64 x 64 pixels, 800 epochs at
batch 1,024. Published for B/4: 100-shot linear probe 31.8 % (MAE 36.6 %, DiT 25.6 %), FID 19.8
after class-conditional fine-tuning. `cifar10`: minutes on two CPU cores. `tiny`: digits, seconds.
"""

from maskjax.config import ConfigDict, default_config, part
from maskjax.models import vit_variant


def get_config(arg: str = "B/4") -> ConfigDict:
    """Returns the configuration of a variant."""
    c = default_config()
    c.name = f"umd_{arg.replace('/', '').lower()}"
    c.optimizer = part(
        "training.AdamW",
        clip_norm=1.0,
        # The published list: position tables and scales of norms are decayed.
        no_decay=(r"(^|/)cls$", r"(^|/)mask_token$", r"(^|/)bias$"),
    )
    c.eval.evaluators = dict(  # the mean of the class tokens is the representation
        knn=part("evaluation.KNN", feature="encoder.cls"),
        linear=part("evaluation.LinearProbe", feature="encoder.cls"),
        knn_patches=part("evaluation.KNN", feature="encoder.mean"),
    )
    if arg == "cifar10":
        _system(c, size=32, channels=3, patch=4, width=128, depth=4, heads=4, decoder=2, steps=50)
        c.data.source = part("data.TFDS", name="cifar10")
        c.data.test_split = "test"
        c.data.inputs.image.augment = part("data.Augment", flip=True)
        c.train.duration = "4 epochs"
        c.train.batch_size = 256
        c.schedule = part(
            "training.WarmupCosine", base_lr=1e-3, reference_batch=0, warmup="5 percent"
        )
        c.eval.max_train_examples = 5000
        c.checkpoint.every = "2 epochs"
    elif arg == "tiny":
        _system(c, size=8, channels=1, patch=2, width=16, depth=2, heads=2, decoder=1, steps=5)
        c.data.source = part("data.Digits")
        c.data.test_split = "test"
        c.train.duration = "2 epochs"
        c.train.batch_size = 64
        c.log.every = "5 steps"
        c.schedule = part(
            "training.WarmupCosine", base_lr=3e-3, reference_batch=0, warmup="4 steps"
        )
    else:
        variant = vit_variant(arg)
        _system(
            c,
            size=64,
            channels=3,
            patch=variant["patch_size"][0],
            width=variant["width"],
            depth=variant["depth"],
            heads=variant["heads"],
            decoder=8 if variant["depth"] >= 24 else 4,
            steps=125,
        )
        for network in (c.system.encoder, c.system.decoder):
            network.scan, network.remat = True, "full"
        c.data.test_split = "validation"
        c.data.inputs.image.decode_size = (72, 72)
        c.data.inputs.image.augment = part(
            "data.Augment", crop="resized", scale=(0.8, 1.0), flip=True
        )
        c.train.duration = "800 epochs"
        c.train.batch_size = 1024
        c.schedule = part("training.WarmupCosine", base_lr=1.5e-4, warmup="5 percent")
        c.checkpoint.every = "5 epochs"
        c.log.pictures_every = "50 epochs"
    return c


def _system(
    c: ConfigDict,
    size: int,
    channels: int,
    patch: int,
    width: int,
    depth: int,
    heads: int,
    decoder: int,
    steps: int,
) -> None:
    half = (0.5,) * channels
    image = part("data.Image", size=(size, size), channels=channels, mean=half, std=half)
    c.data.inputs = dict(image=image)
    c.system = part(
        "systems.UMD",
        encoder=part(
            "models.UMDEncoder", patch_size=(patch, patch), width=width, depth=depth, heads=heads
        ),
        decoder=part("models.UMDDecoder", depth=decoder, heads=heads),
        sampler=part("systems.DDIM", steps=steps),
        terms=dict(
            noise=_term("decoder.noise", "targets.noise", "masks.noised_visible", 0.25),
            denoising=_term("decoder.clean", "patches", "masks.noised_hidden", 0.25),
            masked=_term("decoder.clean", "patches", "masks.clean_hidden", 0.5),
        ),
    )


def _term(prediction: str, target: str, mask: str, weight: float) -> ConfigDict:
    return part(
        "objectives.MaskedRegression",
        prediction=prediction,
        target=target,
        mask=mask,
        weight=weight,
    )
