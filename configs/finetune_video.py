"""Fine-tuning of VideoMAE (Tong et al., NeurIPS 2022, arXiv 2203.12602).

    python -m maskjax.train --config=configs/finetune_video.py --workdir=gs://bucket/finetuned \
        --config.system.run=gs://bucket/videomae_b --config.data.source.path=DATA/kinetics400
    python -m maskjax.train --config=configs/finetune_video.py:cifar10 --workdir=runs/finetuned \
        --config.system.run=runs/videomae --config.data.source.source.data_dir=DATA/tfds

`system.run` is the directory of the pretraining, by `configs/videomae.py`; without it the same
recipe trains from scratch. A video is judged by several clips and crops (five times three on
Kinetics), whose probabilities are averaged.

Arguments: `B/16` (default), `S/16`, `L/16`, `H/16`: Kinetics-400 as the published scripts have it.
Published after 1,600 epochs of pretraining, top-1: 79.0 % (S), 81.5 % (B), 85.2 % (L), 86.6 % (H).
`ssv2-B/16`: Something-Something V2, clips spread over the whole video, no flips, two clips of three
crops; published after 2,400 epochs: 70.8 %. They draw two clips of every decoded video; here each
is an example of its own, so the batch and the epochs are twice theirs, with the same learning rate.
`cifar10`: images that move in one of eight directions, minutes on two CPU cores. `tiny`: seconds.
"""

from typing import Any

from maskjax.config import ConfigDict, default_config, part
from maskjax.data_sections import CIFAR10, DIGITS
from maskjax.errors import UserError
from maskjax.models import vit_variant

# Base and last rate per 256 videos, videos a step, epochs, drop path, dropout before the classes.
_RECIPES = {
    "S/16": (5e-4, 1e-6, 384, 150, 0.1, 0.0),
    "B/16": (5e-4, 1e-6, 384, 75, 0.1, 0.0),
    "L/16": (2e-3, 1e-6, 128, 35, 0.1, 0.0),
    "H/16": (1e-3, 1e-5, 512, 50, 0.2, 0.5),
    "ssv2-B/16": (5e-4, 1e-6, 384, 30, 0.1, 0.0),
}
_DRAWN = 2  # clips of a video


def get_config(arg: str = "B/16") -> ConfigDict:
    """Returns the configuration of a variant."""
    c = default_config()
    c.name = f"finetune_video_{arg.replace('/', '').lower()}"
    c.system = part(
        "systems.Classifier",
        input_name="video",
        encoder=part("models.ViT"),
        head=part("models.ClassHead", classes=400),
        mixing=part("data.Mixing", mixup=0.8, cutmix=1.0),
        terms=dict(labels=part("objectives.LabelCrossEntropy", smoothing=0.1)),
    )
    c.optimizer = part("training.LayerwiseAdamW", weight_decay=0.05, layer_decay=0.75)
    c.eval.evaluators = dict(accuracy=part("evaluation.Accuracy", logits="head.probabilities"))
    c.eval.batch_size = 128  # of clips
    dict(cifar10=_cifar10, tiny=_tiny).get(arg, _published)(c, arg)
    return c


def _published(c: ConfigDict, arg: str) -> None:
    if arg not in _RECIPES:
        raise UserError(f"There is no recipe '{arg}': write one of {', '.join(_RECIPES)}.")
    base_lr, final_lr, videos, epochs, drop_path, dropout = _RECIPES[arg]
    size, ssv2 = vit_variant(arg.removeprefix("ssv2-")), arg.startswith("ssv2")
    c.data.source = part("data.VideoFolder", path="data/ssv2" if ssv2 else "data/kinetics400")
    c.data.test_split = "val"
    c.system.head.update(classes=174 if ssv2 else 400, dropout=dropout)
    # What moves to the left must not move to the right in something that is "pushed to the left".
    augment = part("data.Augment", place="host", crop="resized", scale=(0.08, 1.0), flip=not ssv2)
    video = part(
        "data.Video",
        sampling="segments" if ssv2 else "stride",
        short="repeat",
        augment=augment,
        rand_augment=part("data.RandAugment", magnitude=7.0, deviation=0.5, operations=4),
        erase=part("data.Erase", probability=0.25),
        eval_clips=2 if ssv2 else 5,
        eval_crops=3,
    )
    c.data.inputs = ConfigDict(dict(video=video))
    _encoder(c, drop_path, **size | dict(patch_size=(2, *size["patch_size"])))
    deep = size["depth"] >= 24
    c.system.encoder.scan = deep
    c.system.encoder.remat = "hidden" if deep else "none"
    c.train.batch_size = _DRAWN * videos
    c.train.duration = f"{_DRAWN * epochs} epochs"
    c.schedule = part(
        "training.WarmupCosine",
        base_lr=base_lr,
        reference_batch=_DRAWN * 256,
        warmup=f"{_DRAWN * 5} epochs",
        final_lr=final_lr * videos / 256,
    )


def _cifar10(c: ConfigDict, arg: str) -> None:
    """The encoder of `configs/videomae.py:cifar10`; clips are mirrored by nobody: it is a label."""
    del arg
    _moving(c, part("data.TFDS", name="cifar10"), (8, 16, 16), (10, 16, 24))
    c.data.inputs.video.update(CIFAR10)
    _encoder(c, 0.1, patch_size=(2, 4, 4), width=96, depth=4, heads=3)
    c.train.duration = "2 epochs"
    c.train.batch_size = 256
    c.schedule = part("training.WarmupCosine", base_lr=1e-3, warmup="10 percent", final_lr=1e-6)


def _tiny(c: ConfigDict, arg: str) -> None:
    """The encoder of `configs/videomae.py:tiny`, with everything that the large ones do."""
    del arg
    seen = dict(
        augment=part("data.Augment", place="host", crop="resized", scale=(0.5, 1.0)),
        rand_augment=part("data.RandAugment", magnitude=1.0),
        erase=part("data.Erase"),
    )
    _moving(c, part("data.Digits"), (4, 16, 16), (6, 16, 24), **DIGITS, **seen)
    _encoder(c, 0.0, patch_size=(2, 4, 4), width=16, depth=2, heads=2)
    c.train.duration = "4 epochs"
    c.train.batch_size = 64
    c.schedule = part("training.WarmupCosine", base_lr=2e-2, warmup="10 percent", final_lr=1e-6)
    c.log.every = "5 steps"


def _moving(
    c: ConfigDict, images: ConfigDict, size: tuple[int, ...], whole: tuple[int, ...], **video: Any
) -> None:
    """Clips of images that move, shorter and narrower than the videos."""
    c.data.source = part("data.MovingImages", source=images, size=whole, canvas="mirror")
    c.data.test_split = "test"
    seen = part("data.Video", size=size, stride=1, eval_clips=2, eval_crops=3, **video)
    c.data.inputs = ConfigDict(dict(video=seen))
    c.system.head.classes = 8


def _encoder(c: ConfigDict, drop_path: float, **size: Any) -> None:
    """The encoder as `configs/videomae.py` pretrains it."""
    form = dict(class_token=False, positions="flat", bias="qv", drop_path=drop_path)
    c.system.encoder = part("models.ViT", **size, **form)
