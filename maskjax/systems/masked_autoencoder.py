"""MAE: encode the visible patches, predict the hidden ones (He et al., 2022).

The shape of its forward pass (one view, one encoder, one decoder over all positions) is shared by
the methods that differ in masks, targets and terms alone: those are configurations of this class.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.data import ImageSpec
from maskjax.masking import Sampler
from maskjax.objectives import Term, TermValue
from maskjax.systems.system import Batch, Masks, Variables
from maskjax.tokens import TokenGrid, patchify, unpatchify

_GREY = 0.5  # what stands for a hidden patch in a picture


@dataclasses.dataclass(frozen=True)
class MaskedAutoencoder:
    """A masked autoencoder of images.

    Attributes:
      encoder: a module with `patch_size`, called as `models.ViT`.
      decoder: a module called as `models.MAEDecoder`.
      mask: the sampler.
      targets: {name: target}; term paths see them as `targets.NAME`.
      terms: {name: term}, the objective.
      spec: size, channels and statistics of the images.
    """

    encoder: nn.Module
    decoder: nn.Module
    mask: Sampler
    targets: Mapping[str, Any]
    terms: Mapping[str, Term]
    spec: ImageSpec = dataclasses.field(default=None, metadata={"runtime": True})

    @property
    def grid(self) -> TokenGrid:
        """Geometry of the images that the system is trained on."""
        return TokenGrid.of(self.spec.size, self.encoder.patch_size, self.spec.channels)

    def check(self) -> None:
        """Raises a UserError if image, patch, mask and targets do not fit."""
        self.mask.check(self.grid)
        for target in self.targets.values():
            target.check(self.grid)
        jax.eval_shape(self.init, jax.random.key(0))  # widths and heads

    def init(self, rng: jax.Array) -> Variables:
        """Returns {"params": {"encoder": ..., "decoder": ...}}."""
        grid = self.grid
        encoder_rng, decoder_rng, mask_rng = jax.random.split(rng, 3)
        patches = jnp.zeros((1, grid.num_tokens, grid.values_per_token))
        mask = self.mask(mask_rng, 1, grid)
        encoded, encoder = self.encoder.init_with_output(encoder_rng, patches, grid, mask)
        decoder = self.decoder.init(
            decoder_rng, encoded["tokens"], grid, mask, grid.values_per_token
        )
        return {"params": {"encoder": encoder["params"], "decoder": decoder["params"]}}

    def sample_masks(
        self, rng: jax.Array, variables: Variables, batch: Batch, progress: jax.Array | float = 0.0
    ) -> Masks:
        """Draws {"image": Mask}."""
        del variables
        return {"image": self.mask(rng, batch["image"].shape[0], self.grid, progress=progress)}

    def forward(
        self,
        variables: Variables,
        batch: Batch,
        masks: Masks,
        rngs: Mapping[str, jax.Array] | None = None,
    ) -> dict[str, Any]:
        """Returns `patches` [B, N, P], `masks`, `encoder.*`, `decoder.*`, `targets.*`."""
        del rngs  # MAE draws nothing but masks
        grid, mask, params = self.grid, masks["image"], variables["params"]
        patches = patchify(self.spec.normalise(batch["image"]), grid)
        encoded = self.encoder.apply({"params": params["encoder"]}, patches, grid, mask)
        decoded = self.decoder.apply(
            {"params": params["decoder"]}, encoded["tokens"], grid, mask, grid.values_per_token
        )
        targets = {name: target(patches) for name, target in self.targets.items()}
        return {
            "patches": patches,
            "masks": masks,
            "encoder": encoded,
            "decoder": decoded,
            "targets": targets,
        }

    def term_values(
        self,
        variables: Variables,
        batch: Batch,
        masks: Masks,
        rngs: Mapping[str, jax.Array] | None = None,
    ) -> dict[str, TermValue]:
        """Returns the value of every term."""
        out = self.forward(variables, batch, masks, rngs)
        return {name: term(out, batch) for name, term in self.terms.items()}

    def encode(self, variables: Variables, batch: Batch) -> dict[str, Any]:
        """Encodes whole images, also of other sizes than trained on (positions are resized)."""
        height, width, channels = batch["image"].shape[1:]
        grid = TokenGrid.of((height, width), self.encoder.patch_size, channels)
        patches = patchify(self.spec.normalise(batch["image"]), grid)
        encoder = {"params": variables["params"]["encoder"]}
        return {"encoder": self.encoder.apply(encoder, patches, grid, trained=self.grid)}

    def reconstruct(self, variables: Variables, batch: Batch, masks: Masks) -> dict[str, jax.Array]:
        """Returns `original`, `masked`, `prediction` and `paste-back` (prediction where masked)."""
        out = self.forward(variables, batch, masks)
        hidden = masks["image"].is_masked[:, :, None]
        patches = out["patches"]
        predicted = self._pictured.invert(out["decoder"]["prediction"], patches)

        def picture(patches: jax.Array) -> jax.Array:
            return jnp.clip(self.spec.denormalise(unpatchify(patches, self.grid)), 0.0, 1.0)

        grey = patchify(
            self.spec.normalise(jnp.full_like(batch["image"], 255 * _GREY, jnp.float32)), self.grid
        )
        return {
            "original": picture(patches),
            "masked": picture(jnp.where(hidden, grey, patches)),
            "prediction": picture(predicted),
            "paste-back": picture(jnp.where(hidden, predicted, patches)),
        }

    def picture_note(self) -> str:
        """Says where the statistics come from that the pictures are de-normalised with."""
        mean, std = (
            ", ".join(f"{v:.3f}" for v in values) for values in (self.spec.mean, self.spec.std)
        )
        note = f"De-normalised with the data's mean ({mean}) and standard deviation ({std})."
        if self._pictured.uses_target_statistics:
            note += (
                " Predictions are of normalised patches: mean and contrast of every predicted "
                "patch are taken from the original, only its structure is the model's."
            )
        return note

    @property
    def _pictured(self) -> Any:
        """The target that pictures show: the first."""
        return next(iter(self.targets.values()))
