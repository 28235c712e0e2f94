"""MaskGIT: predict hidden codes of an image, and generate by doing so again and again.

No composition of the masked autoencoder says this: what is masked and predicted are not patches but
codes of a tokenizer that was trained before, their number differs between examples, the network
sees every place and the class, and the same network generates in a loop (Chang et al., 2022).
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from maskjax.errors import UserError
from maskjax.masking import ScheduledRatio
from maskjax.systems.generation import ParallelDecoding
from maskjax.systems.system import Batch, Masks, Restore, Rngs, System, Variables
from maskjax.systems.tokenizers import QuantisedPixels, VQTokenizer
from maskjax.tokens import TokenGrid, unpatchify

_GREY = 0.5  # what stands for a hidden code in a picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskGIT(System):
    """A masked generative transformer of images.

    Attributes:
      input_name: which of `inputs`.
      tokenizer: images to codes and back.
      transformer: a `models.CodeTransformer`.
      mask: the sampler; its masks have `is_masked` [B, N].
      classes: number of labels that condition it; 0: none.
      class_dropout: share of the examples whose label is withheld in training, so that the network
        can be asked without (classifier-free guidance: Ho & Salimans, 2022).
      sampler: of `generate`.
    """

    input_name: str = "image"
    tokenizer: QuantisedPixels | VQTokenizer
    transformer: nn.Module
    mask: ScheduledRatio = dataclasses.field(default_factory=ScheduledRatio)
    classes: int = 1000
    class_dropout: float = 0.0
    sampler: ParallelDecoding = dataclasses.field(default_factory=ParallelDecoding)

    titles = ("original", "codes", "masked", "prediction", "samples")

    @property
    def grid(self) -> TokenGrid:
        """Geometry of the codes."""
        return self.tokenizer.grid(self.input(self.input_name))

    def check(self) -> None:
        """Raises a UserError if input, tokenizer, mask and sampler do not fit."""
        self.tokenizer.check(self.input(self.input_name))
        self.mask.check(self.grid)
        if self.classes < 0 or not 0 <= self.class_dropout < 1:
            raise UserError(
                f"system.classes is {self.classes} and system.class_dropout "
                f"{self.class_dropout}: give a number of classes and a share below 1."
            )
        if self.sampler.guidance and not (self.classes and self.class_dropout):
            raise UserError(
                "Guidance needs a network that was trained with and without classes: set "
                "system.classes and system.class_dropout (e.g. 0.1), or system.sampler.guidance "
                "to 0."
            )
        super().check()

    def init(self, rng: jax.Array) -> Variables:
        """Returns {"params": {"transformer"}, "teacher": {"tokenizer"}}, if that has weights."""
        first, second = jax.random.split(rng)
        codes = jnp.zeros((1, self.grid.num_tokens), jnp.int32)
        transformer = self.transformer.init(
            first, codes, codes > 0, codes[:, 0], self.tokenizer.vocabulary, self.classes
        )
        variables = {"params": {"transformer": transformer["params"]}}
        if tokenizer := self.tokenizer.init(second, self.input(self.input_name)):
            variables["teacher"] = {"tokenizer": tokenizer}
        return variables

    def load_pretrained(self, variables: Variables, restore: Restore) -> Variables:
        """Puts the tokenizer's weights in place."""
        loaded = self.tokenizer.load(_tokenizer(variables), restore)
        return {**variables, "teacher": {"tokenizer": loaded}} if loaded else variables

    def sample_masks(
        self, rng: jax.Array, variables: Variables, batch: Batch, progress: jax.Array | float = 0.0
    ) -> Masks:
        """Draws `codes`, which to hide, and `withheld` bool [B], whose label is not told."""
        del variables
        b = batch[self.input_name].shape[0]
        first, second = jax.random.split(rng)
        return {
            "codes": self.mask(first, b, self.grid, None, progress),
            "withheld": jax.random.bernoulli(second, self.class_dropout, (b,)),
        }

    def forward(
        self, variables: Variables, batch: Batch, masks: Masks, rngs: Rngs | None = None
    ) -> dict[str, Any]:
        """Returns `codes` int32 [B, N], `masks`, and `transformer.*`, e.g. `logits` [B, N, V]."""
        codes = self.codes(variables, batch)
        told = jnp.full((codes.shape[0],), self.classes, jnp.int32)
        if self.classes:
            if "label" not in batch:
                raise UserError("system.classes is set but the data have no labels: set it to 0.")
            label = batch["label"]  # -1 where a record could not be read
            told = jnp.where(masks["withheld"] | (label < 0), self.classes, label)
        out = self._predict(
            variables, codes, masks["codes"].is_masked, told, rngs["dropout"] if rngs else None
        )
        return {"codes": codes, "masks": masks, "transformer": out}

    def codes(self, variables: Variables, batch: Batch) -> jax.Array:
        """Returns the codes of images, int32 [B, N] in raster order."""
        data = self.input(self.input_name)
        view = data.normalise(batch[self.input_name])
        here, there = ("x".join(map(str, size)) for size in (view.shape[1:-1], data.size))
        if here != there:
            raise UserError(
                f"MaskGIT learns its positions for images of {there} and cannot take {here}: "
                "resize them."
            )
        codes = self.tokenizer.encode(_tokenizer(variables), view, data)
        return jax.lax.stop_gradient(codes)

    def decode(self, variables: Variables, codes: jax.Array) -> jax.Array:
        """Turns codes, int [B, N] in [0, V), into images, float32 [B, *size, C] in [0, 1]."""
        data = self.input(self.input_name)
        return self.tokenizer.decode(_tokenizer(variables), codes, data)

    def encode(self, variables: Variables, batch: Batch) -> dict[str, Any]:
        """Reads all codes, without the class: `encoder.mean`, `encoder.middle`, `encoder.cls`."""
        codes = self.codes(variables, batch)
        label = jnp.full((codes.shape[0],), self.classes, jnp.int32)
        out = self._predict(variables, codes, jnp.zeros(codes.shape, bool), label, None)
        return {"encoder": {**out, "codes": codes}}

    def generate(
        self,
        variables: Variables,
        rng: jax.Array,
        count: int,
        labels: jax.Array | None = None,
        known: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Draws images in one loop.

        Args:
          variables: of the system.
          rng: a key.
          count: B.
          labels: int [B]; None: of no class in particular.
          known: int [B, N], codes to keep and -1 where to generate; None: all are generated.

        Returns:
          Images float32 [B, *size, C] in [0, 1], and their codes int32 [B, N].

        Raises:
          UserError: codes or labels that do not exist, as far as they are known outside of jit.
        """
        n, vocabulary = self.grid.num_tokens, self.tokenizer.vocabulary
        start = jnp.full((count, n), -1, jnp.int32) if known is None else known
        _refuse(start, (count, n), -1, vocabulary, "codes")
        if labels is not None:
            _refuse(labels, (count,), 0, self.classes, "labels")
        nobody = jnp.full((count,), self.classes, jnp.int32)
        told = nobody if labels is None else labels
        guided = labels is not None and self.sampler.guidance > 0

        def logits_of(ids: jax.Array, step: jax.Array) -> jax.Array:
            hidden, codes = ids < 0, jnp.maximum(ids, 0)
            logits = self._predict(variables, codes, hidden, told, None)["logits"]
            if not guided:
                return logits
            without = self._predict(variables, codes, hidden, nobody, None)["logits"]
            return self.sampler.guide(logits, without, step)

        codes, _ = self.sampler(logits_of, jnp.asarray(start, jnp.int32), -1, rng)
        return self.decode(variables, codes), codes

    def reconstruct(self, variables: Variables, batch: Batch, masks: Masks) -> dict[str, jax.Array]:
        """Returns `original`, `codes` (decoded as they are), `masked`, `prediction`, `samples`.

        The prediction has the likeliest code at every hidden place, all at once.
        """
        data = self.input(self.input_name)
        codes, hidden = self.codes(variables, batch), masks["codes"].is_masked
        b = codes.shape[0]
        nobody = jnp.full((b,), self.classes, jnp.int32)
        logits = self._predict(variables, codes, hidden, nobody, None)["logits"]
        likeliest = jnp.where(hidden, logits.argmax(axis=-1), codes)
        decoded = self.decode(variables, codes)
        shape = (b, self.grid.num_tokens, self.grid.values_per_token)
        hidden_pixels = unpatchify(jnp.broadcast_to(hidden[:, :, None], shape), self.grid)
        labels = jnp.arange(b) % self.classes if self.classes else None
        original = data.denormalise(data.normalise(batch[self.input_name]))
        return {
            "original": jnp.clip(original, 0.0, 1.0),
            "codes": decoded,
            "masked": jnp.where(hidden_pixels, _GREY, decoded),
            "prediction": self.decode(variables, likeliest),
            "samples": self.generate(variables, jax.random.key(0), b, labels)[0],
        }

    def picture_note(self) -> str:
        """Says what is what."""
        of = "classes 0, 1, 2, ... in turn" if self.classes else "no class in particular"
        return (
            "Codes: the original as its codes have it, the best that can be predicted. Samples: "
            f"generated in {self.sampler.steps} steps, {of}; they belong to no original."
        )

    def _predict(
        self,
        variables: Variables,
        codes: jax.Array,
        hidden: jax.Array,
        label: jax.Array,
        rng: jax.Array | None,
    ) -> dict[str, Any]:
        params = {"params": variables["params"]["transformer"]}
        predicted: Any = self.transformer.apply(
            params, codes, hidden, label, self.tokenizer.vocabulary, self.classes, rng
        )
        return predicted


def _tokenizer(variables: Variables) -> dict[str, Any]:
    return variables.get("teacher", {}).get("tokenizer", {})


def _refuse(ids: Any, shape: tuple[int, ...], low: int, end: int, what: str) -> None:
    """Raises a UserError if concrete ids have another shape or lie outside of [low, end)."""
    if tuple(jnp.shape(ids)) != shape:
        raise UserError(f"The {what} have the shape {jnp.shape(ids)}, not {shape}.")
    if isinstance(ids, Tracer):
        return  # values are not known while a function is compiled
    ids = np.asarray(ids)
    if ids.size and (ids.min() < low or ids.max() >= end):
        raise UserError(
            f"The {what} go from {ids.min()} to {ids.max()}: they have to be in {low} .. {end - 1}."
        )
