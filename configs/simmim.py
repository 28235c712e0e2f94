"""SimMIM: A Simple Framework for Masked Image Modeling (Xie et al., CVPR 2022, arXiv 2111.09886).

    python -m maskjax.train --config=configs/simmim.py --workdir=gs://bucket/simmim_b
    python -m maskjax.train --config=configs/simmim.py:cifar10 --workdir=runs/simmim \
        --config.data.source.data_dir=DATA/tfds

The encoder sees every position, with a learned token at the hidden ones; one linear layer predicts
their pixels, with an L1 loss. Masks are squares of 32 x 32 pixels. The vision transformer has the
blocks of BEiT: a shared relative position bias instead of positions, layer scale, no bias of keys.

Arguments: `B/16` (default) or any other size and patch: the paper's recipe on ImageNet-1k (TFDS
`imagenet2012`, prepared as ArrayRecord), 800 epochs at batch 2,048. Published after fine-tuning:
83.8 % (B). `cifar10`: 32 x 32 pixels, minutes on two CPU cores. `tiny`: seconds, to try things.

Differences from the published code: its loss divides by the number of masked pixels plus 1e-5, here
there is no such addition (a relative difference of 1e-9); the patch embedding and the head are
initialised as the other layers are. Swin transformers are not here.
"""

from maskjax.config import ConfigDict, default_config, part
from maskjax.data_sections import use_cifar10, use_digits
from maskjax.models import vit_variant


def get_config(arg: str = "B/16") -> ConfigDict:
    """Returns the configuration of a variant."""
    if arg == "cifar10":
        return _cifar10()
    if arg == "tiny":
        return _tiny()
    c = default_config()
    c.name = f"simmim_{arg.replace('/', '').lower()}"
    size = vit_variant(arg)
    c.system = _system(size, cell=(32, 32), drop_path=0.1)
    deep = size["depth"] >= 24
    c.system.encoder.scan = deep
    c.system.encoder.remat = "hidden" if deep else "none"

    c.data.test_split = "validation"
    augment = part("data.Augment", crop="resized", scale=(0.67, 1.0), flip=True)
    c.data.inputs.image = part("data.Image", decode_size=(256, 256), augment=augment)
    c.train.duration = "800 epochs"
    c.train.batch_size = 2048
    c.optimizer = _optimizer()
    c.schedule = part("training.WarmupSteps")  # SimMIM's: 1e-4 per 512 images, a tenth from 700 on
    c.checkpoint.every = "5 epochs"
    c.checkpoint.keep_every = "100 epochs"
    c.log.pictures_every = "50 epochs"
    return c


def _system(size: dict, cell: tuple[int, int], drop_path: float = 0.0) -> ConfigDict:
    return part(
        "systems.MaskedAutoencoder",
        encoder=part(
            "models.ViT",
            **size,
            drop_path=drop_path,
            positions="none",
            relative_bias=True,
            mask_token=True,
            bias="qv",
            layer_scale=0.1,
            init_kernel="beit",
        ),
        decoder=part("models.LinearHead", init_kernel="beit"),
        mask=part("masking.Coarse", ratio=0.6, cell=cell),
        targets=dict(pixels=part("targets.Pixels")),
        terms=dict(
            reconstruction=part(
                "objectives.MaskedRegression",
                prediction="decoder.prediction",
                target="targets.pixels",
                error="l1",
            )
        ),
    )


def _optimizer() -> ConfigDict:
    """The class token is spared from decay, mask token and relative bias are not, as published."""
    spared = (r"(^|/)bias$", r"(^|/)scale$", r"(^|/)cls$")
    return part("training.AdamW", b2=0.999, clip_norm=5.0, no_decay=spared)


def _cifar10() -> ConfigDict:
    """50,000 images of 32 x 32 pixels, patch 4, masks of 8 x 8."""
    c = default_config()
    c.name = "simmim_cifar10"
    use_cifar10(c)
    c.system = _system(dict(patch_size=(4, 4), width=96, depth=4, heads=3), cell=(8, 8))
    c.train.duration = "3 epochs"
    c.train.batch_size = 256
    c.optimizer = _optimizer()
    c.schedule.base_lr = 1e-3
    c.schedule.warmup = "5 percent"
    c.eval.max_train_examples = 10_000
    return c


def _tiny() -> ConfigDict:
    """Digits, for a run of seconds on any machine."""
    c = default_config()
    c.name = "simmim_tiny"
    use_digits(c)
    c.system = _system(dict(patch_size=(2, 2), width=16, depth=2, heads=2), cell=(4, 4))
    c.train.duration = "2 epochs"
    c.train.batch_size = 64
    c.optimizer = _optimizer()
    c.schedule.base_lr = 4e-3
    c.schedule.warmup = "5 percent"
    c.log.every = "5 steps"
    return c
