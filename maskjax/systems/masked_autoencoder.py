"""Masked autoencoders: encode what is visible, predict what is hidden (He et al., 2022).

The shape of this forward pass (one view of one input on a regular grid of tokens, one encoder, one
decoder) is shared by the methods that differ in input, masks, networks, teachers, targets and terms
alone: those are configurations of this class.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.config import nearest
from maskjax.errors import UserError
from maskjax.masking import Mask, Sampler, nothing_masked
from maskjax.paths import get_path
from maskjax.systems.code_teacher import CodeTeacher
from maskjax.systems.system import Batch, Masks, Restore, Rngs, System, Variables
from maskjax.systems.teacher import FrozenTeacher, Momentum, ema_update
from maskjax.targets import Target
from maskjax.targets.target import shows_pictures
from maskjax.tokens import TokenGrid, patchify, unpatchify

_GREY = 0.5  # what stands for a hidden patch in a picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedAutoencoder(System):
    """A masked autoencoder of images, clips, spectrograms: of one input on a regular grid.

    Attributes:
      input_name: which of `inputs`.
      encoder: a module with `patch_size`, called as `models.ViT`.
      decoder: a module called as `models.MAEDecoder`.
      mask: the sampler of what the encoder does not see.
      decoder_mask: a sampler of what the decoder neither sees nor predicts; the decoder then takes
        its mask as a further argument (VideoMAE V2). None: it sees all.
      heads: {name: module with a field `source`}; applied to the output of that path, seen by terms
        as `heads.NAME`.
      teachers: {name: frozen teacher}; seen as `teachers.NAME`.
      momentum: of an averaged copy of encoder and decoder, `teachers.average`, which sees the whole
        input; None: there is none.
      scores: path in the outputs of the averaged teacher, [B, N], that guides the mask.
      targets: {name: target}; seen as `targets.NAME`.
      predicted: the target that the decoder has as many outputs for, and that pictures show; may be
        left out if there is only one.
    """

    input_name: str = "image"
    encoder: nn.Module
    decoder: nn.Module
    mask: Sampler
    decoder_mask: Sampler | None = None
    heads: Mapping[str, nn.Module] = dataclasses.field(default_factory=dict)
    teachers: Mapping[str, FrozenTeacher | CodeTeacher] = dataclasses.field(default_factory=dict)
    momentum: Momentum | None = None
    scores: str | None = None
    targets: Mapping[str, Target]
    predicted: str | None = None

    @property
    def grid(self) -> TokenGrid:
        """Geometry of the inputs that the system is trained on."""
        data = self.input(self.input_name)
        return TokenGrid.of(data.size, self.encoder.patch_size, data.channels)

    def check(self) -> None:
        """Raises a UserError if input, patch, masks, teachers and targets do not fit."""
        grid = self.grid
        if not self.targets or (self.predicted is None and len(self.targets) > 1):
            raise UserError(
                "Say which of system.targets the decoder predicts: set system.predicted to one of "
                f"{', '.join(self.targets) or 'them (there are none)'}."
            )
        if self.predicted is not None and self.predicted not in self.targets:
            raise UserError(f"system.predicted is no target{nearest(self.predicted, self.targets)}")
        for part in (self.mask, self.decoder_mask, *self.teachers.values(), *self.targets.values()):
            if part is not None:
                part.check(grid)
        super().check()  # widths and heads
        self.check_terms()

    def init(self, rng: jax.Array) -> Variables:
        """Returns {"params": {"encoder", "decoder", "heads"}, "stats": ..., "teacher": ...}."""
        grid = self.grid
        names = ("encoder", "decoder", "mask", "heads", "teachers")
        keys = dict(zip(names, jax.random.split(rng, len(names)), strict=True))
        patches = jnp.zeros((1, grid.num_tokens, grid.values_per_token))
        masks = self._masks(keys["mask"], 1, None, 0.0)
        mask = masks[self.input_name]
        encoded, encoder = self.encoder.init_with_output(keys["encoder"], patches, grid, mask)
        decoded, decoder = self.decoder.init_with_output(
            keys["decoder"], *self._decoder_arguments(encoded, masks)
        )
        out = {"encoder": encoded, "decoder": decoded}
        heads = {
            name: head.init(key, get_path(out, head.source))
            for (name, head), key in zip(
                self.heads.items(), _keys(keys["heads"], self.heads), strict=True
            )
        }
        networks = {"encoder": encoder, "decoder": decoder, "heads": heads}
        variables = {"params": _collection(networks, "params")}
        if stats := _collection(networks, "batch_stats"):
            variables["stats"] = stats
        teacher = {
            name: each.init(key, grid)
            for (name, each), key in zip(
                self.teachers.items(), _keys(keys["teachers"], self.teachers), strict=True
            )
        }
        if self.momentum is not None:
            copied = ("encoder", "decoder")
            teacher["average"] = {name: variables["params"][name] for name in copied}
        if teacher:
            variables["teacher"] = teacher
        return variables

    def load_pretrained(self, variables: Variables, restore: Restore) -> Variables:
        """Puts the weights of frozen teachers in place."""
        if not self.teachers:
            return variables
        loaded = {
            name: each.load(variables["teacher"][name], restore)
            for name, each in self.teachers.items()
        }
        return {**variables, "teacher": {**variables["teacher"], **loaded}}

    def sample_masks(
        self, rng: jax.Array, variables: Variables, batch: Batch, progress: jax.Array | float = 0.0
    ) -> Masks:
        """Draws {input name: Mask} and, with a decoder mask, "decoder"."""
        scores = None
        if self.scores is not None:
            average = self._average(variables, self._patches(batch))
            scores = jax.lax.stop_gradient(get_path(average, self.scores))
        return self._masks(rng, batch[self.input_name].shape[0], scores, progress)

    def forward(
        self, variables: Variables, batch: Batch, masks: Masks, rngs: Rngs | None = None
    ) -> dict[str, Any]:
        """Returns `patches`, `pixels`, `masks`, `encoder`, `decoder`, `heads`, `teachers`, ..."""
        grid, mask = self.grid, masks[self.input_name]
        view = self.input(self.input_name).normalise(batch[self.input_name])
        patches = patchify(view, grid)
        pixels = patchify(self.input(self.input_name).denormalise(view), grid)
        out = {"patches": patches, "pixels": pixels, "masks": masks}
        encoded, encoder_stats = self._apply("encoder", variables, rngs, patches, grid, mask)
        decoded, decoder_stats = self._apply(
            "decoder", variables, rngs, *self._decoder_arguments(encoded, masks)
        )
        out |= {"encoder": encoded, "decoder": decoded}
        out["heads"] = {
            name: head.apply(
                {"params": variables["params"]["heads"][name]}, get_path(out, head.source)
            )
            for name, head in self.heads.items()
        }
        out["teachers"] = {
            name: each(variables["teacher"][name], out, grid, mask)
            for name, each in self.teachers.items()
        }
        if self.momentum is not None:
            out["teachers"]["average"] = self._average(variables, patches)
        out["targets"] = {}
        for name, target in self.targets.items():
            out["targets"][name] = jax.lax.stop_gradient(target(out, grid))
        out["stats"] = encoder_stats | decoder_stats
        return out

    def update(self, variables: Variables, progress: jax.Array) -> Variables:
        """Moves the averaged teacher."""
        if self.momentum is None:
            return variables
        teacher = variables["teacher"]
        average = ema_update(teacher["average"], variables["params"], self.momentum(progress))
        return {**variables, "teacher": {**teacher, "average": average}}

    def encode(self, variables: Variables, batch: Batch) -> dict[str, Any]:
        """Encodes whole inputs, also of other sizes than trained on (positions are resized)."""
        view = self.input(self.input_name).normalise(batch[self.input_name])
        grid = TokenGrid.of(view.shape[1:-1], self.encoder.patch_size, view.shape[-1])
        encoder = _variables("encoder", variables)
        patches = patchify(view, grid)
        return {"encoder": self.encoder.apply(encoder, patches, grid, trained=self.grid)}

    @property
    def shows_predictions(self) -> bool:
        """Whether the target is made of pixels; others have no prediction to show."""
        return shows_pictures(self._pictured)

    @property
    def titles(self) -> tuple[str, ...]:
        """Columns of the pictures, without a prediction where there is none to show."""
        return super().titles if self.shows_predictions else super().titles[:2]

    def reconstruct(self, variables: Variables, batch: Batch, masks: Masks) -> dict[str, jax.Array]:
        """Returns `original`, `masked`, `prediction` and `paste-back` (prediction where masked)."""
        out = self.forward(variables, batch, masks)
        hidden = masks[self.input_name].is_masked[:, :, None]
        hidden = unpatchify(jnp.broadcast_to(hidden, out["patches"].shape), self.grid)

        def picture(patches: jax.Array) -> jax.Array:
            view = unpatchify(patches, self.grid)
            return jnp.clip(self.input(self.input_name).denormalise(view), 0.0, 1.0)

        original = picture(out["patches"])
        pictures = {"original": original, "masked": jnp.where(hidden, _GREY, original)}
        if shows_pictures(self._pictured):
            predicted = picture(self._pictured.invert(out["decoder"]["prediction"], out))
            pictures["prediction"] = predicted
            pictures["paste-back"] = jnp.where(hidden, predicted, original)
        return pictures

    def picture_note(self) -> str:
        """Says what the pictures owe to the original."""
        if not shows_pictures(self._pictured):
            return "What this method predicts is no picture: only the input and its mask are shown."
        if not self._pictured.uses_target_statistics:
            return ""
        return (
            "Predictions are of normalised patches: mean and contrast of every predicted patch are "
            "taken from the original, only its structure is the model's."
        )

    @property
    def _pictured(self) -> Target:
        """The target that the decoder predicts and pictures show."""
        if self.predicted is None:
            return next(iter(self.targets.values()))
        return self.targets[self.predicted]

    def _patches(self, batch: Batch) -> jax.Array:
        data = self.input(self.input_name)
        return patchify(data.normalise(batch[self.input_name]), self.grid)

    def _masks(
        self, rng: jax.Array, batch_size: int, scores: jax.Array | None, progress: Any
    ) -> Masks:
        grid = self.grid
        masks = {self.input_name: self.mask(rng, batch_size, grid, scores, progress)}
        if self.decoder_mask is not None:
            rng = jax.random.fold_in(rng, 1)
            masks["decoder"] = self.decoder_mask(rng, batch_size, grid, None, progress)
        return masks

    def _decoder_arguments(self, encoded: Mapping[str, Any], masks: Masks) -> tuple[Any, ...]:
        shown = () if self.decoder_mask is None else (masks["decoder"],)
        outputs = self._pictured.size(self.grid)
        return encoded["tokens"], self.grid, masks[self.input_name], outputs, *shown

    def _average(self, variables: Variables, patches: jax.Array) -> dict[str, Any]:
        """Returns `encoder` and `decoder` of the averaged teacher, on the whole input."""
        params = {"params": variables["teacher"]["average"], "stats": variables.get("stats", {})}
        mask: Mask = nothing_masked(patches.shape[0], self.grid.num_tokens)
        encoded: Any = self.encoder.apply(_variables("encoder", params), patches, self.grid, mask)
        arguments = encoded["tokens"], self.grid, mask, self._pictured.size(self.grid)
        decoded = self.decoder.apply(_variables("decoder", params), *arguments)
        return jax.lax.stop_gradient({"encoder": encoded, "decoder": decoded})

    def _apply(
        self, name: str, variables: Variables, rngs: Rngs | None, *arguments: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Applies a network as in training; returns its outputs and its renewed statistics."""
        network = getattr(self, name)
        # Encoder and decoder draw from different keys.
        stream = ("encoder", "decoder").index(name)
        if rngs:
            rngs = {"dropout": jax.random.fold_in(rngs["dropout"], stream)}
        if rngs is None or name not in variables.get("stats", {}):
            return network.apply(_variables(name, variables), *arguments, rngs=rngs), {}
        out, renewed = network.apply(
            _variables(name, variables), *arguments, rngs=rngs, mutable=["batch_stats"]
        )
        return out, {name: renewed["batch_stats"]}


def _variables(name: str, variables: Variables) -> dict[str, Any]:
    """Returns the Flax variables of a network."""
    stats = variables.get("stats", {})
    params = {"params": variables["params"][name]}
    return params | ({"batch_stats": stats[name]} if name in stats else {})


def _collection(networks: Mapping[str, Any], collection: str) -> dict[str, Any]:
    """Returns {network: its variables of one collection}, for the networks that have any."""
    found = {}
    for name, variables in networks.items():
        if collection in variables:
            found[name] = variables[collection]
        elif name == "heads" and any(collection in v for v in variables.values()):
            found[name] = {head: v[collection] for head, v in variables.items() if collection in v}
    return found


def _keys(rng: jax.Array, parts: Mapping[str, Any]) -> list[jax.Array]:
    return [jax.random.fold_in(rng, i) for i in range(len(parts))]
