"""Point-MAE: masked autoencoders of point clouds (Pang et al., ECCV 2022, arXiv 2203.06604).

It is a system of its own because its tokens are made of the data: groups of points around centres
that each cloud has elsewhere, where `MaskedAutoencoder` has a regular grid.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.masking import Sampler
from maskjax.systems.system import Batch, Masks, Rngs, System, Variables
from maskjax.tokens import TokenGrid, take_tokens
from maskjax.tokens.points import PointGroups, group_points


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointAutoencoder(System):
    """Groups the points of a cloud, encodes visible groups, predicts the points of hidden ones.

    Attributes:
      input_name: which of `inputs`, a `data.Points`.
      groups: G, groups of a cloud.
      group_size: S, points of a group.
      skip_ball: see `tokens.points.farthest_points`; the reference code has 1e-3, the paper none.
      encoder: a module called as `models.PointEncoder`.
      decoder: a module called as `models.PointDecoder`.
      mask: the sampler, `masking.Uniform` or `masking.Ball`.
    """

    input_name: str = "points"
    groups: int = 64
    group_size: int = 32
    skip_ball: float | None = None
    encoder: nn.Module
    decoder: nn.Module
    mask: Sampler

    @property
    def grid(self) -> TokenGrid:
        """The groups as tokens: a row of G, of S points and three coordinates each."""
        return TokenGrid((self.groups,), (self.group_size,), 3)

    def check(self) -> None:
        """Raises a UserError if points, groups, mask and networks do not fit."""
        if self.groups < 1 or self.group_size < 1:
            raise UserError(
                f"system.groups is {self.groups} and system.group_size is {self.group_size}: both "
                "have to be positive."
            )
        count = self.input(self.input_name).size[0]
        self._check_count(count, f"data.inputs.{self.input_name}.count is {count}")
        self.mask.check(self.grid)
        super().check()

    def init(self, rng: jax.Array) -> Variables:
        """Returns {"params": {"encoder", "decoder"}, "stats": {"encoder"}}."""
        encoder_rng, decoder_rng, mask_rng = jax.random.split(rng, 3)
        neighbours = jnp.zeros((1, self.groups, self.group_size, 3))
        centres = jnp.zeros((1, self.groups, 3))
        mask = self._draw(mask_rng, centres, 0.0)
        encoded, encoder = self.encoder.init_with_output(encoder_rng, neighbours, centres, mask)
        decoder = self.decoder.init(decoder_rng, encoded["tokens"], centres, mask, self.group_size)
        return {
            "params": {"encoder": encoder["params"], "decoder": decoder["params"]},
            "stats": {"encoder": encoder["batch_stats"]},
        }

    def sample_masks(
        self, rng: jax.Array, variables: Variables, batch: Batch, progress: jax.Array | float = 0.0
    ) -> Masks:
        """Draws {input name: Mask} over the groups."""
        del variables
        if not getattr(self.mask, "needs_places", False):
            centres = jnp.zeros((batch[self.input_name].shape[0], self.groups, 3))
        else:
            centres = self._group(batch).centres  # XLA merges it with that of `forward`
        return {self.input_name: self._draw(rng, centres, progress)}

    def forward(
        self, variables: Variables, batch: Batch, masks: Masks, rngs: Rngs | None = None
    ) -> dict[str, Any]:
        """Returns, with `rngs` as in training, without them as in evaluation:

        `groups` (a `PointGroups`), `masks`, `encoder`, `decoder` with `prediction` [B, M, S, 3] in
        the order of `mask.drop`, `targets.points` likewise, and `stats`.
        """
        groups, mask = self._group(batch), masks[self.input_name]
        encoder, decoder = (
            {"params": variables["params"][name]} for name in ("encoder", "decoder")
        )
        encoder["batch_stats"] = stats = variables["stats"]["encoder"]
        keys = {
            name: {"dropout": jax.random.fold_in(rngs["dropout"], i)} if rngs else None
            for i, name in enumerate(("encoder", "decoder"))
        }
        arguments = groups.neighbours, groups.centres, mask
        if rngs is None:
            encoded: Any = self.encoder.apply(encoder, *arguments)
        else:
            encoded, renewed = self.encoder.apply(
                encoder, *arguments, rngs=keys["encoder"], mutable=["batch_stats"]
            )
            stats = renewed["batch_stats"]
        decoded = self.decoder.apply(
            decoder,
            encoded["tokens"],
            groups.centres,
            mask,
            self.group_size,
            rngs=keys["decoder"],
        )
        return {
            "groups": groups,
            "masks": masks,
            "encoder": encoded,
            "decoder": decoded,
            "targets": {"points": take_tokens(groups.neighbours, mask.drop)},
            "stats": {"encoder": stats},
        }

    def encode(self, variables: Variables, batch: Batch) -> dict[str, Any]:
        """Encodes all groups; clouds of another number of points get as many groups.

        Raises:
          UserError: fewer points than groups or than a group has.
        """
        count = batch[self.input_name].shape[1]
        self._check_count(count, f"The clouds have {count} points")
        groups = self._group(batch)
        encoder = {
            "params": variables["params"]["encoder"],
            "batch_stats": variables["stats"]["encoder"],
        }
        return {"encoder": self.encoder.apply(encoder, groups.neighbours, groups.centres)}

    def reconstruct(self, variables: Variables, batch: Batch, masks: Masks) -> dict[str, jax.Array]:
        """Returns clouds [B, points, 3]: `original`; `masked`: the points of visible groups;

        `prediction`: of hidden groups; `paste-back`: both.
        """
        out, mask = self.forward(variables, batch, masks), masks[self.input_name]
        groups: PointGroups = out["groups"]
        predicted = out["decoder"]["prediction"]
        visible = take_tokens(groups.neighbours, mask.keep)
        clouds = [
            (points + take_tokens(groups.centres, index)[:, :, None, :]).reshape(
                points.shape[0], -1, 3
            )
            for points, index in ((visible, mask.keep), (predicted, mask.drop))
        ]
        data = self.input(self.input_name)
        return {
            "original": data.normalise(batch[self.input_name]),
            "masked": clouds[0],
            "prediction": clouds[1],
            "paste-back": jnp.concatenate(clouds, axis=1),
        }

    def picture_note(self) -> str:
        """Says what is drawn, and that centres are given."""
        return (
            "Left: seen from the front, right: from above. Groups overlap, so a point may be in a "
            "visible and in a hidden one. The centres of hidden groups are told to the decoder; "
            "their points are the model's."
        )

    def _check_count(self, count: int, what: str) -> None:
        least = max(self.groups, self.group_size)
        if count < least:
            raise UserError(
                f"{what}, fewer than {'groups' if least == self.groups else 'points of a group'} "
                f"({least}): give more points, or reduce system.groups and system.group_size."
            )

    def _group(self, batch: Batch) -> PointGroups:
        points = self.input(self.input_name).normalise(batch[self.input_name])
        return group_points(points, self.groups, self.group_size, self.skip_ball)

    def _draw(self, rng: jax.Array, centres: jax.Array, progress: jax.Array | float) -> Any:
        needs = getattr(self.mask, "needs_places", False)
        places = {"places": centres} if needs else {}
        return self.mask(rng, centres.shape[0], self.grid, progress=progress, **places)
