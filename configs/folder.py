"""MAE on a folder of your own images (class subfolders or flat; JPEG, PNG or WebP).

    python -m maskjax.train --config=configs/folder.py:PATH --workdir=runs/mine

ViT-S/16 at 224 x 224 pixels, 400 epochs at batch 256: a start for ten thousand images and more, on
one GPU. With fewer or smaller images reduce the network and the patch, e.g.
`--config.data.inputs.image.size='(64, 64)' --config.system.encoder.patch_size='(8, 8)'`. If PATH
has the subfolders `train` and `test`, add `--config.data.train_split=train` and
`--config.data.test_split=test`: with class subfolders below them, features are probed at the end.
`python -m maskjax.statistics` with the same `--config` prints mean and std to put here. No
published figure belongs to this file.
"""

from maskjax.config import ConfigDict, default_config, part
from maskjax.models import vit_variant


def get_config(path: str = "") -> ConfigDict:
    """Returns the configuration for the images below `path`."""
    c = default_config()
    c.name = "mae_folder"
    c.data.source = part("data.ImageFolder", path=path)
    c.data.train_split = "all"
    c.data.inputs.image.augment = part("data.Augment", place="host", crop="resized", flip=True)
    c.system.encoder = part("models.ViT", **vit_variant("S/16"))

    c.train.duration = "400 epochs"
    c.train.batch_size = 256
    c.checkpoint.every = "10 epochs"
    c.log.pictures_every = "50 epochs"
    return c
