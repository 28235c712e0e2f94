"""dBOT: Exploring Target Representations for Masked Autoencoders (Liu et al., ICLR 2024).

    python -m maskjax.train --config=configs/dbot.py --workdir=gs://bucket/dbot_b
    python -m maskjax.train --config=configs/dbot.py:cifar10 --workdir=runs/dbot \
        --config.data.source.data_dir=DATA/tfds

arXiv 2209.03917. Which features are predicted at the hidden patches hardly matters: the first
teacher is random. Half-way the student becomes the teacher, a new student starts, and the learning
rate and the optimiser go on as if nothing had happened.

Arguments: `B/16` (default), `L/16`, `H/14` or another size and patch: the paper's recipe on
ImageNet-1k (TFDS `imagenet2012`, prepared as ArrayRecord), two stages of 800 epochs at batch 4,096;
the first teacher of L and H is the patch embedding alone. Published after fine-tuning: 84.5 % (B),
86.6 % (L), 87.4 % (H). `cifar10`: minutes on two CPU cores. `tiny`: seconds, to try things. A stage
may also be a run of its own: `--config.system.stages=()` and, from the second on,
`--config.system.teachers.teacher.run=runs/stage1`.

Differences from the published code: a new student starts entirely anew, where the code keeps the
bias of the patch embedding (`--config.system.keep_embed_bias=True`).
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
    c.name = f"dbot_{arg.replace('/', '').lower()}"
    vit = vit_variant(arg)
    deep = vit["depth"] >= 24
    options = dict(scan=deep, remat="hidden" if deep else "none")
    drop_path = 0.3 if vit["depth"] > 24 else 0.2
    c.system = _system(
        dict(**vit, **options),
        part("models.MAEDecoder", drop_path=drop_path, **options),
        drop_path,
        first="embedding" if deep else "student",
    )

    c.data.test_split = "validation"
    augment = part("data.Augment", crop="resized", scale=(0.2, 1.0), flip=True)
    c.data.inputs.image = part("data.Image", decode_size=(256, 256), augment=augment)
    c.train.duration = "1600 epochs"
    if not deep:
        c.optimizer.clip_norm = 3.0
    c.checkpoint.every = "5 epochs"
    c.checkpoint.keep_every = "100 epochs"
    c.log.pictures_every = "50 epochs"
    return c


def _system(vit: dict, decoder: ConfigDict, drop_path: float, first: str) -> ConfigDict:
    network = part("models.ViT", **vit)  # nothing is dropped in the teacher
    return part(
        "systems.Bootstrapped",
        encoder=part("models.ViT", **vit, drop_path=drop_path),
        decoder=decoder,
        mask=part("masking.Uniform", ratio=0.75),
        teachers=dict(teacher=part("systems.FrozenTeacher", network=network)),
        stages=(0.5,),
        first=first,
        targets=dict(
            features=part(
                "targets.Features",
                path="teachers.teacher.output",
                width=network.width,
                normalise="standardise",
                class_token=True,
            )
        ),
        terms=dict(
            distillation=part(
                "objectives.FeatureRegression",
                prediction="decoder.with_cls",
                target="targets.features",
                class_token=True,
                error="smooth_l1",
                beta=2.0,
            )
        ),
    )


def _cifar10() -> ConfigDict:
    """50,000 images of 32 x 32 pixels, patch 4; no stochastic depth in so short a run."""
    c = default_config()
    c.name = "dbot_cifar10"
    use_cifar10(c)
    vit = dict(patch_size=(4, 4), width=96, depth=4, heads=3)
    decoder = part("models.MAEDecoder", width=48, depth=1, heads=3)
    c.system = _system(vit, decoder, drop_path=0.0, first="student")
    c.train.duration = "2 epochs"
    c.train.batch_size = 256
    c.schedule.base_lr = 1.5e-3
    c.schedule.warmup = "5 percent"
    c.eval.max_train_examples = 10_000
    return c


def _tiny() -> ConfigDict:
    """Digits, for a run of seconds on any machine."""
    c = default_config()
    c.name = "dbot_tiny"
    use_digits(c)
    vit = dict(patch_size=(2, 2), width=16, depth=2, heads=2)
    decoder = part("models.MAEDecoder", width=16, depth=1, heads=2)
    c.system = _system(vit, decoder, drop_path=0.1, first="student")
    c.train.duration = "2 epochs"
    c.train.batch_size = 64
    c.schedule.warmup = "5 percent"
    c.log.every = "5 steps"
    return c
