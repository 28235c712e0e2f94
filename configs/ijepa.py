"""I-JEPA: Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture.

Assran et al., CVPR 2023, arXiv 2301.08243.

    python -m maskjax.train --config=configs/ijepa.py:H/14 --workdir=gs://bucket/ijepa_h
    python -m maskjax.train --config=configs/ijepa.py:cifar10 --workdir=runs/ijepa \
        --config.data.source.data_dir=DATA/tfds

Features of four hidden blocks are predicted from those of one context block; the targets come from
a moving average of the encoder that sees the whole image. No view augmentation but the crop.

Arguments: `H/14` (default) or any other size and patch: the paper's recipe on ImageNet-1k (TFDS
`imagenet2012`, prepared as ArrayRecord), 300 epochs at batch 2,048. Published for the linear probe:
79.3 % (H/14). `cifar10`: 32 x 32 pixels, minutes on two CPU cores. `tiny`: seconds, to try things.

Differences from the published code: the longest context is fixed (at the mean length to which the
code cuts the contexts of 128 images, the batch of one of its devices) instead of cut to the
shortest of a batch.
"""

from maskjax.config import ConfigDict, default_config, part
from maskjax.data_sections import use_cifar10, use_digits
from maskjax.models import vit_variant

# Share of the tokens that the published code leaves of a context, at 128 images a device and 14 x
# 14 or 16 x 16 tokens (mean over 60 batches of its rule).
_BUDGET = 0.2625


def get_config(arg: str = "H/14") -> ConfigDict:
    """Returns the configuration of a variant."""
    if arg in ("cifar10", "tiny"):
        return _cifar10() if arg == "cifar10" else _tiny()
    c = default_config()
    c.name = f"ijepa_{arg.replace('/', '').lower()}"
    encoder = vit_variant(arg)
    options = dict(init_kernel="normal", scan=encoder["depth"] >= 24)
    if options["scan"]:
        options["remat"] = "hidden"
    tokens = (224 // encoder["patch_size"][0]) ** 2
    c.system = _system(
        dict(**encoder, **options),
        dict(width=384, depth=12, heads=encoder["heads"], **options),
        dict(min_keep=10, budget=round(_BUDGET * tokens)),
    )
    c.data.test_split = "validation"
    augment = part("data.Augment", crop="resized", scale=(0.3, 1.0), flip=False)
    c.data.inputs.image = part("data.Image", decode_size=(256, 256), augment=augment)
    c.train.duration = "300 epochs"
    c.train.batch_size = 2048
    c.schedule.base_lr = 1e-3
    c.schedule.reference_batch = 0
    c.schedule.warmup_lr = 2e-4
    c.schedule.final_lr = 1e-6
    c.checkpoint.every = "5 epochs"
    c.checkpoint.keep_every = "50 epochs"
    c.log.pictures_every = "50 epochs"
    return _common(c)


# Small patches have few values: kernels of deviation 0.02 would drown them in the positions.
_SMALL = dict(init_kernel="xavier")


def _system(encoder: dict, predictor: dict, mask: dict) -> ConfigDict:
    return part(
        "systems.JointEmbedding",
        encoder=part("models.ViT", class_token=False, **encoder),
        predictor=part("models.Predictor", **predictor),
        mask=part("masking.MultiBlock", **mask),
        momentum=part("systems.Momentum", start=0.996, end=1.0, shape="linear"),
        terms=dict(
            prediction=part(
                "objectives.WeightedRegression",
                prediction="predictor.prediction",
                target="targets.blocks",
                weights="masks.image.target_weight",
                error="smooth_l1",
            ),
            spread=part("objectives.FeatureSpread", feature="teachers.average.encoder.mean"),
        ),
    )


def _common(c: ConfigDict) -> ConfigDict:
    """Sets the optimiser, and evaluates the averaged encoder, as the paper does."""
    c.optimizer.b2 = 0.999
    c.optimizer.weight_decay, c.optimizer.final_weight_decay = 0.04, 0.4
    for evaluator in c.eval.evaluators.values():
        evaluator.feature = "teachers.average.encoder.mean"
    return c


def _cifar10() -> ConfigDict:
    """50,000 images of 32 x 32 pixels, patch 4."""
    c = default_config()
    c.name = "ijepa_cifar10"
    use_cifar10(c, flip=False)
    # On so few tokens the last row and column are too much to lose.
    c.system = _system(
        dict(patch_size=(4, 4), width=96, depth=4, heads=3, **_SMALL),
        dict(width=48, depth=2, heads=3, **_SMALL),
        dict(min_keep=4, budget=32, trim="random", inclusive=True),
    )
    # A run of minutes has few steps: the average has to follow faster.
    c.system.momentum.start, c.system.momentum.end = 0.98, 1.0
    c.train.duration = "4 epochs"
    c.train.batch_size = 256
    c.schedule.base_lr = 1e-3
    c.schedule.warmup = "10 percent"
    c.eval.max_train_examples = 10_000
    return _common(c)


def _tiny() -> ConfigDict:
    """Digits, for a run of seconds on any machine."""
    c = default_config()
    c.name = "ijepa_tiny"
    use_digits(c)
    c.system = _system(
        dict(patch_size=(2, 2), width=16, depth=2, heads=2, **_SMALL),
        dict(width=16, depth=1, heads=2, **_SMALL),
        dict(min_keep=1, target_scale=(0.2, 0.3), inclusive=True),
    )
    c.system.momentum.start = 0.9
    c.train.duration = "2 epochs"
    c.train.batch_size = 64
    c.schedule.base_lr = 1e-3
    c.schedule.warmup = "5 percent"
    c.log.every = "5 steps"
    return _common(c)
