"""Tokenizers: images to codes and back. They are not trained with what predicts the codes."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.data import Input
from maskjax.errors import UserError
from maskjax.models.vq import nearest_code
from maskjax.systems.system import Restore
from maskjax.tokens import TokenGrid


@dataclasses.dataclass(frozen=True)
class QuantisedPixels:
    """One code per pixel: its value in every channel, rounded to one of a few levels.

    It needs no training, and the codes are exact where the data have no more levels.

    Attributes:
      levels: per channel, evenly from 0 to 1.
      channels: of the images; the vocabulary has levels^channels codes.
    """

    levels: int = 16
    channels: int = 1

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise UserError(f"Pixels of {self.levels} levels say nothing: give at least two.")

    @property
    def vocabulary(self) -> int:
        """V, the number of codes."""
        return self.levels**self.channels

    def grid(self, data: Input) -> TokenGrid:
        """Returns the geometry of the codes: that of the pixels."""
        return TokenGrid.of(data.size, (1,) * len(data.size), data.channels)

    def check(self, data: Input) -> None:
        """Refuses images of another number of channels."""
        if data.channels != self.channels:
            raise UserError(
                f"The tokenizer is for {self.channels} channels but the images have "
                f"{data.channels}: set system.tokenizer.channels."
            )

    def init(self, rng: jax.Array, data: Input) -> dict[str, Any]:
        """There is nothing to learn."""
        del rng, data
        return {}

    def load(self, variables: dict[str, Any], restore: Restore) -> dict[str, Any]:
        """There is nothing to load."""
        del restore
        return variables

    def encode(self, variables: dict[str, Any], view: jax.Array, data: Input) -> jax.Array:
        """Returns codes int32 [B, N] of images [B, *size, C] as the model sees them."""
        del variables
        values = jnp.clip(data.denormalise(view), 0.0, 1.0)
        levels = jnp.round(values * (self.levels - 1)).astype(jnp.int32)
        places = self.levels ** jnp.arange(self.channels, dtype=jnp.int32)
        return (levels * places[None, None, None, :]).sum(-1).reshape(view.shape[0], -1)

    def decode(self, variables: dict[str, Any], codes: jax.Array, data: Input) -> jax.Array:
        """Returns images float32 [B, *size, C] in [0, 1] of codes int [B, N]."""
        del variables
        places = self.levels ** jnp.arange(self.channels, dtype=jnp.int32)
        levels = codes[:, :, None] // places[None, None, :] % self.levels
        pixels = levels.astype(jnp.float32) / (self.levels - 1)
        return pixels.reshape(codes.shape[0], *data.size, self.channels)


@dataclasses.dataclass(frozen=True)
class VQTokenizer:
    """The networks and the codebook of an earlier run of `systems.VQAutoencoder`.

    The description of the networks is given here again, and the weights are copied into the new
    run, so that it can be used without the old one. Images have to be normalised as in that run.

    Attributes:
      run: directory of the run.
      encoder: as in that run.
      decoder: as in that run.
      vocabulary: V, the size of its codebook.
      checkpoint: step of the run's checkpoint; None: the newest.
    """

    run: str | None
    encoder: nn.Module
    decoder: nn.Module
    vocabulary: int = 1024
    checkpoint: int | None = None

    def grid(self, data: Input | TokenGrid) -> TokenGrid:
        """Returns the geometry of the codes."""
        return TokenGrid.of(data.size, self.encoder.patch_size, data.channels)

    def check(self, data: Input) -> None:
        """Refuses images that cannot be cut into codes; whether the run fits is seen on loading."""
        self.grid(data)

    def init(self, rng: jax.Array, data: Input | TokenGrid) -> dict[str, Any]:
        """Returns random weights, which `load` replaces."""
        first, second, third = jax.random.split(rng, 3)
        image = jnp.zeros((1, *data.size, data.channels))
        latents, encoder = self.encoder.init_with_output(first, image)
        decoder = self.decoder.init(second, latents, self.grid(data))
        table = jax.random.normal(third, (self.vocabulary, latents.shape[-1]))
        return {"encoder": encoder["params"], "decoder": decoder["params"], "table": table}

    def load(self, variables: dict[str, Any], restore: Restore) -> dict[str, Any]:
        """Returns the weights of the run.

        Raises:
          UserError: no run is named, it does not exist, or its networks are other ones.
        """
        if not self.run:
            raise UserError(
                "Codes come from a tokenizer that was trained before, and none is named: train "
                "configs/vq.py and give its directory as `run` of the tokenizer, "
                "--config.system.tokenizer.run (--config.system.teachers.codes.tokenizer.run of "
                "BEiT)."
            )
        paths = {
            "encoder": "params/encoder",
            "decoder": "params/decoder",
            "table": "stats/codebook/table",
        }
        abstract = jax.eval_shape(lambda: variables)
        networks = {"encoder": self.encoder, "decoder": self.decoder, "table": None}
        return {
            name: restore(self.run, path, abstract[name], self.checkpoint, networks[name])
            for name, path in paths.items()
        }

    def encode(
        self, variables: dict[str, Any], view: jax.Array, data: Input | TokenGrid
    ) -> jax.Array:
        """Returns codes int32 [B, N] of images [B, *size, C] as the model sees them."""
        del data
        latents: Any = self.encoder.apply({"params": variables["encoder"]}, view)
        return nearest_code(latents, variables["table"])

    def decode(self, variables: dict[str, Any], codes: jax.Array, data: Input) -> jax.Array:
        """Returns images float32 [B, *size, C] in [0, 1] of codes int [B, N]."""
        decoder = {"params": variables["decoder"]}
        view: Any = self.decoder.apply(decoder, variables["table"][codes], self.grid(data))
        return jnp.clip(data.denormalise(view), 0.0, 1.0)
