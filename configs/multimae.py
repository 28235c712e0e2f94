"""MultiMAE: Multi-modal Multi-task Masked Autoencoders (Bachmann et al., ECCV 2022).

    python -m maskjax.train --config=configs/multimae.py --workdir=gs://bucket/multimae_b \
        --config.data.source.data_dir=DATA
    python -m maskjax.train --config=configs/multimae.py:rgb_nir --workdir=runs/multimae \
        --config.data.source.path=DATA/multisensor/rgb_nir_tiles.npz
    python -m maskjax.train --config=configs/multimae.py:remote_sensing --workdir=runs/multimae_rs \
        --config.data.source.path=DATA/multisensor/remote_sensing_pairs.npz

arXiv 2204.01678. A fixed number of visible tokens is drawn over several aligned modalities; every
modality is predicted by a shallow decoder of its own that reads the tokens of all.

Arguments: `B/16` (default), `L/16`: the paper's recipe on ImageNet-1k with pseudo labels, 1,600
epochs at batch 2,048. The data set has to be prepared in TFDS format (ArrayRecord) with features
`image`, `depth` and `semseg` (133 classes). Published for B after fine-tuning: ImageNet-1k 83.3 %,
ADE20K 46.2 mIoU, NYUv2 segmentation from colour and depth 56.0 mIoU. `rgb_nir` and
`remote_sensing`: two sensors, minutes on two CPU cores. `tiny`: seconds; the depth and classes of
its digits are stand-ins made of their grey values.

The positions are those of the published code, whose first half encodes the row: on square images
only the order of channels differs from MAE's.
"""

from typing import Any

from maskjax.config import ConfigDict, default_config, part
from maskjax.data_sections import DIGITS
from maskjax.models import vit_variant


def get_config(arg: str = "B/16") -> ConfigDict:
    """Returns the configuration of a variant."""
    if arg == "tiny":
        return _tiny()
    if arg in ("rgb_nir", "remote_sensing"):
        return _two_sensors(arg)
    c = default_config()
    c.name = f"multimae_{arg.replace('/', '').lower()}"
    size = vit_variant(arg)
    patch = size.pop("patch_size")
    embedders = dict(
        rgb=part("models.PatchEmbedding", patch_size=patch),
        depth=part("models.PatchEmbedding", patch_size=patch),
        semseg=part("models.ClassEmbedding", patch_size=(4, 4)),
    )
    _system(c, embedders, size, dict(width=256, depth=2, heads=8), tokens=98)
    c.data.source = part(
        "data.TFDS",
        name="imagenet2012_multimae",
        fields=dict(rgb="image", depth="depth", semseg="semseg"),
    )
    crop = dict(
        decode_size=(256, 256),
        augment=part("data.Augment", crop="resized", scale=(0.2, 1.0), flip=True),
    )
    c.data.inputs = dict(
        rgb=part("data.Image", **crop),
        depth=part("data.Depth", **crop),
        semseg=part("data.ClassMap", size=(56, 56), classes=133, **crop),
    )
    c.train.duration = "1600 epochs"
    c.train.batch_size = 2048
    c.schedule.base_lr = 1e-4
    c.schedule.warmup = "40 epochs"
    c.checkpoint.every = "5 epochs"
    c.checkpoint.keep_every = "200 epochs"
    c.log.pictures_every = "100 epochs"
    return c


def _two_sensors(arg: str) -> ConfigDict:
    """Colour and another sensor: near infrared, or one of radar, infrared and lidar."""
    c = default_config()
    c.name = f"multimae_{arg}"
    other = "nir" if arg == "rgb_nir" else "other"
    names = ("rgb", other)
    embedders = {name: part("models.PatchEmbedding", patch_size=(8, 8)) for name in names}
    network = dict(width=96, depth=3, heads=3, scan=True)
    _system(c, embedders, network, dict(width=48, depth=1, heads=3), tokens=32)
    file = "rgb_nir_tiles.npz" if arg == "rgb_nir" else "remote_sensing_pairs.npz"
    c.data.source = part(
        "data.Arrays",
        path=file,
        fields={"rgb": "image[0:3]", other: "image[3:4]"},
        label_key="kind" if arg == "remote_sensing" else "label",
    )
    c.data.test_split = "test"
    crop = dict(
        size=(64, 64),
        augment=part("data.Augment", crop="resized", scale=(0.4, 1.0), flip=True),
    )
    half = dict(mean=(0.5,), std=(0.25,))
    c.data.inputs = {
        "rgb": part("data.Image", mean=(0.5,) * 3, std=(0.25,) * 3, **crop),
        other: part("data.Image", channels=1, **half, **crop),
    }
    paths = dict(
        query="alone.rgb.mean",
        key=f"alone.{other}.mean",
        query_input="rgb",
        key_input=other,
    )
    c.eval.evaluators = dict(
        retrieval=part("evaluation.Retrieval", **paths),
        ridge=part("evaluation.Retrieval", fit="ridge", **paths),
    )
    if arg == "remote_sensing":
        c.eval.evaluators = dict(knn=part("evaluation.KNN"), **c.eval.evaluators)
    c.train.duration = "100 epochs"
    c.train.batch_size = 64
    c.schedule.base_lr = 4e-3
    c.schedule.warmup = "5 percent"
    c.checkpoint.every = "50 epochs"
    c.log.every = "70 steps"
    return c


def _tiny() -> ConfigDict:
    """Digits three times: as pictures, as heights, and as maps of grey levels."""
    c = default_config()
    c.name = "multimae_tiny"
    embedders = dict(
        rgb=part("models.PatchEmbedding", patch_size=(2, 2)),
        depth=part("models.PatchEmbedding", patch_size=(2, 2)),
        semseg=part("models.ClassEmbedding", patch_size=(2, 2), class_width=8),
    )
    network = dict(width=16, depth=1, heads=2)
    _system(c, embedders, network, network, tokens=10)
    with c.unlocked():  # no second decoder of pictures
        del c.system.tasks.norm_rgb, c.system.terms.norm_rgb
    digits = part("data.Digits")
    c.data.source = part("data.Paired", sources=dict(rgb=digits, depth=digits, semseg=digits))
    c.data.test_split = "test"
    c.data.inputs = dict(
        rgb=part("data.Image", size=(8, 8), **DIGITS),
        depth=part("data.Depth", size=(8, 8)),
        semseg=part("data.ClassMap", size=(4, 4), classes=256),
    )
    c.eval.evaluators = dict(knn=part("evaluation.KNN"))
    c.train.duration = "2 epochs"
    c.train.batch_size = 64
    c.schedule.base_lr = 1e-2
    c.schedule.warmup = "5 percent"
    c.log.every = "5 steps"
    return c


def _system(
    c: ConfigDict,
    embedders: dict[str, ConfigDict],
    encoder: dict[str, Any],
    decoder: dict[str, Any],
    tokens: int,
) -> None:
    pixels, classes = part("targets.Pixels"), part("targets.Categories")
    tasks = {
        name: part(
            "systems.Task",
            input_name=name,
            target=classes if each.kind == "models.ClassEmbedding" else pixels,
        )
        for name, each in embedders.items()
    }
    tasks["norm_rgb"] = part(
        "systems.Task", input_name="rgb", target=part("targets.NormalisedPixels")
    )
    c.system = part(
        "systems.Multimodal",
        encoder=part(
            "models.MultimodalEncoder",
            embedders=embedders,
            globals_last=True,
            types=False,
            norm=False,
            rows_first=True,
            **encoder,
        ),
        decoder=part("models.MultiMAEDecoder", **decoder),
        mask=part("masking.DirichletBudget", tokens=tokens),
        tasks=tasks,
        terms={name: _term(name, task) for name, task in tasks.items()},
    )


def _term(name: str, task: ConfigDict) -> ConfigDict:
    paths = dict(
        prediction=f"decoder.{name}.prediction",
        target=f"targets.{name}",
        mask=f"masks.{task.input_name}",
        valid=f"valid.{task.input_name}",
    )
    if task.target.kind == "targets.Categories":
        return part("objectives.CrossEntropyPerExample", **paths)
    error = "l1" if name == "depth" else "l2"
    return part("objectives.RegressionPerExample", error=error, **paths)
