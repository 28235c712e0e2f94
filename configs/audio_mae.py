"""Audio-MAE: Masked Autoencoders that Listen
(Huang, Xu, Li, Baevski, Auli, Galuba, Metze, Feichtenhofer; NeurIPS 2022, arXiv 2207.06405).

    python -m maskjax.train --config=configs/audio_mae.py --workdir=runs/audio_mae \
        --config.data.source.path=DATA/audioset
    python -m maskjax.train --config=configs/audio_mae.py:digits --workdir=runs/digits \
        --config.data.source.data_dir=DATA/tfds

Arguments: `local` (default): ViT-B/16 on log-mel spectrograms of ten seconds, unstructured masks of
80 %, sixteen decoder blocks with local attention, on a folder with the WAV files of AudioSet at
16 kHz under `train/`. `global`: eight blocks with attention over everything. `structured`: masks of
whole times and frequencies. Published: 47.3 mAP on AudioSet-2M after fine-tuning, 37.0 on AS-20K.
`digits`: 2,700 spoken digits (TFDS `free_spoken_digits`), minutes on two CPU cores. `tiny`:
seconds, on digits played as tones.
"""

from maskjax.config import ConfigDict, default_config, part
from maskjax.models import vit_variant


def get_config(arg: str = "local") -> ConfigDict:
    """Returns the configuration of a variant."""
    if arg == "digits":
        return _digits()
    if arg == "tiny":
        return _tiny()
    c = _common()
    c.name = f"audio_mae_{arg}"
    c.data.source = part("data.AudioFolder", path="audioset")
    c.data.inputs = dict(audio=part("data.LogMel", roll=True, gain=True))
    c.system.encoder = part("models.ViT", **vit_variant("B/16"))
    decoders = {"local": "models.LocalDecoder", "global": "models.MAEDecoder"}
    c.system.decoder = part(decoders["global" if arg == "global" else "local"])
    c.system.mask = part("masking.Uniform", ratio=0.8)
    if arg == "structured":
        c.system.mask = part("masking.TimeFrequency", time=0.6, frequency=0.5)

    c.train.duration = "32 epochs"
    c.train.batch_size = 512
    c.optimizer.weight_decay = 1e-4
    c.schedule.base_lr = 2e-4
    c.schedule.warmup = "3 epochs"
    c.checkpoint.every = "1 epochs"
    c.checkpoint.keep_every = "4 epochs"
    c.log.pictures_every = "4 epochs"
    return c


def _digits() -> ConfigDict:
    """Spoken digits at 8 kHz: 64 frames of 32 bands, in patches of four frames by eight bands."""
    c = _common()
    c.name = "audio_mae_digits"
    c.data.source = part("data.TFDS", name="free_spoken_digits", fields=dict(audio="audio"))
    c.data.test_split = "test"
    c.data.inputs = dict(
        audio=part("data.LogMel", samples=5240, rate=8000, mels=32, frames=None, mean=-9.4, std=5.7)
    )
    c.system.encoder = part("models.ViT", patch_size=(4, 8), width=96, depth=4, heads=4, scan=True)
    c.system.decoder = part("models.LocalDecoder", width=64, depth=2, heads=4)
    c.system.mask = part("masking.Uniform", ratio=0.8)
    # Much of a short recording is silence, whose normalised values would be noise alone.
    c.system.targets = dict(pixels=part("targets.Pixels"))
    c.train.duration = "20 epochs"
    c.train.batch_size = 128
    c.schedule = part("training.WarmupCosine", base_lr=2e-3, reference_batch=0, warmup="8 percent")
    c.checkpoint.every = "10 epochs"
    c.log.every = "5 epochs"
    return c


def _tiny() -> ConfigDict:
    """Digits as tones, for a run of seconds on any machine."""
    c = _common()
    c.name = "audio_mae_tiny"
    c.data.source = part("data.DigitTones")
    c.data.test_split = "test"
    c.data.inputs = dict(
        audio=part("data.LogMel", samples=2048, rate=8000, mels=16, frames=None, mean=-4.4, std=6.8)
    )
    c.system.encoder = part("models.ViT", patch_size=(4, 4), width=16, depth=1, heads=2)
    c.system.decoder = part(
        "models.LocalDecoder", width=16, depth=2, heads=2, window=(2, 2), shift=(1, 0)
    )
    c.system.mask = part("masking.TimeFrequency", time=0.5, frequency=0.5)
    c.train.duration = "2 epochs"
    c.train.batch_size = 64
    c.schedule.warmup = "5 percent"
    c.log.every = "5 steps"
    return c


def _common() -> ConfigDict:
    """MAE on an input called `audio`."""
    c = default_config()
    c.system.input_name = "audio"
    c.system.terms.reconstruction.mask = "masks.audio"
    c.system.terms.reconstruction.prediction = "decoder.prediction"  # which both decoders have
    return c
