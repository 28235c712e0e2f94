"""MR-MAE: Mimic before Reconstruct (Gao et al., 2023, arXiv 2303.05475).

    python -m maskjax.train --config=configs/mrmae.py --workdir=runs/mrmae_b \
        --config.system.teachers.teacher.run=runs/teacher
    python -m maskjax.train --config=configs/mrmae.py:cifar10 --workdir=runs/mrmae \
        --config.data.source.data_dir=DATA/tfds --config.system.teachers.teacher.run=runs/mae

Two targets at disjoint tokens: where it sees, the encoder mimics the features that a frozen teacher
has of the whole image (CLIP or DINO in the paper); where it does not, the decoder reconstructs
pixels.

Arguments: `B/16` (default) or another size and patch: the paper's recipe on ImageNet-1k (TFDS
`imagenet2012`, prepared as ArrayRecord), 200 epochs. Published for B after fine-tuning: 85.0 % with
a CLIP teacher. Any run of maskjax with a ViT-B/16 can be the teacher; it is given its own mean and
std by `--config.system.teachers.teacher.mean=(...)` if it was trained with others. `cifar10`:
minutes on two CPU cores; the teacher is the run of `configs/dmae.py:cifar10-teacher`. `tiny`:
seconds, to try things. Without a `run`, the teacher is random.

No code of the authors is public: losses and weights follow the paper's text where it says them, and
the squared error, the linear projection and the equal weights are from secondary accounts. The
paper's refinements (visible tokens chosen by the teacher's attention, several layers added up, a
convolutional encoder) are not part of this configuration.
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
    c.name = f"mrmae_{arg.replace('/', '').lower()}"
    encoder = part("models.ViT", **vit_variant(arg))
    teacher = part("models.ViT", **vit_variant(f"B/{arg.partition('/')[2]}"))
    c.system = _system(encoder, part("models.MAEDecoder"), teacher)

    c.data.test_split = "validation"
    augment = part("data.Augment", crop="resized", scale=(0.2, 1.0), flip=True)
    c.data.inputs.image = part("data.Image", decode_size=(256, 256), augment=augment)
    c.train.duration = "200 epochs"
    c.checkpoint.every = "5 epochs"
    c.checkpoint.keep_every = "100 epochs"
    c.log.pictures_every = "50 epochs"
    return c


def _system(encoder: ConfigDict, decoder: ConfigDict, teacher: ConfigDict) -> ConfigDict:
    return part(
        "systems.MaskedAutoencoder",
        encoder=encoder,
        decoder=decoder,
        mask=part("masking.Uniform", ratio=0.75),
        heads=dict(mimic=part("models.Projection", source="encoder.patches", width=teacher.width)),
        teachers=dict(teacher=part("systems.FrozenTeacher", network=teacher)),
        targets=dict(pixels=part("targets.NormalisedPixels")),
        terms=dict(
            reconstruction=part(
                "objectives.MaskedRegression",
                prediction="decoder.masked",
                target="targets.pixels",
            ),
            mimic=part(
                "objectives.FeatureRegression",
                prediction="heads.mimic.prediction",
                target="teachers.teacher.patches",
                tokens="visible",
            ),
        ),
    )


def _cifar10() -> ConfigDict:
    """50,000 images of 32 x 32 pixels, patch 4."""
    c = default_config()
    c.name = "mrmae_cifar10"
    use_cifar10(c)
    c.system = _system(
        part("models.ViT", patch_size=(4, 4), width=64, depth=4, heads=4),
        part("models.MAEDecoder", width=64, depth=1, heads=4),
        part("models.ViT", patch_size=(4, 4), width=128, depth=6, heads=4),
    )
    c.train.duration = "2 epochs"
    c.train.batch_size = 256
    c.schedule.base_lr = 1.5e-3
    c.schedule.warmup = "5 percent"
    c.eval.max_train_examples = 10_000
    return c


def _tiny() -> ConfigDict:
    """Digits, for a run of seconds on any machine; the teacher is random."""
    c = default_config()
    c.name = "mrmae_tiny"
    use_digits(c)
    c.system = _system(
        part("models.ViT", patch_size=(2, 2), width=16, depth=2, heads=2),
        part("models.MAEDecoder", width=16, depth=1, heads=2),
        part("models.ViT", patch_size=(2, 2), width=24, depth=2, heads=2),
    )
    c.train.duration = "2 epochs"
    c.train.batch_size = 64
    c.schedule.warmup = "5 percent"
    c.log.every = "5 steps"
    return c
