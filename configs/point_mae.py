"""Point-MAE: Masked Autoencoders for Point Cloud Self-supervised Learning (Pang et al., ECCV 2022,
arXiv 2203.06604).

    python -m maskjax.train --config=configs/point_mae.py --workdir=gs://bucket/point_mae \
        --config.data.source.path=DATA/shapenet55 --config.eval.source.path=DATA/modelnet40
    python -m maskjax.train --config=configs/point_mae.py:radhar --workdir=runs/radhar \
        --config.data.source.path=DATA/points/radhar.npz

Arguments: `paper` (default): ShapeNet-55, clouds of 8,192 points as .npy files in folders `train`
and `test`, 300 epochs at batch 128; probed on ModelNet40 (OFF files as published). Published after
fine-tuning: ModelNet40 93.8 % (1,024 points), ScanObjectNN 90.0 / 88.3 / 85.2 % (OBJ-BG, OBJ-ONLY,
PB-T50-RS). `block`: the paper's block masking instead of random. `radhar`: 786 clouds of a
millimetre-wave radar watching five activities, minutes on two CPU cores. `tiny`: digits as clouds,
seconds, needs no download.
"""

from maskjax.config import ConfigDict, default_config, part

# The reference rounds 0.6 * 64 down to 38 masked groups; `Uniform` rounds down the visible ones.
_MASKED = 38 / 64


def get_config(arg: str = "paper") -> ConfigDict:
    """Returns the configuration of a variant."""
    c = default_config()
    c.name = f"point_mae_{arg}"
    c.data.inputs = ConfigDict(dict(points=part("data.Points")))
    c.system = part(
        "systems.PointAutoencoder",
        encoder=part("models.PointEncoder"),
        decoder=part("models.PointDecoder"),
        mask=part("masking.Uniform", ratio=_MASKED),
        terms=dict(chamfer=part("objectives.Chamfer")),
    )
    # As the paper: no decay of biases, norms and tokens, no scaling of the rate with the batch.
    c.optimizer.b2 = 0.999
    c.optimizer.no_decay = (r"(^|/)bias$", r"(^|/)scale$", r"token")
    c.schedule = part(
        "training.WarmupCosine",
        base_lr=1e-3,
        reference_batch=0,
        warmup="10 epochs",
        warmup_lr=1e-6,
        final_lr=1e-6,
    )
    c.train.duration = "300 epochs"
    c.train.batch_size = 128
    c.eval.evaluators = ConfigDict(
        dict(
            knn=part("evaluation.KNN"),
            svm=part("evaluation.LinearSVM", feature="encoder.pooled"),
            spread=part("evaluation.Spread"),
        )
    )
    if arg == "radhar":
        return _radhar(c)
    if arg == "tiny":
        return _tiny(c)
    if arg == "block":
        c.system.mask = part("masking.Ball", ratio=0.6)
    c.data.source = part("data.MeshFolder", path="shapenet55")
    c.data.test_split = "test"
    c.eval.source = part("data.MeshFolder", path="modelnet40")
    c.checkpoint.every = "5 epochs"
    c.log.pictures_every = "50 epochs"
    return c


def _radhar(c: ConfigDict) -> ConfigDict:
    """Width 64, 3 blocks, 24 groups of 16 out of 256 points."""
    c.data.source = part("data.Arrays", path="radhar.npz", fields=dict(points="xyz"))
    c.data.test_split = "test"
    c.data.inputs.points.count = 256
    c.data.inputs.points.augment.axis = "z"  # which is upwards here
    c.system.groups, c.system.group_size = 24, 16
    c.system.mask.ratio = 14 / 24
    sizes = dict(width=64, heads=2, drop_path=0.0)
    c.system.encoder = part("models.PointEncoder", depth=3, embed_hidden=(32, 64, 64), **sizes)
    c.system.decoder = part("models.PointDecoder", depth=1, **sizes)
    c.train.duration = "40 epochs"
    c.train.batch_size = 64
    c.schedule.warmup = "5 percent"
    c.checkpoint.every = "10 epochs"
    c.log.every = "20 steps"
    return c


def _tiny(c: ConfigDict) -> ConfigDict:
    """Digits as reliefs of 128 points, for a run of seconds on any machine."""
    c.data.source = part("data.DigitPoints", count=128)
    c.data.test_split = "test"
    c.data.inputs.points.count = 64
    c.system.groups, c.system.group_size = 12, 8
    c.system.mask.ratio = 7 / 12
    sizes = dict(width=16, depth=1, heads=2, drop_path=0.0)
    c.system.encoder = part("models.PointEncoder", embed_hidden=(16, 16, 32), **sizes)
    c.system.decoder = part("models.PointDecoder", **sizes)
    c.train.duration = "2 epochs"
    c.train.batch_size = 64
    c.schedule.warmup = "5 percent"
    c.log.every = "5 steps"
    return c
