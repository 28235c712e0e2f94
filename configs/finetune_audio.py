"""Fine-tuning of the encoder of Audio-MAE (Huang et al., NeurIPS 2022, arXiv 2207.06405).

    python -m maskjax.train --config=configs/finetune_audio.py:digits --workdir=runs/finetuned \
        --config.system.run=runs/digits --config.data.source.data_dir=DATA/tfds

`system.run` is the directory of the pretraining, by `configs/audio_mae.py`; without it the same
recipe trains from scratch. Waveforms are mixed with each other, before the spectrogram; labels are
one class per recording (AudioSet has several, which nothing here judges).

Arguments: `digits` (default): 2,700 spoken digits, minutes on two CPU cores. `tiny`: seconds, on
digits played as tones. Both are adapted to small data, and are nobody's published choice.
"""

from typing import Any

from maskjax.config import ConfigDict, default_config, part


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
