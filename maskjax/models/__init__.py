"""Networks: Flax Linen modules that take token indices and return every intermediate."""

from maskjax.models.adaln import AdaLNTransformer
from maskjax.models.attention import Attention
from maskjax.models.attentive_head import AttentiveHead
from maskjax.models.audio_decoder import LocalDecoder
from maskjax.models.batch_norm import BatchNorm
from maskjax.models.bert import BERT
from maskjax.models.class_head import ClassHead, MLPHead
from maskjax.models.convnext import ConvNeXt
from maskjax.models.embedders import ClassEmbedding, PatchEmbedding, WordEmbedding
from maskjax.models.heads import Projection
from maskjax.models.hpm_decoder import HPMDecoder
from maskjax.models.linear_head import LinearHead
from maskjax.models.m3ae import M3AEDecoder
from maskjax.models.mae_decoder import MAEDecoder
from maskjax.models.maskgit import CodeTransformer
from maskjax.models.multimae import MultiMAEDecoder
from maskjax.models.multimodal import MultimodalEncoder
from maskjax.models.point_cloud import PointCloudEncoder
from maskjax.models.point_mae import PointDecoder, PointEncoder
from maskjax.models.post_norm import PostNormBlock
from maskjax.models.predictor import Predictor
from maskjax.models.resnet import ResNet
from maskjax.models.spark import SparKDecoder, SparseEncoder
from maskjax.models.speech import SpeechEncoder
from maskjax.models.speech_head import CodeHead
from maskjax.models.transformer import Block, CrossBlock, Transformer
from maskjax.models.umd import UMDDecoder, UMDEncoder
from maskjax.models.variants import vit_variant
from maskjax.models.video_decoder import VideoDecoder
from maskjax.models.vit import ViT, fixed_positions
from maskjax.models.vq import Codebook, VQDecoder, VQEncoder

__all__ = [
    "BERT",
    "AdaLNTransformer",
    "Attention",
    "AttentiveHead",
    "BatchNorm",
    "Block",
    "ClassEmbedding",
    "ClassHead",
    "CodeHead",
    "CodeTransformer",
    "Codebook",
    "ConvNeXt",
    "CrossBlock",
    "HPMDecoder",
    "LinearHead",
    "LocalDecoder",
    "M3AEDecoder",
    "MAEDecoder",
    "MLPHead",
    "MultiMAEDecoder",
    "MultimodalEncoder",
    "PatchEmbedding",
    "PointCloudEncoder",
    "PointDecoder",
    "PointEncoder",
    "PostNormBlock",
    "Predictor",
    "Projection",
    "ResNet",
    "SparKDecoder",
    "SparseEncoder",
    "SpeechEncoder",
    "Transformer",
    "UMDDecoder",
    "UMDEncoder",
    "VQDecoder",
    "VQEncoder",
    "ViT",
    "VideoDecoder",
    "WordEmbedding",
    "fixed_positions",
    "vit_variant",
]
