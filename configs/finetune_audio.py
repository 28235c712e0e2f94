"""Fine-tuning of the encoder of Audio-MAE (Huang et al., NeurIPS 2022, arXiv 2207.06405).

    python -m maskjax.train --config=configs/finetune_audio.py:as20k --workdir=runs/as20k \
        --config.system.run=runs/audio_mae --config.data.source.sources.audio.path=DATA/audioset \
        --config.data.source.sources.labels.path="DATA/audioset/{split}.tsv"
    python -m maskjax.train --config=configs/finetune_audio.py:digits --workdir=runs/finetuned \
        --config.system.run=runs/digits --config.data.source.data_dir=DATA/tfds

`system.run` is the directory of the pretraining, by `configs/audio_mae.py`; without it the same
recipe trains from scratch. Waveforms are mixed with each other, before the spectrogram.

Arguments: `as20k`, `as2m`: the published scripts for AudioSet, whose recordings have several of 527
classes: WAV files of 16 kHz under `train/` and `eval/`, and tables `train.tsv` and `eval.tsv` with
the columns `file` and `labels`, the numbers of the classes with commas between. Published: 37.0 mAP
(20k), 47.3 mAP (2M). `digits` (default): 2,700 spoken digits of one class each, minutes on two CPU
cores. `tiny`: seconds, on digits played as tones. The last two are adapted to small data, and are
nobody's published choice.
"""

from typing import Any

from maskjax.config import ConfigDict, default_config, part
from maskjax.models import vit_variant

CLASSES = 527  # of AudioSet


def get_config(arg: str = "digits") -> ConfigDict:
    """Returns the configuration of a variant."""
    c = default_config()
    c.name = f"finetune_audio_{arg}"
    c.system = part(
        "systems.Classifier",
        input_name="audio",
        encoder=part("models.ViT"),
        head=part("models.ClassHead", classes=10),
        mixing=part("data.Mixing", mixup=0.5, cutmix=0.0, probability=0.5),
        terms=dict(labels=part("objectives.LabelCrossEntropy")),
    )
    if arg in ("as20k", "as2m"):
        _audioset(c, arg)
        return c
    c.optimizer = part("training.LayerwiseAdamW", weight_decay=1e-4, layer_decay=0.75)
    c.schedule = part("training.WarmupCosine", base_lr=2e-3, reference_batch=0, warmup="10 percent")
    c.data.test_split = "test"
    c.train.batch_size = 64
    c.eval.evaluators = dict(accuracy=part("evaluation.Accuracy"))
    sound: dict[str, Any] = dict(rate=8000, frames=None, gain=True)
    if arg == "tiny":
        c.data.source = part("data.DigitTones")
        sound |= dict(samples=2048, mels=16, mean=-4.4, std=6.8)
        c.system.encoder = part("models.ViT", patch_size=(4, 4), width=16, depth=1, heads=2)
        c.train.duration = "4 epochs"
        c.schedule.base_lr = 1e-2
        c.log.every = "5 steps"
    else:
        c.data.source = part("data.TFDS", name="free_spoken_digits", fields=dict(audio="audio"))
        sound |= dict(samples=5240, mels=32, mean=-9.4, std=5.7)
        network = dict(patch_size=(4, 8), width=96, depth=4, heads=4, scan=True)
        c.system.encoder = part("models.ViT", drop_path=0.1, **network)
        c.train.duration = "20 epochs"
        c.eval.every = "5 epochs"
    c.data.inputs = ConfigDict(dict(audio=part("data.LogMel", **sound)))
    return c


def _audioset(c: ConfigDict, arg: str) -> None:
    """ViT-B/16 on ten seconds; a fifth of the times and of the frequencies is not seen.

    Besides, up to 192 frames and 48 bands of the spectrogram are zero, as Audio-MAE's code has it.
    """
    c.data.source = _recordings_and_table()
    c.data.test_split = "eval"
    c.data.inputs = ConfigDict(
        dict(
            audio=part("data.LogMel", roll=True, gain=True),
            labels=part("data.ClassSet", classes=CLASSES),
        )
    )
    c.system.encoder = part("models.ViT", drop_path=0.1, **vit_variant("B/16"))
    c.system.head.classes = CLASSES
    c.system.mask = part("masking.TimeFrequency", time=0.2, frequency=0.2)
    c.system.bands = part("data.Bands", frames=192, frequencies=48)
    c.system.mixing = part("data.Mixing", mixup=10.0, cutmix=0.0, probability=0.5)
    c.system.terms = ConfigDict(dict(labels=part("objectives.BinaryCrossEntropy")))
    c.optimizer = part("training.LayerwiseAdamW", weight_decay=5e-4, layer_decay=0.75)
    c.eval.evaluators = ConfigDict(dict(precision=part("evaluation.MeanAveragePrecision")))
    if arg == "as20k":
        c.train.batch_size = 32
        c.train.duration = "60 epochs"
        warmup, base_lr = "4 epochs", 1e-3
    else:  # 100 times 200,000 recordings
        c.train.batch_size = 256
        c.train.duration = "2e7 examples"
        warmup, base_lr = "2e6 examples", 2e-4
    c.schedule = part("training.WarmupCosine", base_lr=base_lr, warmup=warmup, final_lr=1e-6)
    c.eval.every = c.checkpoint.every = "5 epochs" if arg == "as20k" else "2e6 examples"


def _recordings_and_table() -> ConfigDict:
    """WAV files, and for each of them a row of a table."""
    return part(
        "data.Paired",
        sources=dict(
            audio=part("data.AudioFolder", path="audioset"),
            labels=part(
                "data.TextFiles",
                path="audioset/{split}.tsv",
                columns=dict(name="file", labels="labels"),
            ),
        ),
        complete=True,
    )
