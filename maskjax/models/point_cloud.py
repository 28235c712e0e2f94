"""A point encoder as classifiers call encoders: with the points themselves, and a class token."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.masking import Mask
from maskjax.models.layers import truncated_normal
from maskjax.tokens import TokenGrid
from maskjax.tokens.points import group_points


class PointCloudEncoder(nn.Module):
    """Groups the points of a cloud and encodes the groups, called as `models.ViT`.

    Its parameters are those of the inner encoder, beside the class token and its position, which
    Point-MAE (Pang et al., 2022) adds when it fine-tunes: a pretraining has none to give.

    Attributes:
      encoder: a `models.PointEncoder`, as it was pretrained.
      groups: G, groups of a cloud.
      group_size: S, points of a group.
      skip_ball: see `tokens.points.farthest_points`.
    """

    encoder: nn.Module
    groups: int = 64
    group_size: int = 32
    skip_ball: float | None = None

    patch_size = (1,)  # every point is a value of its own
    fresh = ("cls", "cls_position")  # parameters that no pretraining has

    def setup(self) -> None:
        """Puts the parameters of the inner encoder where a pretraining has them."""
        nn.share_scope(self, self.encoder)

    @nn.compact
    def __call__(
        self,
        points: jax.Array,
        grid: TokenGrid,
        mask: Mask | None = None,
        trained: TokenGrid | None = None,
    ) -> dict[str, Any]:
        """Encodes clouds.

        Args:
          points: float [B, P, 3].
          grid: of the points; not needed, as is `trained`.
          mask: which groups to see; None: all.
          trained: see `grid`.

        Returns:
          What the inner encoder returns, with a class token.
        """
        del grid, trained
        encoder: Any = self.encoder
        first = [self.param(name, truncated_normal(), (encoder.width,)) for name in self.fresh]
        groups = group_points(points, self.groups, self.group_size, self.skip_ball)
        return encoder(groups.neighbours, groups.centres, mask, first=jnp.stack(first))
