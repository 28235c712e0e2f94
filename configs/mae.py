"""MAE: Masked Autoencoders Are Scalable Vision Learners (He et al., CVPR 2022, arXiv 2111.06377).

    python -m maskjax.train --config=configs/mae.py:L/16 --workdir=gs://bucket/mae_l
    python -m maskjax.train --config=configs/mae.py:cifar10 --workdir=runs/cifar10 \
        --config.data.source.data_dir=DATA/tfds
    python -m maskjax.train --config=configs/mae.py:camvid --workdir=runs/camvid \
        --config.data.source.path=DATA/segmentation/camvid.npz

Arguments: `B/16` (default), `L/16`, `H/14`, or any other size and patch: the paper's recipe on
ImageNet-1k (TFDS `imagenet2012`, prepared as ArrayRecord), 800 epochs at batch 4,096. Published
after fine-tuning 1,600-epoch models: 83.6 % (B), 85.9 % (L), 86.9 % (H); linear probe of B 68.0 %.
On TPUs unrolled blocks are faster where the memory is there (flags in docs/performance.md).
`cifar10`: 32 x 32 pixels, on two CPU cores in about an hour. `camvid`: 367 street scenes with a
class for every pixel, to try dense probes, in minutes. `tiny`: seconds, to try things.
"""

from maskjax.config import ConfigDict, default_config, part
from maskjax.data_sections import use_cifar10, use_digits
from maskjax.models import vit_variant


def get_config(arg: str = "B/16") -> ConfigDict:
    """Returns the configuration of a variant."""
    if arg == "cifar10":
        return _cifar10()
    if arg == "camvid":
        return _camvid()
    if arg == "tiny":
        return _tiny()
    c = default_config()
    c.name = f"mae_{arg.replace('/', '').lower()}"
    c.system.encoder = part("models.ViT", **vit_variant(arg))
    deep = c.system.encoder.depth >= 24
    for network in (c.system.encoder, c.system.decoder):
        network.scan = deep
        network.remat = "hidden" if deep else "none"

    c.data.test_split = "validation"
    augment = part("data.Augment", crop="resized", scale=(0.2, 1.0), flip=True)
    c.data.inputs.image = part("data.Image", decode_size=(256, 256), augment=augment)
    c.checkpoint.every = "5 epochs"
    c.checkpoint.keep_every = "100 epochs"
    c.log.pictures_every = "50 epochs"
    return c


def _cifar10() -> ConfigDict:
    """50,000 images of 32 x 32 pixels; width 192 (ViT-Ti, half as deep), patch 4."""
    c = default_config()
    c.name = "mae_cifar10"
    use_cifar10(c)

    c.system.encoder = part("models.ViT", patch_size=(4, 4), width=192, depth=6, heads=3)
    c.system.decoder = part("models.MAEDecoder", width=96, depth=2, heads=3)

    c.train.duration = "16 epochs"
    c.train.batch_size = 256
    c.schedule.base_lr = 1.5e-3
    c.schedule.warmup = "5 percent"
    c.checkpoint.every = "1 epochs"
    c.log.pictures_every = "8 epochs"
    return c


def _camvid() -> ConfigDict:
    """Images of 144 x 192 pixels as 9 x 12 tokens; the maps are for evaluation alone."""
    c = default_config()
    c.name = "mae_camvid"
    fields = dict(image="image_jpeg:jpeg", map="mask")
    c.data.source = part("data.Arrays", path="camvid.npz", fields=fields)
    c.data.test_split = "test"
    seen = dict(
        size=(144, 192),
        augment=part(
            "data.Augment", crop="resized", scale=(0.2, 1.0), ratio=(1.0, 1.78), flip=True
        ),
    )
    colours = dict(mean=(0.411, 0.425, 0.432), std=(0.301, 0.305, 0.301))
    c.data.inputs = dict(
        image=part("data.Image", **colours, **seen),
        map=part("data.ClassMap", classes=12, **seen),
    )
    c.system.encoder = part("models.ViT", width=128, depth=4, heads=4)
    c.system.decoder = part("models.MAEDecoder", width=64, depth=1, heads=4)
    known = dict(classes=11, ignore_label=11)  # the last one is "unlabelled"
    c.eval.evaluators = dict(
        segmentation=part("evaluation.LinearSegmentation", steps=500, **known),
        knn_segmentation=part("evaluation.KNNSegmentation", **known),
        spread=part("evaluation.Spread"),
    )
    c.eval.baselines = ("random",)
    c.eval.batch_size = 64

    c.train.duration = "120 epochs"
    c.train.batch_size = 64
    c.schedule.base_lr = 4e-3
    c.schedule.warmup = "5 percent"
    c.checkpoint.every = "20 epochs"
    c.log.every = "20 epochs"
    return c


def _tiny() -> ConfigDict:
    """Digits, for a run of seconds on any machine."""
    c = default_config()
    c.name = "mae_tiny"
    use_digits(c)
    c.system.encoder = part("models.ViT", patch_size=(2, 2), width=16, depth=2, heads=2)
    c.system.decoder = part("models.MAEDecoder", width=16, depth=1, heads=2)
    c.train.duration = "2 epochs"
    c.train.batch_size = 64
    c.schedule.warmup = "5 percent"
    c.log.every = "5 steps"
    return c
