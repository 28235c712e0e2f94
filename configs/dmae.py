"""DMAE: Masked Autoencoders Enable Efficient Knowledge Distillers (Bai et al., CVPR 2023).

    python -m maskjax.train --config=configs/mae.py:L/16 --workdir=runs/mae_l
    python -m maskjax.train --config=configs/dmae.py --workdir=runs/dmae_b \
        --config.system.teachers.teacher.run=runs/mae_l

    python -m maskjax.train --config=configs/dmae.py:cifar10 --workdir=runs/dmae \
        --config.data.source.data_dir=DATA/tfds --config.system.teachers.teacher.run=runs/mae

arXiv 2208.12256. A small MAE is pretrained as usual and, at one of its blocks, aligned with a block
of a larger MAE that is frozen and sees the same few patches. The teacher's blocks after the one
that is read are never computed.

Arguments: `B/16` (default), `S/16` or another size and patch: the paper's recipe with a ViT-L/16
teacher on ImageNet-1k (TFDS `imagenet2012`, prepared as ArrayRecord), 100 epochs at batch 4,096.
Published for B after fine-tuning: 84.0 %. `cifar10`: minutes on two CPU cores; its teacher is that
of `:cifar10-teacher`, trained first. `tiny`: seconds, to try things. Without a `run`, the teacher
is random.

Differences from the published code: the projection is initialised as every other linear layer here
(Xavier), there as PyTorch does by default; the mask is drawn by the sampler, there by the teacher.
"""

from maskjax.config import ConfigDict, default_config, part
from maskjax.data_sections import use_cifar10, use_digits
from maskjax.models import vit_variant


def get_config(arg: str = "B/16") -> ConfigDict:
    """Returns the configuration of a variant."""
    if arg in ("cifar10", "cifar10-teacher"):
        return _cifar10(teacher=arg == "cifar10-teacher")
    if arg == "tiny":
        return _tiny()
    c = default_config()
    c.name = f"dmae_{arg.replace('/', '').lower()}"
    encoder = part("models.ViT", **vit_variant(arg))
    teacher = part("models.ViT", **vit_variant(f"L/{arg.partition('/')[2]}"))
    # Three quarters up: the 9th of 12 blocks learns from the 18th of 24.
    taps = 3 * encoder.depth // 4 - 1, 3 * teacher.depth // 4 - 1
    c.system = _system(encoder, part("models.MAEDecoder"), teacher, taps)

    c.data.test_split = "validation"
    augment = part("data.Augment", crop="resized", scale=(0.2, 1.0), flip=True)
    c.data.inputs.image = part("data.Image", decode_size=(256, 256), augment=augment)
    c.train.duration = "100 epochs"
    c.schedule.warmup = "20 epochs"
    c.checkpoint.every = "5 epochs"
    c.checkpoint.keep_every = "100 epochs"
    c.log.pictures_every = "50 epochs"
    return c


def _system(
    encoder: ConfigDict, decoder: ConfigDict, teacher: ConfigDict, taps: tuple[int, int]
) -> ConfigDict:
    student, of_teacher = taps
    return part(
        "systems.MaskedAutoencoder",
        encoder=encoder,
        decoder=decoder,
        mask=part("masking.Uniform", ratio=0.75),
        heads=dict(
            projection=part(
                "models.Projection", source=f"encoder.blocks.{student}", width=teacher.width
            )
        ),
        teachers=dict(teacher=part("systems.FrozenTeacher", network=teacher, masked=True)),
        targets=dict(pixels=part("targets.Pixels")),
        terms=dict(
            reconstruction=part(
                "objectives.MaskedRegression",
                prediction="decoder.masked",
                target="targets.pixels",
            ),
            distillation=part(
                "objectives.FeatureRegression",
                prediction="heads.projection.prediction",
                target=f"teachers.teacher.blocks.{of_teacher}",
                tokens="visible",
                class_token=True,
                error="l1",
                normalise="l2",
            ),
        ),
    )


def _cifar10(teacher: bool) -> ConfigDict:
    """50,000 images of 32 x 32 pixels, patch 4; the teacher is twice as wide."""
    c = default_config()
    c.name = "dmae_cifar10_teacher" if teacher else "dmae_cifar10"
    use_cifar10(c)
    large = part("models.ViT", patch_size=(4, 4), width=128, depth=6, heads=4)
    small = part("models.ViT", patch_size=(4, 4), width=64, depth=4, heads=4)
    decoder = part("models.MAEDecoder", width=64, depth=1, heads=4)
    if teacher:
        c.system.encoder, c.system.decoder = large, decoder
    else:
        c.system = _system(small, decoder, large, taps=(2, 4))
    c.train.duration = "2 epochs"
    c.train.batch_size = 256
    c.schedule.base_lr = 1.5e-3
    c.schedule.warmup = "5 percent"
    c.eval.max_train_examples = 10_000
    return c


def _tiny() -> ConfigDict:
    """Digits, for a run of seconds on any machine; the teacher is random."""
    c = default_config()
    c.name = "dmae_tiny"
    use_digits(c)
    small = part("models.ViT", patch_size=(2, 2), width=16, depth=2, heads=2)
    large = part("models.ViT", patch_size=(2, 2), width=24, depth=2, heads=2)
    c.system = _system(small, part("models.MAEDecoder", width=16, depth=1, heads=2), large, (0, 0))
    c.train.duration = "2 epochs"
    c.train.batch_size = 64
    c.schedule.warmup = "5 percent"
    c.log.every = "5 steps"
    return c
