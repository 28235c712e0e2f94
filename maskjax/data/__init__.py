"""Sources of records, the inputs that a model sees of them, and the pipeline between the two.

A source (`Digits`, `ImageFolder`, `TFDS`, `Arrays`, ...) is opened at a split and gives records by
number. An input (`Image`, ...) says how one value of a record becomes an array of a batch, how it
is augmented and how it is scaled to what a model sees. `train_batches` and `eval_batches` turn
records into batches.
"""

from maskjax.data.arrays import Arrays
from maskjax.data.audio import LogMel, Recording, Waveform
from maskjax.data.audio_folder import AudioFolder
from maskjax.data.augment import Augment
from maskjax.data.bands import Bands, set_bands
from maskjax.data.captioned import Captioned
from maskjax.data.class_set import ClassSet
from maskjax.data.corrupt import CorruptRecords
from maskjax.data.digit_tones import DigitTones
from maskjax.data.digits import Digits
from maskjax.data.erase import Erase
from maskjax.data.folder import ImageFolder, write_folder
from maskjax.data.given import Given, find_images
from maskjax.data.image import Image
from maskjax.data.inputs import Input, augment_batch, batch_shapes
from maskjax.data.maps import ClassMap, Depth
from maskjax.data.mesh_folder import MeshFolder
from maskjax.data.mixing import Mixing
from maskjax.data.moving import MovingImages
from maskjax.data.multi_scale import MultiScaleCrop
from maskjax.data.paired import Incomplete, Paired
from maskjax.data.pipeline import eval_batches, train_batches
from maskjax.data.points import DigitPoints, PointAugment, Points, unit_ball
from maskjax.data.rand_augment import RandAugment
from maskjax.data.records import Records
from maskjax.data.scalar import Scalar
from maskjax.data.stats import channel_statistics
from maskjax.data.text import Text
from maskjax.data.text_files import TextFiles
from maskjax.data.tfds_source import TFDS
from maskjax.data.video import Video
from maskjax.data.video_folder import VideoFolder
from maskjax.data.views import view_count

__all__ = [
    "TFDS",
    "Arrays",
    "AudioFolder",
    "Augment",
    "Bands",
    "Captioned",
    "ClassMap",
    "ClassSet",
    "CorruptRecords",
    "Depth",
    "DigitPoints",
    "DigitTones",
    "Digits",
    "Erase",
    "Given",
    "Image",
    "ImageFolder",
    "Incomplete",
    "Input",
    "LogMel",
    "MeshFolder",
    "Mixing",
    "MovingImages",
    "MultiScaleCrop",
    "Paired",
    "PointAugment",
    "Points",
    "RandAugment",
    "Recording",
    "Records",
    "Scalar",
    "Text",
    "TextFiles",
    "Video",
    "VideoFolder",
    "Waveform",
    "augment_batch",
    "batch_shapes",
    "channel_statistics",
    "eval_batches",
    "find_images",
    "set_bands",
    "train_batches",
    "unit_ball",
    "view_count",
    "write_folder",
]
