"""Systems: a published method, put together from parts."""

from maskjax.config import ConfigDict, build
from maskjax.systems.bootstrapped import Bootstrapped
from maskjax.systems.classifier import Classifier
from maskjax.systems.code_teacher import CodeTeacher
from maskjax.systems.generation import DDIM, ParallelDecoding
from maskjax.systems.joint_embedding import JointEmbedding
from maskjax.systems.masked_autoencoder import MaskedAutoencoder
from maskjax.systems.maskgit import MaskGIT
from maskjax.systems.multimodal import Multimodal, Task
from maskjax.systems.point_autoencoder import PointAutoencoder
from maskjax.systems.retro import RetroMAE
from maskjax.systems.system import System
from maskjax.systems.teacher import FrozenTeacher, Momentum
from maskjax.systems.tokenizers import QuantisedPixels, VQTokenizer
from maskjax.systems.umd import UMD
from maskjax.systems.vq_autoencoder import VQAutoencoder

__all__ = [
    "DDIM",
    "UMD",
    "Bootstrapped",
    "Classifier",
    "CodeTeacher",
    "FrozenTeacher",
    "JointEmbedding",
    "MaskGIT",
    "MaskedAutoencoder",
    "Momentum",
    "Multimodal",
    "ParallelDecoding",
    "PointAutoencoder",
    "QuantisedPixels",
    "RetroMAE",
    "System",
    "Task",
    "VQAutoencoder",
    "VQTokenizer",
    "build_system",
]


def build_system(config: ConfigDict) -> System:
    """Builds the system of a configuration for its inputs, and checks that the two fit.

    Raises:
      UserError: for example a size that the patch does not divide, or a mask that leaves nothing.
    """
    micro_batch = config.train.batch_size // max(config.train.accumulate, 1)
    inputs = build(config.data.inputs)
    system = build(config.system, inputs=inputs, batch_size=max(micro_batch, 1))
    system.check()
    return system
