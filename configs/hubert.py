"""HuBERT: Self-Supervised Speech Representation Learning by Masked Prediction of Hidden Units
(Hsu, Bolte, Tsai, Lakhotia, Salakhutdinov, Mohamed; TASLP 2021, arXiv 2106.07447).

    python -m maskjax.codes --config=configs/hubert.py
    python -m maskjax.train --config=configs/hubert.py --workdir=runs/hubert_first
    python -m maskjax.codes --config=configs/hubert.py:second
    python -m maskjax.train --config=configs/hubert.py:second --workdir=runs/hubert_second

    python -m maskjax.codes --config=configs/hubert.py:digits \
        --config.data.source.data_dir=DATA/tfds
    python -m maskjax.train --config=configs/hubert.py:digits --workdir=runs/digits \
        --config.data.source.data_dir=DATA/tfds

Arguments: `first` (default) and `second`: the Base model on the 960 hours of LibriSpeech (TFDS
`librispeech`, prepared as ArrayRecord), whose codes are first 100 clusters of cepstra, then 500
clusters of the sixth layer of the first run. Published word error rates on test-clean / test-other
after fine-tuning on 10 minutes of labels, with a language model: 9.7 / 15.3 %. To count visible
frames as well, add a second `MaskedCrossEntropy` with `mask=None`.
`digits`: log-mel frames of 2,700 spoken digits (TFDS `free_spoken_digits`), minutes on two cores.
`tiny`: seconds, with random codes, which need not be fitted, on digits played as tones.
"""

from maskjax.config import ConfigDict, default_config, part

RATE = 16_000
CROP = 249_600  # samples: the published limit of 250,000 in whole tokens of 320


def get_config(arg: str = "first") -> ConfigDict:
    """Returns the configuration of a variant."""
    variants = dict(first=_first, second=_second, digits=_digits, tiny=_tiny)
    return variants[arg]()


def _first() -> ConfigDict:
    """The Base model, codes of cepstra, 250,000 steps."""
    c = _common()
    c.name = "hubert_first"
    c.data.source = part("data.TFDS", name="librispeech", fields=dict(audio="speech"))
    c.data.train_split = "train_clean100+train_clean360+train_other500"
    c.data.inputs = dict(audio=part("data.Waveform", samples=CROP, rate=RATE))
    c.system.encoder = _base_encoder()
    c.system.decoder = part("models.CodeHead")
    c.system.mask = part("masking.Spans", probability=0.8, length=10)
    c.system.targets = dict(codes=part("targets.KMeansCodes", path="codes/mfcc100.npz"))
    c.system.terms.features = part("objectives.MeanSquare", source="encoder.features", weight=10.0)

    c.train.duration = "250000 steps"
    c.train.batch_size = 176  # 44.8 million samples a step, as 32 devices with 1.4 million each
    c.optimizer = part("training.AdamW", b2=0.98, epsilon=1e-6, weight_decay=0.01, clip_norm=10.0)
    c.schedule = part("training.WarmupLinear", base_lr=5e-4, reference_batch=0, warmup="8 percent")
    c.checkpoint.every = "5000 steps"
    c.checkpoint.keep_every = "50000 steps"
    return c


def _second() -> ConfigDict:
    """The same anew for 400,000 steps, codes of the sixth layer of `runs/hubert_first`."""
    c = _first()
    c.name = "hubert_second"
    c.train.duration = "400000 steps"
    c.system.teachers = dict(
        before=part("systems.FrozenTeacher", network=_base_encoder(), run="runs/hubert_first")
    )
    c.system.targets = dict(
        codes=part(
            "targets.KMeansCodes",
            path="codes/layer6_500.npz",
            clusters=500,
            features="teachers.before.blocks.5",
        )
    )
    return c


def _digits() -> ConfigDict:
    """Spoken digits at 8 kHz as 36 tokens of two log-mel frames, 50 codes of cepstra."""
    c = _common()
    c.name = "hubert_digits"
    c.data.source = part("data.TFDS", name="free_spoken_digits", fields=dict(audio="audio"))
    c.data.test_split = "test"
    c.data.inputs = dict(
        audio=part(
            "data.LogMel",
            samples=5880,
            rate=8000,
            mels=32,
            frames=None,
            window="povey",
            mean=-9.4,
            std=5.7,
            axes=1,
        )
    )
    c.system.encoder = part(
        "models.SpeechEncoder",
        width=64,
        depth=3,
        heads=4,
        norm="pre",
        position_kernel=16,
        position_groups=8,
        scan=True,
    )
    c.system.decoder = part("models.CodeHead", width=64)
    c.system.mask = part("masking.Spans", probability=0.8, length=4)
    c.system.targets = dict(
        codes=part("targets.KMeansCodes", path="codes/digits50.npz", clusters=50)
    )
    c.train.duration = "20 epochs"
    c.train.batch_size = 128
    c.optimizer = part("training.AdamW", b2=0.98, epsilon=1e-6, weight_decay=0.01)
    c.schedule = part("training.WarmupLinear", base_lr=2e-3, reference_batch=0, warmup="8 percent")
    c.checkpoint.every = "10 epochs"
    c.log.every = "5 epochs"
    return c


def _tiny() -> ConfigDict:
    """Digits as tones, random codes, for a run of seconds on any machine."""
    c = _common()
    c.name = "hubert_tiny"
    c.data.source = part("data.DigitTones")
    c.data.test_split = "test"
    c.data.inputs = dict(
        audio=part(
            "data.LogMel",
            samples=2048,
            rate=8000,
            mels=16,
            frames=None,
            mean=-4.4,
            std=6.8,
            axes=1,
        )
    )
    c.system.encoder = part(
        "models.SpeechEncoder",
        width=16,
        depth=1,
        heads=2,
        position_kernel=4,
        position_groups=4,
    )
    c.system.decoder = part("models.CodeHead", width=16)
    c.system.mask = part("masking.Spans", probability=0.6, length=3)
    c.system.targets = dict(codes=part("targets.RandomCodes", clusters=16, width=16))
    c.train.duration = "2 epochs"
    c.train.batch_size = 64
    c.schedule.warmup = "5 percent"
    c.log.every = "5 steps"
    return c


def _common() -> ConfigDict:
    """Masked prediction of codes, on an input called `audio`."""
    c = default_config()
    c.system.input_name = "audio"
    c.system.terms = dict(
        codes=part(
            "objectives.MaskedCrossEntropy",
            logits="decoder.prediction",
            target="targets.codes",
            mask="masks.audio",
        )
    )
    return c


def _base_encoder() -> ConfigDict:
    """Twelve post-norm blocks of width 768 over the convolutions of wav2vec 2.0."""
    return part(
        "models.SpeechEncoder",
        patch_size=(320,),
        front="waveform",
        dropout=0.1,
        layer_drop=0.05,
    )
