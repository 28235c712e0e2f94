"""UMD: masks and Gaussian noise in one objective (Hansen-Estruch et al., 2024).

No composition of the masked autoencoder says this: the batch is split into examples that are noised
and lightly masked and examples that are clean and heavily masked, both go through one network that
is told the time, and a second prediction, of the noise, counts where the first does not.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.masking import Hidden, Mask, Sampler, Uniform
from maskjax.objectives.diffusion import NoiseSchedule
from maskjax.parallel.sharding import constrain_batch
from maskjax.systems.generation import DDIM
from maskjax.systems.system import Batch, Masks, Rngs, System, Variables
from maskjax.tokens import TokenGrid, patchify, unpatchify

_GREY = 0.5  # what stands for a hidden patch in a picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class UMD(System):
    """A masked autoencoder and a diffusion model in one network.

    The first examples of a batch are noised, the others clean. Data should be scaled to [-1, 1]:
    mean and standard deviation 0.5.

    Attributes:
      input_name: which of `inputs`.
      encoder: a `models.UMDEncoder`.
      decoder: a `models.UMDDecoder`.
      clean_mask: of clean examples.
      noised_mask: of noised examples; None: they are seen whole.
      clean_share: share of clean examples in a batch. The weights of the terms are not derived
        from it: the paper's are 1/4, 1/4 and 1/2 for a half.
      noise: how much noise there is at which time.
      label_dropout: share of noised examples whose label is withheld, if the encoder has classes.
      sampler: of `generate`.
    """

    input_name: str = "image"
    encoder: nn.Module
    decoder: nn.Module
    clean_mask: Sampler = dataclasses.field(default_factory=lambda: Uniform(0.75))
    noised_mask: Sampler | None = dataclasses.field(default_factory=lambda: Uniform(0.375))
    clean_share: float = 0.5
    noise: NoiseSchedule = dataclasses.field(default_factory=NoiseSchedule)
    label_dropout: float = 0.1
    sampler: DDIM = dataclasses.field(default_factory=DDIM)

    titles = ("original", "masked", "prediction", "noised", "denoised", "samples")

    @property
    def grid(self) -> TokenGrid:
        """Geometry of the inputs that the system is trained on."""
        data = self.input(self.input_name)
        return TokenGrid.of(data.size, self.encoder.patch_size, data.channels)

    def check(self) -> None:
        """Raises a UserError if input, masks, shares and sampler do not fit."""
        if not 0 <= self.clean_share <= 1:
            raise UserError(
                f"system.clean_share is {self.clean_share}: it has to be a share in [0, 1]."
            )
        if self.encoder.classes and not 0 < self.label_dropout < 1 and self.sampler.guidance != 1:
            raise UserError(
                "Guidance needs a network that has been trained without labels too: set "
                "system.label_dropout between 0 and 1, or system.sampler.guidance to 1."
            )
        if not self.encoder.classes and self.sampler.guidance != 1:
            raise UserError(
                "Guidance needs labels: set system.encoder.classes, or system.sampler.guidance to "
                "1."
            )
        for mask in (self.clean_mask, self.noised_mask):
            if mask is not None:
                mask.check(self.grid)
        self.sampler.times(self.noise)
        super().check()

    def init(self, rng: jax.Array) -> Variables:
        """Returns {"params": {"encoder": ..., "decoder": ...}}."""
        grid = self.grid
        first, second = jax.random.split(rng)
        patches = jnp.zeros((1, grid.num_tokens, grid.values_per_token))
        encoded, encoder = self.encoder.init_with_output(first, patches, grid)
        decoder = self.decoder.init(second, encoded, grid, None, grid.values_per_token)
        return {"params": {"encoder": encoder["params"], "decoder": decoder["params"]}}

    def sample_masks(
        self, rng: jax.Array, variables: Variables, batch: Batch, progress: jax.Array | float = 0.0
    ) -> Masks:
        """Draws what may happen to every example, noised or clean.

        Returns:
          `clean` and `noised`, masks (no `noised` if there is no such sampler); `time` int [B] in
          [0, T); `noise` [B, *size, C]; `withheld` bool [B], whose label is not told.
        """
        del variables
        data, b = self.input(self.input_name), batch[self.input_name].shape[0]
        keys = jax.random.split(rng, 5)
        masks = {
            "clean": self.clean_mask(keys[0], b, self.grid, None, progress),
            "time": jax.random.randint(keys[2], (b,), 0, self.noise.steps),
            "noise": jax.random.normal(keys[3], (b, *data.size, data.channels)),
            "withheld": jax.random.bernoulli(keys[4], self.label_dropout, (b,)),
        }
        if self.noised_mask is not None:
            masks["noised"] = self.noised_mask(keys[1], b, self.grid, None, progress)
        return masks

    def forward(
        self, variables: Variables, batch: Batch, masks: Masks, rngs: Rngs | None = None
    ) -> dict[str, Any]:
        """Returns, with all examples in the order of the batch:

        `patches` [B, N, P]; `noised.*` and `clean.*`: `encoder` and `decoder` of either part;
        `decoder.clean` and `decoder.noise` [B, N, P] of both; `targets.noise` [B, N, P];
        `masks`: those given, and where the terms count: `noised_visible`, `noised_hidden`,
        `clean_hidden`.
        """
        del rngs  # time and noise are drawn with the masks, so that they can be replayed
        grid, view = self.grid, self._view(batch)
        b = view.shape[0]
        split = b - int(b * self.clean_share)
        out: dict[str, Any] = {"patches": patchify(view, grid)}
        out["targets"] = {"noise": patchify(masks["noise"], grid)}
        decoded, hidden = [], []
        if split:
            x, time = self.noise.add_noise(view, masks["time"], masks["noise"]), masks["time"] + 1
            label = self._labels(batch, masks)
            out["noised"] = self._part(
                variables, x, masks.get("noised"), time, label, slice(0, split)
            )
            decoded.append(out["noised"]["decoder"])
            everything = jnp.ones((b, grid.num_tokens), bool)
            hidden.append(masks["noised"].is_masked if "noised" in masks else everything)
        if split < b:
            out["clean"] = self._part(variables, view, masks["clean"], None, None, slice(split, b))
            decoded.append(out["clean"]["decoder"])
        out["decoder"] = {
            name: constrain_batch(jnp.concatenate([each[name] for each in decoded]))
            for name in ("clean", "noise")
        }
        is_noised = (jnp.arange(b) < split)[:, None]
        noised_hidden = hidden[0] if hidden else jnp.zeros((b, grid.num_tokens), bool)
        # An example that is seen whole is predicted whole, in both ways.
        noised_visible = ~noised_hidden if "noised" in masks else noised_hidden
        out["masks"] = {
            **masks,
            "noised_visible": Hidden(noised_visible & is_noised),
            "noised_hidden": Hidden(noised_hidden & is_noised),
            "clean_hidden": Hidden(masks["clean"].is_masked & ~is_noised),
        }
        return out

    def encode(self, variables: Variables, batch: Batch) -> dict[str, Any]:
        """Encodes whole clean images at time 0; `encoder.cls` is the representation of the paper.

        Raises:
          UserError: another size than trained on.
        """
        view = self._view(batch)
        here, there = ("x".join(map(str, size)) for size in (view.shape[1:-1], self.grid.size))
        if here != there:
            raise UserError(
                f"UMD learns its positions for {there} and cannot encode {here}: resize the input."
            )
        patches = patchify(view, self.grid)
        params = {"params": variables["params"]["encoder"]}
        return {"encoder": self.encoder.apply(params, patches, self.grid)}

    def generate(
        self, variables: Variables, rng: jax.Array, count: int, labels: jax.Array | None = None
    ) -> jax.Array:
        """Draws images from noise, in one loop.

        Args:
          variables: of the system.
          rng: a key.
          count: B.
          labels: int [B]; None: of no class in particular.

        Returns:
          float32 [B, *size, C] in [0, 1].
        """
        data = self.input(self.input_name)
        guided = labels is not None and self.sampler.guidance != 1

        def noise_of(x: jax.Array, t: jax.Array) -> jax.Array:
            time = jnp.full((count,), t + 1)

            def predict(label: jax.Array | None) -> jax.Array:
                part = self._part(variables, x, None, time, label, slice(None))
                return unpatchify(part["decoder"]["noise"], self.grid)

            noise = predict(labels)
            if not guided:
                return noise
            unguided = predict(None)
            return unguided + self.sampler.guidance * (noise - unguided)

        first, second = jax.random.split(rng)
        start = jax.random.normal(first, (count, *data.size, data.channels))
        x = self.sampler(noise_of, start, self.noise, second)
        return jnp.clip(data.denormalise(x), 0.0, 1.0)

    def reconstruct(self, variables: Variables, batch: Batch, masks: Masks) -> dict[str, jax.Array]:
        """Returns the clean task (`masked`, `prediction`), the noised one, and `samples`."""
        grid, view = self.grid, self._view(batch)
        b = view.shape[0]

        def picture(view: jax.Array) -> jax.Array:
            return jnp.clip(self.input(self.input_name).denormalise(view), 0.0, 1.0)

        def hide(view: jax.Array, mask: Mask | None) -> jax.Array:
            if mask is None:
                return picture(view)
            hidden = jnp.broadcast_to(
                mask.is_masked[:, :, None], (b, grid.num_tokens, grid.values_per_token)
            )
            return jnp.where(unpatchify(hidden, grid), _GREY, picture(view))

        def predicted(x: jax.Array, mask: Mask | None, time: jax.Array | None) -> jax.Array:
            part = self._part(variables, x, mask, time, None, slice(None))
            return picture(unpatchify(part["decoder"]["clean"], grid))

        time = jnp.full((b,), self.noise.steps // 2)
        noised = self.noise.add_noise(view, time, masks["noise"])
        labels = jnp.arange(b) % self.encoder.classes if self.encoder.classes else None
        return {
            "original": picture(view),
            "masked": hide(view, masks["clean"]),
            "prediction": predicted(view, masks["clean"], None),
            "noised": hide(noised, masks.get("noised")),
            "denoised": predicted(noised, masks.get("noised"), time + 1),
            "samples": self.generate(variables, jax.random.key(0), b, labels),
        }

    def picture_note(self) -> str:
        """Says what is what."""
        of = "one of each class in turn" if self.encoder.classes else "of no class in particular"
        return (
            f"Noised to the middle of {self.noise.steps} times. Samples are drawn from noise in "
            f"{len(self.sampler.times(self.noise))} steps, {of}; they belong to no original."
        )

    def _view(self, batch: Batch) -> jax.Array:
        return self.input(self.input_name).normalise(batch[self.input_name])

    def _labels(self, batch: Batch, masks: Masks) -> jax.Array | None:
        """Returns what the network is told of the classes, or None if it takes no labels."""
        if not self.encoder.classes:
            return None
        if "label" not in batch:
            raise UserError(
                "system.encoder.classes is set but the data have no labels: set it to 0."
            )
        label = batch["label"]  # -1 where a record could not be read
        return jnp.where(masks["withheld"] | (label < 0), self.encoder.classes, label)

    def _part(
        self,
        variables: Variables,
        x: jax.Array,
        mask: Mask | None,
        time: jax.Array | None,
        label: jax.Array | None,
        rows: slice,
    ) -> dict[str, Mapping[str, Any]]:
        """Runs the network on some of the examples; all arguments are of all of them."""
        mask, x, time, label = jax.tree.map(lambda v: v[rows], (mask, x, time, label))
        params, grid = variables["params"], self.grid
        patches = constrain_batch(patchify(x, grid))
        encoded: Any = self.encoder.apply(
            {"params": params["encoder"]}, patches, grid, mask, time, label
        )
        decoded: Any = self.decoder.apply(
            {"params": params["decoder"]}, encoded, grid, mask, grid.values_per_token
        )
        return {"encoder": encoded, "decoder": decoded}
