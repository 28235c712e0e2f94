"""Networks: Flax Linen modules that take token indices and return every intermediate."""

from maskjax.models.mae_decoder import MAEDecoder
from maskjax.models.transformer import Block, Transformer
from maskjax.models.variants import vit_variant
from maskjax.models.vit import ViT

__all__ = ["Block", "MAEDecoder", "Transformer", "ViT", "vit_variant"]
