"""Fine-tuning and linear probes of MAE (He et al., CVPR 2022, arXiv 2111.06377), and of its kin.

    python -m maskjax.train --config=configs/finetune.py:B/16 --workdir=gs://bucket/finetuned \
        --config.system.run=gs://bucket/mae_b
    python -m maskjax.train --config=configs/finetune.py:cifar10 --workdir=runs/finetuned \
        --config.system.run=runs/cifar10 --config.data.source.data_dir=DATA/tfds

`system.run` is the directory of the pretraining, e.g. by `configs/mae.py`; without it the same
recipe trains from scratch, which is the baseline of the same cost.

Arguments, ImageNet-1k, for any size and patch of a ViT:
`B/16` (default), `L/16`, `H/14`: fine-tuning as the paper's appendix has it, 100 epochs (B) or 50
at batch 1,024. `repo-B/16`, ...: as the published code has it for models that predict normalised
pixels: random erasing; half the rate and a decay of 0.65 (B); more drop path (L, H). Published:
83.6 % (B), 85.9 % (L), 86.9 % (H) after 1,600 epochs of pretraining.
`linear-B/16`, ...: the linear probe, LARS at batch 16,384, 90 epochs, on the class token behind a
BatchNorm without parameters. Published: 68.0 % (B), 75.8 % (L), 76.6 % (H).
`attentive-B/16`, `attentive-L/16`: the attentive probe of CAE (Chen et al., 2022, arXiv
2202.03026), a learned query that reads the patch tokens by one cross-attention, SGD at batch 8,192,
90 epochs. Published: 77.2 % (B), 81.2 % (L) for CAE, 74.2 % for MAE (B), all after 1,600 epochs.

`cifar10`, `linear-cifar10`, `attentive-cifar10`: the encoder of `configs/mae.py:cifar10`, on two
CPU cores; what the recipes set for large images and batches is adapted, and is nobody's published
choice.
`tiny`, `linear-tiny`, `attentive-tiny`: seconds, for the encoder of `configs/mae.py:tiny`.
"""

from typing import Any

from maskjax.config import ConfigDict, default_config, part
from maskjax.data_sections import use_cifar10, use_digits
from maskjax.errors import UserError
from maskjax.models import vit_variant

# Base rate, layer decay and drop path, where the paper and the code differ.
PAPER = dict(B=(1e-3, 0.75, 0.1), L=(1e-3, 0.75, 0.1), H=(1e-3, 0.75, 0.2))
REPO = dict(B=(5e-4, 0.65, 0.1), L=(1e-3, 0.75, 0.2), H=(1e-3, 0.75, 0.3))
RECIPES = {"": PAPER, "repo": REPO, "linear": PAPER, "attentive": PAPER}
PEAKS = {"linear": 6.4, "attentive": 0.4}  # rates of the probes, at their batches


def get_config(arg: str = "B/16") -> ConfigDict:
    """Returns the configuration of a variant."""
    recipe, _, variant = arg.rpartition("-")
    if recipe not in RECIPES:
        raise UserError(
            f"There is no recipe '{recipe}': write B/16, repo-B/16, linear-B/16 or attentive-B/16."
        )
    c = default_config()
    c.name = f"finetune_{arg.replace('/', '').lower()}"
    c.eval.evaluators = dict(accuracy=part("evaluation.Accuracy"))
    {"linear": _linear, "attentive": _attentive}.get(recipe, _finetune)(c)
    dict(cifar10=_cifar10, tiny=_tiny).get(variant, _imagenet)(c, recipe, variant)
    if recipe == "attentive":
        c.system.head.heads = c.system.encoder.heads
    return c


def _finetune(c: ConfigDict) -> None:
    """What all fine-tuning has in common."""
    c.system = part(
        "systems.Classifier",
        encoder=part("models.ViT"),
        head=part("models.ClassHead", classes=1000),
        mixing=part("data.Mixing", mixup=0.8, cutmix=1.0),
        train_positions=True,
        terms=dict(labels=part("objectives.LabelCrossEntropy", smoothing=0.1)),
    )
    c.optimizer = part("training.LayerwiseAdamW", weight_decay=0.05)
    c.schedule = part("training.WarmupCosine", base_lr=1e-3, warmup="5 epochs", final_lr=1e-6)
    c.train.batch_size = 1024


def _linear(c: ConfigDict) -> None:
    """What all linear probes have in common."""
    c.system = part(
        "systems.Classifier",
        encoder=part("models.ViT"),
        head=part("models.ClassHead", classes=1000, source="encoder.cls", norm="batch", std=0.01),
        frozen=True,
        terms=dict(labels=part("objectives.LabelCrossEntropy")),
    )
    c.optimizer = part("training.LARS")
    c.schedule = part("training.WarmupCosine", base_lr=0.1, warmup="10 epochs")
    c.train.batch_size = 16384


def _attentive(c: ConfigDict) -> None:
    """What all attentive probes have in common."""
    c.system = part(
        "systems.Classifier",
        encoder=part("models.ViT"),
        head=part("models.AttentiveHead", classes=1000, pooling="query", std=0.01),
        frozen=True,
        terms=dict(labels=part("objectives.LabelCrossEntropy")),
    )
    c.optimizer = part("training.SGD")
    c.schedule = part(
        "training.WarmupCosine",
        base_lr=0.4,
        reference_batch=8192,
        warmup="10 epochs",
        final_lr=1e-6,
    )
    c.train.batch_size = 8192


def _imagenet(c: ConfigDict, recipe: str, variant: str) -> None:
    """The published recipes; images are cropped from the originals, on the host."""
    c.data.test_split = "validation"
    size = variant[:1] if variant[:1] in PAPER else "B"
    base_lr, layer_decay, drop_path = RECIPES[recipe][size]
    c.system.encoder = part("models.ViT", **vit_variant(variant))
    deep = c.system.encoder.depth >= 24
    c.system.encoder.scan = deep
    if recipe in PEAKS:
        crop = dict(linear="clipped", attentive="resized")[recipe]  # if a drawn crop does not fit
        augment = part("data.Augment", place="host", crop=crop, scale=(0.08, 1.0), flip=True)
        c.data.inputs.image = part("data.Image", eval_crop=224 / 256, augment=augment)
        c.train.duration = "90 epochs"
    else:
        augment = part("data.Augment", place="host", crop="resized", scale=(0.08, 1.0), flip=True)
        c.data.inputs.image = part(
            "data.Image",
            eval_crop=224 / 256,
            augment=augment,
            rand_augment=part("data.RandAugment", magnitude=9.0, deviation=0.5),
            erase=part("data.Erase", probability=0.25) if recipe == "repo" else None,
        )
        c.system.encoder.drop_path = drop_path
        c.system.encoder.remat = "hidden" if deep else "none"
        c.optimizer.layer_decay = layer_decay
        c.schedule.base_lr = base_lr
        c.train.duration = "50 epochs" if deep else "100 epochs"
    c.eval.every = "5 epochs"
    c.checkpoint.every = "1 epochs"


def _cifar10(c: ConfigDict, recipe: str, variant: str) -> None:
    """Whole images of 32 x 32 pixels, shifted and flipped instead of cropped and distorted."""
    del variant
    use_cifar10(c)
    c.system.encoder = part("models.ViT", patch_size=(4, 4), width=192, depth=6, heads=3)
    c.system.head.classes = 10
    c.train.duration = "10 epochs"
    c.schedule.warmup = "10 percent"
    if recipe in PEAKS:
        c.train.batch_size = 1024
        _few_steps(c, recipe)
    else:
        c.train.batch_size = 256
        c.system.encoder.drop_path = 0.1
    c.eval.every = "2 epochs"


def _tiny(c: ConfigDict, recipe: str, variant: str) -> None:
    """Digits, for a run of seconds on any machine, with everything that the large ones do."""
    del variant
    image: dict[str, Any] = {}
    if recipe not in PEAKS:
        image = dict(
            augment=part("data.Augment", place="host", crop="resized", scale=(0.5, 1.0)),
            rand_augment=part("data.RandAugment", magnitude=2.0),
            erase=part("data.Erase"),
        )
    use_digits(c, **image)
    c.system.encoder = part("models.ViT", patch_size=(2, 2), width=16, depth=2, heads=2)
    c.system.head.classes = 10
    c.train.duration = "4 epochs"
    c.train.batch_size = 64
    c.schedule.warmup = "10 percent"
    c.log.every = "5 steps"
    if recipe in PEAKS:
        _few_steps(c, recipe)
    else:
        c.schedule.base_lr = 2e-2


def _few_steps(c: ConfigDict, recipe: str) -> None:
    """The published peak of a probe, whatever the batch.

    A step of LARS is in proportion to the weights, so a rate that shrinks with the batch would
    leave them where they were; the attentive probe has too few steps for a smaller one.
    """
    c.schedule.base_lr, c.schedule.reference_batch = PEAKS[recipe], 0
