"""Sources of images, the pipeline that reads them, and augmentation.

A source (`Digits`, `ImageFolder`, `TFDS`, `Arrays`) is opened at a split and gives records by
number; `train_batches` and `eval_batches` turn records into batches of uint8 images; `Augment`
crops and flips them, on the device by default; `ImageSpec` scales them to what a model sees.
"""

from maskjax.data.arrays import Arrays
from maskjax.data.augment import Augment
from maskjax.data.corrupt import CorruptRecords
from maskjax.data.digits import Digits
from maskjax.data.folder import ImageFolder
from maskjax.data.pipeline import eval_batches, train_batches
from maskjax.data.spec import ImageSpec
from maskjax.data.stats import channel_statistics
from maskjax.data.tfds_source import TFDS

__all__ = [
    "TFDS",
    "Arrays",
    "Augment",
    "CorruptRecords",
    "Digits",
    "ImageFolder",
    "ImageSpec",
    "channel_statistics",
    "eval_batches",
    "train_batches",
]
