"""M3AE: Multimodal Masked Autoencoders Learn Transferable Representations (Geng et al., 2022).

    python -m maskjax.train --config=configs/m3ae.py --workdir=gs://bucket/m3ae_b \
        --config.data.source.data_dir=DATA --config.data.inputs.text.tokenizer=bert_uncased.json
    python -m maskjax.train --config=configs/m3ae.py:flickr8k --workdir=runs/m3ae \
        --config.data.source.path=DATA/image_text/flickr8k_1000.npz

arXiv 2205.14204. One encoder and one light decoder for image patches and words, which are masked
and predicted alike; no contrast between images and texts, and either may be missing.

Arguments: `B/16` (default), `S/16`, `L/16`, `H/16`: the paper's recipe on Conceptual 12M, 100
epochs at batch 4,096. The data set has to be prepared in TFDS format (ArrayRecord) with features
`image` and `caption`; the paper's tokenizer is that of BERT (uncased, 30,522 pieces, no special
tokens), here a file of the library `tokenizers`; the default is bytes. No figure of the paper is
repeated here: its accuracies were not at hand. `flickr8k`: 800 photographs with five captions each,
minutes on two CPU cores. `tiny`: seconds, digits and their names, some of which are missing.

Differences from the published code: masks are drawn per example (`shared=True` on both samplers
gives one draw per batch); scales of norms are not decayed; VQ targets are left out.
"""

from typing import Any

from maskjax.config import ConfigDict, default_config, part
from maskjax.data_sections import DIGITS
from maskjax.models import vit_variant

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def get_config(arg: str = "B/16") -> ConfigDict:
    """Returns the configuration of a variant."""
    if arg == "flickr8k":
        return _flickr8k()
    if arg == "tiny":
        return _tiny()
    c = default_config()
    c.name = f"m3ae_{arg.replace('/', '').lower()}"
    size = vit_variant(arg)
    patch_size = size.pop("patch_size")
    _system(c, patch_size, size, dict(width=512, depth=8, heads=16), masked_words=0.75)
    deep = size["depth"] >= 24
    for network in (c.system.encoder, c.system.decoder):
        network.scan = deep
        network.remat = "hidden" if deep else "none"
    c.data.source = part("data.TFDS", name="cc12m", fields=dict(image="image", text="caption"))
    augment = part("data.Augment", crop="resized", scale=(0.2, 1.0), flip=True)
    c.data.inputs = dict(
        image=part(
            "data.Image",
            size=(256, 256),
            mean=(0.5762, 0.5503, 0.5213),
            std=(0.3207, 0.3169, 0.3307),
            decode_size=(288, 288),
            augment=augment,
            optional=True,
        ),
        text=_text(length=64),
    )
    c.train.duration = "100 epochs"
    c.schedule.warmup = "5 epochs"
    c.checkpoint.every = "5 epochs"
    c.log.pictures_every = "10 epochs"
    return c


def _flickr8k() -> ConfigDict:
    """800 photographs of 64 x 64 pixels with one of five captions, 200 more for retrieval."""
    c = default_config()
    c.name = "m3ae_flickr8k"
    network = dict(width=96, depth=3, heads=3, scan=True)
    _system(c, (8, 8), network, dict(width=48, depth=1, heads=3), masked_words=0.5)
    fields = dict(image="image_jpeg:jpeg", text="captions")
    c.data.source = part("data.Arrays", path="flickr8k_1000.npz", fields=fields)
    c.data.test_split = "test"
    augment = part("data.Augment", crop="resized", scale=(0.4, 1.0), flip=True)
    c.data.inputs = dict(
        image=part("data.Image", size=(64, 64), decode_size=(80, 80), augment=augment),
        text=_text(length=64),
    )
    c.eval.evaluators = dict(
        retrieval=part(
            "evaluation.Retrieval",
            query="alone.text.mean",
            key="alone.image.mean",
            query_input="text",
            key_input="image",
            fit="ridge",
        )
    )
    c.train.duration = "40 epochs"
    c.train.batch_size = 64
    c.schedule.base_lr = 4e-3
    c.schedule.warmup = "5 percent"
    c.checkpoint.every = "20 epochs"
    c.log.every = "60 steps"
    return c


def _tiny() -> ConfigDict:
    """Digits and their names in words."""
    c = default_config()
    c.name = "m3ae_tiny"
    network = dict(width=16, depth=1, heads=2)
    _system(c, (2, 2), network, network, masked_words=0.5)
    digits = part(
        "data.Captioned",
        source=part("data.Digits"),
        templates=("digit {}", "a {}", "{}"),
        names=_DIGITS,
    )
    c.data.source = part("data.Incomplete", source=digits, share=dict(image=0.1, text=0.2))
    c.data.test_split = "test"
    c.data.inputs = dict(
        image=part("data.Image", size=(8, 8), optional=True, **DIGITS),
        text=_text(length=12),
    )
    # Of the image alone: its text says what class it is.
    c.eval.evaluators = dict(
        knn=part("evaluation.KNN", feature="alone.image.mean"),
        retrieval=part("evaluation.Retrieval", query="alone.text.cls", key="alone.image.cls"),
    )
    c.eval.baselines = ("random",)
    c.train.duration = "2 epochs"
    c.train.batch_size = 64
    c.schedule.base_lr = 1e-2
    c.schedule.warmup = "5 percent"
    c.log.every = "5 steps"
    return c


def _text(length: int) -> ConfigDict:
    """Text without special tokens, as in the paper; some records may lack it."""
    return part("data.Text", length=length, cls_token=None, sep_token=None, optional=True)


def _system(
    c: ConfigDict,
    patch_size: tuple[int, int],
    encoder: dict[str, Any],
    decoder: dict[str, Any],
    masked_words: float,
) -> None:
    c.system = part(
        "systems.Multimodal",
        encoder=part(
            "models.MultimodalEncoder",
            embedders=dict(
                image=part("models.PatchEmbedding", patch_size=patch_size),
                text=part("models.WordEmbedding"),
            ),
            activation="gelu_tanh",
            **encoder,
        ),
        decoder=part("models.M3AEDecoder", **decoder),
        mask=part(
            "masking.Separate",
            samplers=dict(
                image=part("masking.Uniform", ratio=0.75),
                text=part("masking.Uniform", ratio=masked_words),
            ),
        ),
        tasks=dict(
            image=part("systems.Task", input_name="image", target=part("targets.Pixels")),
            text=part("systems.Task", input_name="text", target=part("targets.Categories")),
        ),
        terms=dict(
            image=part("objectives.RegressionPerExample", **_paths("image")),
            # Examples without text count as zero, as published.
            text=part(
                "objectives.CrossEntropyPerExample", **_paths("text"), empty="zero", weight=0.5
            ),
        ),
    )
    c.optimizer.no_decay = (r"(^|/)(bias|scale|globals|table|type_\w+|mask_token_\w+)$",)


def _paths(name: str) -> dict[str, str]:
    return dict(
        prediction=f"decoder.{name}.prediction",
        target=f"targets.{name}",
        mask=f"masks.{name}",
        valid=f"valid.{name}",
    )
