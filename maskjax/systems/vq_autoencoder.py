"""VQ-VAE: an autoencoder of images whose bottleneck is one code per token.

It masks nothing; it is here because its codes are what others predict (`systems.MaskGIT`). Its
quantisation, whose codebook is renewed by the forward pass, is what no composition says.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.masking import Hidden
from maskjax.models.vq import Codebook, nearest_code, straight_through
from maskjax.systems.system import Batch, Masks, Rngs, System, Variables
from maskjax.tokens import TokenGrid, patchify


@dataclasses.dataclass(frozen=True, kw_only=True)
class VQAutoencoder(System):
    """An image tokenizer.

    Attributes:
      input_name: which of `inputs`.
      encoder: a `models.VQEncoder`.
      decoder: a `models.VQDecoder` of the same levels.
      codebook: its size and how it follows the latents.
    """

    input_name: str = "image"
    encoder: nn.Module
    decoder: nn.Module
    codebook: Codebook = dataclasses.field(default_factory=Codebook)

    titles = ("original", "reconstruction")

    @property
    def grid(self) -> TokenGrid:
        """Geometry of the codes of the images that the system is trained on."""
        data = self.input(self.input_name)
        return TokenGrid.of(data.size, self.encoder.patch_size, data.channels)

    def check(self) -> None:
        """Raises a UserError if the image cannot be cut into codes, or the networks do not fit."""
        for name in ("stem", "multipliers"):
            if getattr(self.encoder, name) != getattr(self.decoder, name):
                raise UserError(
                    f"Encoder and decoder need the same levels: their {name} are "
                    f"{getattr(self.encoder, name)} and {getattr(self.decoder, name)}."
                )
        super().check()
        self.check_terms()

    def init(self, rng: jax.Array) -> Variables:
        """Returns {"params": {"encoder", "decoder"}, "stats": {"codebook"}}."""
        data, grid = self.input(self.input_name), self.grid
        keys = jax.random.split(rng, 3)
        image = jnp.zeros((1, *data.size, data.channels))
        latents, encoder = self.encoder.init_with_output(keys[0], image)
        decoder = self.decoder.init(keys[1], latents, grid)
        return {
            "params": {"encoder": encoder["params"], "decoder": decoder["params"]},
            "stats": {"codebook": self.codebook.init(keys[2], latents.shape[-1])},
        }

    def sample_masks(
        self, rng: jax.Array, variables: Variables, batch: Batch, progress: jax.Array | float = 0.0
    ) -> Masks:
        """Nothing is hidden from the encoder; `everything` is where terms count."""
        del rng, variables, progress
        b = batch[self.input_name].shape[0]
        return {"everything": Hidden(jnp.ones((b, self.grid.num_tokens), bool))}

    def forward(
        self, variables: Variables, batch: Batch, masks: Masks, rngs: Rngs | None = None
    ) -> dict[str, Any]:
        """Returns `patches` [B, N, P], `latents` and `quantised` [B, N, D], `codes` [B, N],
        `decoder.prediction` [B, N, P], `masks`, and the renewed codebook in `stats`.
        """
        view = self.input(self.input_name).normalise(batch[self.input_name])
        out = self._forward(variables, view)
        out["patches"], out["masks"] = patchify(view, self.grid), masks
        codebook = variables["stats"]["codebook"]
        if rngs:
            codebook = self.codebook.update(codebook, out["latents"], out["codes"], rngs["noise"])
        out["stats"] = {"codebook": codebook}
        return out

    def encode(self, variables: Variables, batch: Batch) -> dict[str, Any]:
        """Returns `encoder.codes` [B, N], `encoder.patches` [B, N, D] and their `mean` [B, D]."""
        view = self.input(self.input_name).normalise(batch[self.input_name])
        latents: Any = self.encoder.apply({"params": variables["params"]["encoder"]}, view)
        codes = nearest_code(latents, variables["stats"]["codebook"]["table"])
        encoded = {"codes": codes, "patches": latents, "mean": latents.mean(axis=1)}
        return {"encoder": encoded}

    def decode(self, variables: Variables, codes: jax.Array) -> jax.Array:
        """Turns codes, int [B, N] in [0, V), into images, float32 [B, *size, C] in [0, 1]."""
        vectors = variables["stats"]["codebook"]["table"][codes]
        decoder = {"params": variables["params"]["decoder"]}
        view: Any = self.decoder.apply(decoder, vectors, self.grid)
        return jnp.clip(self.input(self.input_name).denormalise(view), 0.0, 1.0)

    def reconstruct(self, variables: Variables, batch: Batch, masks: Masks) -> dict[str, jax.Array]:
        """Returns `original` and `reconstruction`, from the codes alone."""
        del masks
        data = self.input(self.input_name)
        original = data.denormalise(data.normalise(batch[self.input_name]))
        codes = self.encode(variables, batch)["encoder"]["codes"]
        return {
            "original": jnp.clip(original, 0.0, 1.0),
            "reconstruction": self.decode(variables, codes),
        }

    def picture_note(self) -> str:
        """Says how much a code has to say."""
        shape = " x ".join(map(str, self.grid.shape))
        return f"Reconstructed from {shape} codes out of {self.codebook.size}."

    def _forward(self, variables: Variables, view: jax.Array) -> dict[str, Any]:
        params = variables["params"]
        latents: Any = self.encoder.apply({"params": params["encoder"]}, view)
        table = jax.lax.stop_gradient(variables["stats"]["codebook"]["table"])
        codes = nearest_code(jax.lax.stop_gradient(latents), table)
        quantised = table[codes]
        decoded: Any = self.decoder.apply(
            {"params": params["decoder"]}, straight_through(latents, quantised), self.grid
        )
        return {
            "latents": latents,
            "codes": codes,
            "quantised": quantised,
            "decoder": {"prediction": patchify(decoded, self.grid)},
        }
