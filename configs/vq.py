"""The tokenizer of MaskGIT: images to codes (Chang et al., CVPR 2022, arXiv 2202.04200).

    python -m maskjax.train --config=configs/vq.py --workdir=gs://bucket/vq
    python -m maskjax.train --config=configs/vq.py:cifar10 --workdir=runs/vq \
        --config.data.source.data_dir=DATA/tfds

Arguments: `imagenet` (default): 256 x 256 pixels to 16 x 16 codes out of 1,024, with the published
widths, 300 epochs at batch 256. It is a VQ-VAE (van den Oord et al., 2017) with MaskGIT's networks:
squared error, commitment and an averaged codebook. The published tokenizer was trained with a
discriminator and a perceptual loss as well, so its sharpness is not to be expected of this recipe.
`cifar10`: 8 x 8 codes out of 256, minutes on two CPU cores. `tiny`: seconds, on digits.
"""

from maskjax.config import ConfigDict, default_config, part


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns the configuration of a variant."""
    if arg == "cifar10":
        c = _config(size=32, width=64, multipliers=(1,), blocks=2, latent=32, stem=4, codes=256)
        c.name = "vq_cifar10"
        c.data.source = part("data.TFDS", name="cifar10")
        c.data.test_split = "test"
        c.data.inputs.image.augment = part("data.Augment", flip=True)
        c.train.duration = "2 epochs"
        c.train.batch_size = 128
        c.schedule = part(
            "training.WarmupCosine", base_lr=2e-3, reference_batch=0, warmup="100 steps"
        )
        c.checkpoint.every = "1 epochs"
        c.eval.max_train_examples = 5000
    elif arg == "tiny":
        c = _config(size=8, width=8, multipliers=(1, 2), blocks=1, latent=8, stem=1, codes=16)
        c.name = "vq_tiny"
        c.data.source = part("data.Digits")
        c.data.test_split = "test"
        c.data.inputs.image.channels = 1
        c.data.inputs.image.mean = c.data.inputs.image.std = (0.5,)
        c.train.duration = "2 epochs"
        c.train.batch_size = 64
        c.log.every = "5 steps"
        c.schedule = part(
            "training.WarmupCosine", base_lr=3e-3, reference_batch=0, warmup="4 steps"
        )
    else:
        c = _config(256, 128, (1, 1, 2, 2, 4), blocks=2, latent=256, stem=1, codes=1024)
        c.name = "vq_imagenet"
        c.data.test_split = "validation"
        c.data.inputs.image.augment = part(
            "data.Augment", crop="resized", scale=(0.8, 1.0), flip=True
        )
        c.data.inputs.image.decode_size = (288, 288)
        c.train.duration = "300 epochs"
        c.train.batch_size = 256
        c.schedule = part("training.WarmupCosine", base_lr=1e-4, warmup="5000 steps")
        c.checkpoint.every = "5 epochs"
        c.log.pictures_every = "25 epochs"
    return c


def _config(
    size: int,
    width: int,
    multipliers: tuple[int, ...],
    blocks: int,
    latent: int,
    stem: int,
    codes: int,
) -> ConfigDict:
    c = default_config()
    c.data.inputs = dict(
        image=part("data.Image", size=(size, size), mean=(0.5,) * 3, std=(0.5,) * 3)
    )
    levels = dict(width=width, multipliers=multipliers, blocks=blocks, stem=stem)
    c.system = part(
        "systems.VQAutoencoder",
        encoder=part("models.VQEncoder", **levels, latent_width=latent),
        decoder=part("models.VQDecoder", **levels),
        codebook=part("models.Codebook", size=codes),
        terms=dict(
            reconstruction=part(
                "objectives.MaskedRegression",
                prediction="decoder.prediction",
                target="patches",
                mask="masks.everything",
            ),
            commitment=part(
                "objectives.MaskedRegression",
                prediction="latents",
                target="quantised",
                mask="masks.everything",
                weight=0.25,
            ),
            perplexity=part("objectives.CodePerplexity", size=codes),
        ),
    )
    c.optimizer = part("training.AdamW", b2=0.99, weight_decay=0.0)
    return c
