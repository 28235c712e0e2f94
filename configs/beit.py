"""BEiT: BERT Pre-Training of Image Transformers (Bao et al., ICLR 2022, arXiv 2106.08254).

    python -m maskjax.train --config=configs/vq.py --workdir=runs/vq
    python -m maskjax.train --config=configs/beit.py --workdir=runs/beit_b \
        --config.system.teachers.codes.tokenizer.run=runs/vq

    python -m maskjax.train --config=configs/vq.py:cifar10 --workdir=runs/vq \
        --config.data.source.data_dir=DATA/tfds
    python -m maskjax.train --config=configs/beit.py:cifar10 --workdir=runs/beit \
        --config.system.teachers.codes.tokenizer.run=runs/vq \
        --config.data.source.data_dir=DATA/tfds

The codes of hidden patches are predicted; blocks of patches are hidden, the encoder has a learned
token at their places, and the blocks of configs/simmim.py.

Arguments: `B/16` (default), `L/16` or any other size and patch: the paper's recipe on ImageNet-1k
(TFDS `imagenet2012`, prepared as ArrayRecord), 800 epochs at batch 2,048. Published after
fine-tuning: 83.2 % (B, 800 epochs). `cifar10`: 32 x 32 pixels, minutes on two CPU cores. `tiny`:
seconds, with random codes, which need no tokenizer.

Differences from the published code: the tokenizer is that of configs/vq.py, which sees the same 224
pixels, instead of DALL-E's, which sees 112; it is applied in the step; no colour jitter; masks have
exactly 75 tokens, where the code may stop with fewer.
"""

from maskjax.config import ConfigDict, default_config, part
from maskjax.data_sections import use_digits
from maskjax.models import vit_variant


def get_config(arg: str = "B/16") -> ConfigDict:
    """Returns the configuration of a variant."""
    if arg in ("cifar10", "tiny"):
        return _cifar10() if arg == "cifar10" else _tiny()
    c = default_config()
    c.name = f"beit_{arg.replace('/', '').lower()}"
    size = vit_variant(arg)
    deep = size["depth"] >= 24
    levels = dict(width=128, multipliers=(1, 1, 2, 2, 4), blocks=2, stem=1)
    c.system = _system(
        dict(**size, drop_path=0.1, layer_scale=1e-5 if deep else 0.1),
        part("masking.Block", count=75),
        _codes(c, size=224, levels=levels, latent=256, vocabulary=1024),
    )
    c.system.encoder.scan = deep
    c.system.encoder.remat = "hidden" if deep else "none"

    c.data.test_split = "validation"
    c.data.inputs.image.decode_size = (256, 256)
    c.data.inputs.image.augment = part("data.Augment", crop="resized", scale=(0.08, 1.0), flip=True)
    c.train.duration = "800 epochs"
    c.train.batch_size = 2048
    c.optimizer = _optimizer()
    c.schedule = part(
        "training.WarmupCosine",
        base_lr=1.5e-3,
        reference_batch=0,
        warmup="10 epochs",
        final_lr=1e-5,
    )
    c.checkpoint.every = "5 epochs"
    c.checkpoint.keep_every = "100 epochs"
    c.log.pictures_every = "50 epochs"
    return c


def _system(vit: dict, mask: ConfigDict, codes: dict) -> ConfigDict:
    return part(
        "systems.MaskedAutoencoder",
        encoder=part(
            "models.ViT",
            **vit,
            positions="none",
            relative_bias=True,
            mask_token=True,
            bias="qv",
            init_kernel="beit",
        ),
        decoder=part("models.LinearHead", init_kernel="beit"),
        mask=mask,
        **codes,
        terms=dict(
            codes=part(
                "objectives.MaskedCrossEntropy", logits="decoder.prediction", target="targets.codes"
            )
        ),
    )


def _codes(c: ConfigDict, size: int, levels: dict, latent: int, vocabulary: int) -> dict:
    """Returns teacher and target; the images are scaled to [-1, 1], as the tokenizer has them."""
    half = (0.5, 0.5, 0.5)
    c.data.inputs = dict(image=part("data.Image", size=(size, size), mean=half, std=half))
    tokenizer = part(
        "systems.VQTokenizer",
        run=None,
        encoder=part("models.VQEncoder", **levels, latent_width=latent),
        decoder=part("models.VQDecoder", **levels),
        vocabulary=vocabulary,
    )
    return dict(
        teachers=dict(codes=part("systems.CodeTeacher", tokenizer=tokenizer)),
        targets=dict(codes=part("targets.Codes", vocabulary=vocabulary)),
    )


def _optimizer() -> ConfigDict:
    """The class token is spared from decay, mask token and relative bias are not, as published."""
    spared = (r"(^|/)bias$", r"(^|/)scale$", r"(^|/)cls$")
    return part("training.AdamW", b2=0.98, clip_norm=3.0, no_decay=spared)


def _cifar10() -> ConfigDict:
    """50,000 images of 32 x 32 pixels, 8 x 8 codes out of 256."""
    c = default_config()
    c.name = "beit_cifar10"
    c.data.source = part("data.TFDS", name="cifar10")
    c.data.test_split = "test"
    levels = dict(width=64, multipliers=(1,), blocks=2, stem=4)
    c.system = _system(
        dict(patch_size=(4, 4), width=96, depth=4, heads=3, layer_scale=0.1),
        part("masking.Block", ratio=0.4, min_block=4),
        _codes(c, size=32, levels=levels, latent=32, vocabulary=256),
    )
    c.data.inputs.image.augment = part("data.Augment", crop="shift", shift=4, flip=True)
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
    c.name = "beit_tiny"
    use_digits(c)
    c.system = _system(
        dict(patch_size=(2, 2), width=16, depth=2, heads=2, layer_scale=0.1),
        part("masking.Block", ratio=0.4, min_block=2),
        dict(targets=dict(codes=part("targets.RandomCodes", clusters=16, width=16))),
    )
    c.train.duration = "2 epochs"
    c.train.batch_size = 64
    c.optimizer = _optimizer()
    c.schedule.base_lr = 4e-3
    c.schedule.warmup = "5 percent"
    c.log.every = "5 steps"
    return c
