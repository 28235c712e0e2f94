"""MaskGIT: Masked Generative Image Transformer (Chang et al., CVPR 2022, arXiv 2202.04200).

    python -m maskjax.train --config=configs/maskgit.py --workdir=gs://bucket/maskgit \
        --config.system.tokenizer.run=gs://bucket/vq
    python -m maskjax.train --config=configs/maskgit.py:cifar10 --workdir=runs/maskgit \
        --config.system.tokenizer.run=runs/vq --config.data.source.data_dir=DATA/tfds

Its codes come from an earlier run of `configs/vq.py` of the same name, whose weights are copied.
Arguments: `imagenet` (default): the paper's recipe at 256 x 256 pixels, 300 epochs at batch 256;
published: FID 6.18 in 8 steps (with the published tokenizer, which has a discriminator).
`cifar10`: minutes on two CPU cores, with guidance. `tiny`: seconds, on digits, without any earlier
run: its codes are the pixels themselves, rounded to 16 levels.
"""

from maskjax.config import ConfigDict, default_config, part

_VQ = {
    "imagenet": (dict(width=128, multipliers=(1, 1, 2, 2, 4), blocks=2, stem=1), 256, 1024),
    "cifar10": (dict(width=64, multipliers=(1,), blocks=2, stem=4), 32, 256),
}


def get_config(arg: str = "imagenet") -> ConfigDict:
    """Returns the configuration of a variant."""
    c = default_config()
    c.name = f"maskgit_{arg}"
    c.system = part(
        "systems.MaskGIT",
        tokenizer=_tokenizer(arg),
        transformer=part("models.CodeTransformer"),
        terms=dict(
            codes=part(
                "objectives.MaskedCrossEntropy",
                logits="transformer.logits",
                target="codes",
                mask="masks.codes",
                smoothing=0.1,
            )
        ),
    )
    c.optimizer = part("training.AdamW", b2=0.96, weight_decay=0.045)
    c.eval.evaluators = dict(
        knn=part("evaluation.KNN"),
        linear=part("evaluation.LinearProbe"),
        knn_middle=part("evaluation.KNN", feature="encoder.middle"),
    )
    if arg == "cifar10":
        _images(c, size=32, channels=3)
        c.data.source = part("data.TFDS", name="cifar10")
        c.data.test_split = "test"
        c.data.inputs.image.augment = part("data.Augment", flip=True)
        c.system.transformer = part("models.CodeTransformer", width=128, depth=4, heads=4)
        c.system.classes, c.system.class_dropout = 10, 0.1
        c.system.sampler = part("systems.ParallelDecoding", guidance=1.0, rising=True)
        c.train.duration = "2 epochs"
        c.train.batch_size = 128
        c.schedule = part(
            "training.WarmupCosine", base_lr=1e-3, reference_batch=0, warmup="100 steps"
        )
        c.eval.max_train_examples = 5000
        c.log.pictures = 10
    elif arg == "tiny":
        _images(c, size=8, channels=1)
        c.data.source = part("data.Digits")
        c.data.test_split = "test"
        c.system.transformer = part("models.CodeTransformer", width=16, depth=2, heads=2)
        c.system.classes, c.system.class_dropout = 10, 0.1
        c.system.sampler = part("systems.ParallelDecoding", steps=4, guidance=1.0)
        c.train.duration = "2 epochs"
        c.train.batch_size = 64
        c.log.every = "5 steps"
        c.schedule = part(
            "training.WarmupCosine", base_lr=3e-3, reference_batch=0, warmup="4 steps"
        )
    else:
        _images(c, size=256, channels=3)
        c.data.test_split = "validation"
        c.data.inputs.image.decode_size = (288, 288)
        c.data.inputs.image.augment = part(
            "data.Augment", crop="resized", scale=(0.8, 1.0), flip=True
        )
        c.system.transformer.scan = True
        c.system.transformer.remat = "hidden"
        c.train.duration = "300 epochs"
        c.train.batch_size = 256
        c.schedule = part("training.WarmupCosine", base_lr=1e-4, warmup="5000 steps")
        c.checkpoint.every = "5 epochs"
        c.log.pictures_every = "25 epochs"
    return c


def _images(c: ConfigDict, size: int, channels: int) -> None:
    """Images scaled to [-1, 1], as the tokenizer has them."""
    half = (0.5,) * channels
    image = part("data.Image", size=(size, size), channels=channels, mean=half, std=half)
    c.data.inputs = dict(image=image)


def _tokenizer(arg: str) -> ConfigDict:
    if arg == "tiny":
        return part("systems.QuantisedPixels", levels=16)
    levels, latent, codes = _VQ[arg]
    return part(
        "systems.VQTokenizer",
        run=None,
        encoder=part("models.VQEncoder", **levels, latent_width=latent),
        decoder=part("models.VQDecoder", **levels),
        vocabulary=codes,
    )
