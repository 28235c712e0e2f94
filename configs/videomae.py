"""VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video Pre-Training
(Tong et al., NeurIPS 2022, arXiv 2203.12602), and VideoMAE V2: Scaling Video Masked Autoencoders
with Dual Masking (Wang et al., CVPR 2023, arXiv 2303.16727).

    python -m maskjax.train --config=configs/videomae.py --workdir=gs://bucket/videomae_b \
        --config.data.source.path=DATA/kinetics400
    python -m maskjax.train --config=configs/videomae.py:v2-g/14 --workdir=gs://bucket/videomae_g
    python -m maskjax.train --config=configs/videomae.py:cifar10 --workdir=runs/videomae \
        --config.data.source.source.data_dir=DATA/tfds

Cubes of two frames are tokens; the same 90 % of the places are hidden in every frame, so that
nothing leaks through time; a light decoder predicts the hidden cubes, each channel normalised. V2
also hides half of the cubes from the decoder, by running cells.

Arguments: `B/16` (default), `S/16`, `L/16`, `H/16`: VideoMAE on Kinetics-400, 800 epochs at batch
2,048. Published after fine-tuning (1,600 epochs): 81.5 % (B), 85.2 % (L), 86.6 % (H). `v2-g/14` or
`v2-B/16`, ...: V2, published for g 87.2 % (88.4 % after supervised training on K710). `cifar10` and
`v2-cifar10`: images of CIFAR-10 that move in one of eight directions, minutes on two CPU cores.
`tiny` and `v2-tiny`: seconds, to try things.

V2's recipe is that of g for `v2-g/14` and that of B for all others. It draws four clips of every
decoded video at a time; here each is an example of its own, so a step of 2,048 videos is a batch of
8,192, and 300 epochs are 1,200, with the same learning rate. The paper decodes only what is hidden
from the encoder; the code, and this, decode every shown cube and leave the others out of the loss.
"""

from maskjax.config import ConfigDict, default_config, part
from maskjax.data_sections import CIFAR10, DIGITS
from maskjax.models import vit_variant

# Width and heads of the decoder by size; V2 has its own for H and g.
_DECODERS = {"S": (192, 3), "B": (384, 6), "L": (512, 8), "H": (640, 8)}
_DECODERS_V2 = {**_DECODERS, "H": (512, 8), "g": (512, 8)}


def get_config(arg: str = "B/16") -> ConfigDict:
    """Returns the configuration of a variant."""
    dual = arg.startswith("v2")
    arg = arg.removeprefix("v2").removeprefix("-") or "g/14"
    if arg == "cifar10":
        return _cifar10(dual)
    if arg == "tiny":
        return _tiny(dual)
    c = default_config()
    c.name = f"videomae{'_v2' * dual}_{arg.replace('/', '').lower()}"
    size = vit_variant(arg)
    half = size["width"] // 2, max(1, size["width"] // 128)
    width, heads = (_DECODERS_V2 if dual else _DECODERS).get(arg.partition("/")[0], half)
    c.system = _system(
        size | dict(patch_size=(2, *size["patch_size"])), dict(width=width, heads=heads), 0.9, dual
    )
    deep = size["depth"] >= 24
    c.system.encoder.scan = deep
    c.system.encoder.remat = "hidden" if deep else "none"

    c.data.source = part("data.VideoFolder", path="data/kinetics400")
    c.data.test_split = "val"
    augment = part("data.MultiScaleCrop", place="host")
    c.data.inputs = ConfigDict(dict(video=part("data.Video", augment=augment)))
    c.optimizer = _optimizer(clip=0.02 if dual and arg == "g/14" else None)
    c.train.batch_size = 2048
    c.schedule.base_lr = 1.5e-4
    if dual:
        c.train.duration, c.train.batch_size = "1200 epochs", 8192
        c.schedule.base_lr, c.schedule.warmup = 6e-4, "120 epochs"
        c.schedule.reference_batch = 4 * 256
        if arg != "g/14":
            c.train.duration, c.train.batch_size = "800 epochs", 4096
            c.schedule.base_lr, c.schedule.warmup = 1e-3, "80 epochs"
    # The code scales the last learning rate with the batch, too.
    c.schedule.final_lr = 1e-5 * c.train.batch_size / c.schedule.reference_batch
    c.checkpoint.every = "5 epochs"
    c.checkpoint.keep_every = "100 epochs"
    c.log.pictures_every = "50 epochs"
    return c


def _system(encoder: dict, decoder: dict, ratio: float, dual: bool) -> ConfigDict:
    return part(
        "systems.MaskedAutoencoder",
        input_name="video",
        encoder=part("models.ViT", **encoder, class_token=False, positions="flat", bias="qv"),
        decoder=part("models.VideoDecoder", **decoder),
        mask=part("masking.Tube", ratio=ratio),
        decoder_mask=part("masking.RunningCell", ratio=0.5) if dual else None,
        targets=dict(cubes=part("targets.NormalisedChannels")),
        terms=dict(
            reconstruction=part(
                "objectives.MaskedRegression",
                prediction="decoder.prediction",
                target="targets.cubes",
                mask="masks.video",
                shown="masks.decoder" if dual else None,
            )
        ),
    )


def _optimizer(clip: float | None = None) -> ConfigDict:
    spared = (r"(^|/)bias$", r"(^|/)scale$", r"(^|/)mask_token$")
    return part("training.AdamW", clip_norm=clip, no_decay=spared)


def _cifar10(dual: bool) -> ConfigDict:
    """Clips of 8 frames of 16 x 16 pixels: an image of CIFAR-10 that moves, mirrored outside.

    Over a mirrored ground no single frame tells the direction; over black its place would.
    """
    c = default_config()
    c.name = f"videomae{'_v2' * dual}_cifar10"
    images, size = part("data.TFDS", name="cifar10"), (8, 16, 16)
    c.data.source = part("data.MovingImages", source=images, size=size, canvas="mirror")
    c.data.test_split = "test"
    video = part("data.Video", size=size, stride=1, **CIFAR10)
    c.data.inputs = ConfigDict(dict(video=video))
    encoder = dict(patch_size=(2, 4, 4), width=96, depth=4, heads=3)
    c.system = _system(encoder, dict(width=48, depth=2, heads=3), 0.75, dual)
    c.train.duration = "2 epochs"
    c.train.batch_size = 256
    c.optimizer = _optimizer()
    c.schedule.base_lr = 1e-3
    c.schedule.warmup = "5 percent"
    c.eval.max_train_examples = 5000
    return c


def _tiny(dual: bool) -> ConfigDict:
    """Digits that move, for a run of seconds on any machine."""
    c = default_config()
    c.name = f"videomae{'_v2' * dual}_tiny"
    images, size = part("data.Digits"), (4, 16, 16)
    c.data.source = part("data.MovingImages", source=images, size=size, canvas="mirror")
    c.data.test_split = "test"
    video = part("data.Video", size=size, stride=1, **DIGITS)
    c.data.inputs = ConfigDict(dict(video=video))
    encoder = dict(patch_size=(2, 4, 4), width=16, depth=2, heads=2)
    c.system = _system(encoder, dict(width=16, depth=1, heads=2), 0.75, dual)
    c.system.targets.cubes.channels = 1
    c.train.duration = "2 epochs"
    c.train.batch_size = 64
    c.optimizer = _optimizer()
    c.schedule.base_lr = 4e-3
    c.schedule.warmup = "5 percent"
    c.log.every = "5 steps"
    return c
