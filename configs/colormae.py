"""ColorMAE: Exploring Data-Independent Masking Strategies (Hinojosa et al., ECCV 2024, 2407.13036).

    python -m maskjax.train --config=configs/colormae.py:green --workdir=gs://bucket/colormae
    python -m maskjax.train --config=configs/colormae.py:cifar10 --workdir=runs/colormae \
        --config.data.source.data_dir=DATA/tfds

MAE with one thing changed: the mask comes from filtered noise, which decides how clustered it is.

Arguments: `green` (default), `red`, `blue`, `purple`: the paper's recipe, ViT-B/16 on ImageNet-1k,
300 epochs at batch 4,096. Published for green, after fine-tuning: 83.01 % (300 epochs), 83.61 %
(800), 83.77 % (1,600); ADE20K 45.80 mIoU (300). `cifar10`: 32 x 32 pixels, minutes on two CPU
cores. `tiny`: seconds, to try things.

The widths of the published filters are not known; those here are choices (see masking.Coloured).
"""

from maskjax.config import ConfigDict, default_config, part
from maskjax.data_sections import use_cifar10, use_digits

SIGMA = dict(red=(1.0, 2.0), blue=(1.0, 2.0), green=(0.5, 2.0), purple=(0.5, 2.0))


def get_config(arg: str = "green") -> ConfigDict:
    """Returns the configuration of a colour, `cifar10` or `tiny`."""
    c = default_config()  # MAE, ViT-B/16
    c.name = f"colormae_{arg}"
    small = dict(cifar10=_cifar10, tiny=_tiny).get(arg)
    colour = "green" if small else arg
    c.system.mask = part("masking.Coloured", colour=colour, sigma=SIGMA.get(colour, SIGMA["green"]))
    c.optimizer.no_decay = ("bias$", "scale$", "cls$", "mask_token$")
    if small:
        return small(c)
    c.schedule.warmup_lr = 1.5e-8  # of the peak: 1e-4
    augment = part("data.Augment", crop="resized", scale=(0.2, 1.0), flip=True)
    c.data.inputs.image = part("data.Image", decode_size=(256, 256), augment=augment)
    c.data.test_split = "validation"
    c.train.duration = "300 epochs"
    c.checkpoint.every = "5 epochs"
    c.checkpoint.keep_every = "100 epochs"
    c.log.pictures_every = "50 epochs"
    return c


def _cifar10(c: ConfigDict) -> ConfigDict:
    use_cifar10(c)
    c.system.mask.bank, c.system.mask.bank_size = 512, (32, 32)
    c.system.encoder = part("models.ViT", patch_size=(4, 4), width=96, depth=4, heads=3)
    c.system.decoder = part("models.MAEDecoder", width=48, depth=1, heads=3)
    c.train.batch_size, c.train.duration = 256, "4 epochs"
    c.schedule.base_lr, c.schedule.warmup = 1.5e-3, "5 percent"
    c.eval.max_train_examples = 10_000
    return c


def _tiny(c: ConfigDict) -> ConfigDict:
    use_digits(c)
    c.system.mask.bank, c.system.mask.bank_size = 64, (8, 8)
    c.system.encoder = part("models.ViT", patch_size=(2, 2), width=16, depth=2, heads=2)
    c.system.decoder = part("models.MAEDecoder", width=16, depth=1, heads=2)
    c.train.batch_size, c.train.duration = 64, "2 epochs"
    c.schedule.warmup = "5 percent"
    c.log.every = "5 steps"
    return c
