"""SparK: Designing BERT for Convolutional Networks (Tian et al., ICLR 2023, arXiv 2301.03580).

    python -m maskjax.train --config=configs/spark.py:resnet50 --workdir=gs://bucket/spark_r50
    python -m maskjax.train --config=configs/spark.py:cifar10 --workdir=runs/spark_cifar10 \
        --config.data.source.data_dir=DATA/tfds

Arguments: `resnet50` (default), `resnet101`, `convnext_s`, `convnext_b`, `convnext_l`: the paper's
recipe on ImageNet-1k (TFDS `imagenet2012`), 1,600 epochs at batch 4,096. Published after
fine-tuning: 80.6 % (ResNet-50), 82.2 % (ResNet-101), 84.1 / 84.8 / 85.4 % (ConvNeXt-S / B / L).
`cifar10`: a small ResNet on 32 x 32 pixels, minutes on two CPU cores. `tiny`: seconds.
"""

from maskjax.config import ConfigDict, default_config, part
from maskjax.data_sections import use_cifar10, use_digits

# Blocks of each stage, stochastic depth.
_RESNETS = {"resnet50": ((3, 4, 6, 3), 0.05), "resnet101": ((3, 4, 23, 3), 0.08)}
# Blocks and channels of each stage, stochastic depth.
_CONVNEXTS = {
    "convnext_s": ((3, 3, 27, 3), (96, 192, 384, 768), 0.2),
    "convnext_b": ((3, 3, 27, 3), (128, 256, 512, 1024), 0.3),
    "convnext_l": ((3, 3, 27, 3), (192, 384, 768, 1536), 0.4),
}
# The reference keeps round(0.4 * 49) = 20 cells; `Uniform` rounds down.
_MASKED = 29 / 49


def get_config(arg: str = "resnet50") -> ConfigDict:
    """Returns the configuration of a variant."""
    c = default_config()
    c.name = f"spark_{arg}"
    c.system.terms.reconstruction.prediction = "decoder.prediction"  # of all cells
    c.optimizer = part(
        "training.LAMB",
        weight_decay=0.04,
        final_weight_decay=0.2,
        no_decay=(r"(^|/)bias$", r"(^|/)scale$", r"mask_token", r"layer_scale$"),
    )
    c.schedule.warmup = "40 epochs"
    c.schedule.base_lr = 2e-4
    c.schedule.warmup_lr = 1e-6  # of the peak: 0.005
    c.schedule.final_lr = 3.2e-6  # a thousandth of the peak
    if arg == "cifar10":
        return _cifar10(c)
    if arg == "tiny":
        return _tiny(c)
    if arg in _RESNETS:
        depths, drop_path = _RESNETS[arg]
        network = part("models.ResNet", depths=depths, drop_path=drop_path)
        norm = "batch"
    else:
        depths, widths, drop_path = _CONVNEXTS[arg]
        network = part("models.ConvNeXt", depths=depths, widths=widths, drop_path=drop_path)
        norm = "layer"
        c.optimizer.b2 = 0.999
    c.system.encoder = part("models.SparseEncoder", network=network)
    c.system.decoder = part("models.SparKDecoder", norm=norm)
    c.system.mask.ratio = _MASKED

    c.data.test_split = "validation"
    augment = part("data.Augment", crop="resized", scale=(0.67, 1.0), flip=True)
    c.data.inputs.image = part("data.Image", decode_size=(256, 256), augment=augment)
    c.train.duration = "1600 epochs"
    c.checkpoint.every = "5 epochs"
    c.log.pictures_every = "100 epochs"
    return c


def _cifar10(c: ConfigDict) -> ConfigDict:
    """A ResNet of 3 blocks with maps at strides 2, 4 and 8; cells of 8 x 8 pixels, 16 an image."""
    use_cifar10(c)
    network = part(
        "models.ResNet",
        depths=(1, 1, 1),
        widths=(16, 32, 64),
        strides=(2, 2, 2),
        bottleneck=False,
        stem="small",
        stem_width=8,
    )
    c.system.encoder = part("models.SparseEncoder", network=network, patch_size=(8, 8))
    c.system.decoder = part("models.SparKDecoder", width=32)
    c.system.mask.ratio = 0.625  # 6 of 16 cells are seen
    c.optimizer = part("training.AdamW", no_decay=tuple(c.optimizer.no_decay))
    c.schedule = part("training.WarmupCosine", base_lr=1e-3, warmup="5 percent")
    c.train.duration = "1 epochs"
    c.train.batch_size = 128
    c.checkpoint.every = "25 percent"
    c.eval.max_train_examples = 10_000
    return c


def _tiny(c: ConfigDict) -> ConfigDict:
    """Digits, for a run of seconds on any machine."""
    use_digits(c)
    network = part(
        "models.ResNet",
        depths=(1, 1),
        widths=(8, 16),
        strides=(1, 2),
        bottleneck=False,
        stem="small",
        stem_width=8,
    )
    c.system.encoder = part("models.SparseEncoder", network=network, patch_size=(2, 2))
    c.system.decoder = part("models.SparKDecoder", width=16)
    c.system.mask.ratio = 0.625
    c.schedule.base_lr = 6e-2
    c.schedule.warmup = "5 percent"
    c.train.duration = "2 epochs"
    c.train.batch_size = 64
    c.log.every = "5 steps"
    return c
