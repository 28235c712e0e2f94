"""HPM: Hard Patches Mining for Masked Image Modeling (Wang et al., CVPR 2023, arXiv 2304.05919).

    python -m maskjax.train --config=configs/hpm.py --workdir=gs://bucket/hpm_b
    python -m maskjax.train --config=configs/hpm.py:cifar10 --workdir=runs/hpm \
        --config.data.source.data_dir=DATA/tfds

A second decoder foresees which patches the first will reconstruct poorly; its moving average looks
at the whole image and hides patches that it finds hard, none at first and half of the hidden ones
in the end.

Arguments: `B/16` (default), `L/16` or any other size and patch: the paper's recipe on ImageNet-1k
(TFDS `imagenet2012`, prepared as ArrayRecord), 200 epochs at batch 2,048. Published after
fine-tuning: 83.0 % (B, 200 epochs), 84.2 % (B, 800), 85.8 % (L, 800). `cifar10`: 32 x 32 pixels,
minutes on two CPU cores. `tiny`: seconds, to try things.

Differences from the published code: it orders visible tokens before masked ones in the decoder,
which per position changes nothing; its masks come from a loop over examples on the host.
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
    c.name = f"hpm_{arg.replace('/', '').lower()}"
    encoder, decoder = part("models.ViT", **vit_variant(arg)), part("models.HPMDecoder")
    deep = encoder.depth >= 24
    for network in (encoder, decoder):
        network.scan = deep
        network.remat = "hidden" if deep else "none"
    # The average slows down over the first 100 of the epochs.
    c.system = _system(encoder, decoder, share=100 / 200)

    c.data.test_split = "validation"
    augment = part("data.Augment", crop="resized", scale=(0.2, 1.0), flip=True)
    c.data.inputs.image = part("data.Image", decode_size=(256, 256), augment=augment)
    c.train.duration = "200 epochs"
    c.train.batch_size = 2048
    c.checkpoint.every = "5 epochs"
    c.checkpoint.keep_every = "100 epochs"
    c.log.pictures_every = "50 epochs"
    return c


def _system(encoder: ConfigDict, decoder: ConfigDict, share: float) -> ConfigDict:
    paths = dict(prediction="decoder.prediction", target="targets.pixels")
    return part(
        "systems.MaskedAutoencoder",
        encoder=encoder,
        decoder=decoder,
        mask=part("masking.Guided", ratio=0.75, hard_share=0.5),
        momentum=part("systems.Momentum", start=0.999, end=0.9999, shape="linear", share=share),
        scores="decoder.scores",
        targets=dict(pixels=part("targets.Pixels")),
        terms=dict(
            reconstruction=part("objectives.MaskedRegression", **paths),
            ranking=part("objectives.ErrorPrediction", scores="decoder.scores", **paths),
        ),
    )


def _cifar10() -> ConfigDict:
    """50,000 images of 32 x 32 pixels, patch 4."""
    c = default_config()
    c.name = "hpm_cifar10"
    use_cifar10(c)
    encoder = part("models.ViT", patch_size=(4, 4), width=96, depth=4, heads=3)
    c.system = _system(encoder, part("models.HPMDecoder", width=48, depth=1, heads=3), share=0.5)
    # A run of minutes has few steps: the average has to follow faster.
    c.system.momentum.start, c.system.momentum.end = 0.99, 0.999
    c.train.duration = "2 epochs"
    c.train.batch_size = 256
    c.schedule.base_lr = 1.5e-3
    c.schedule.warmup = "5 percent"
    c.eval.max_train_examples = 10_000
    return c


def _tiny() -> ConfigDict:
    """Digits, for a run of seconds on any machine."""
    c = default_config()
    c.name = "hpm_tiny"
    use_digits(c)
    encoder = part("models.ViT", patch_size=(2, 2), width=16, depth=2, heads=2)
    c.system = _system(encoder, part("models.HPMDecoder", width=16, depth=1, heads=2), share=0.5)
    c.system.momentum.start, c.system.momentum.end = 0.9, 0.99
    c.train.duration = "2 epochs"
    c.train.batch_size = 64
    c.schedule.warmup = "5 percent"
    c.log.every = "5 steps"
    return c
