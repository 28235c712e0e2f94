"""Supervised classification with an encoder: fine-tuning, linear probes, training from scratch.

It is a system of its own because nothing is masked and nothing is decoded: the target is the label.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.data import Bands, ClassSet, Mixing, Records, set_bands
from maskjax.errors import UserError
from maskjax.masking import Mask, Sampler
from maskjax.models import fixed_positions
from maskjax.objectives import LabelCrossEntropy
from maskjax.systems.system import Batch, Masks, Restore, Rngs, System, Variables
from maskjax.tokens import TokenGrid, patchify, resize_table

# Numbers of the keys of mixing and bands: images have the first 2 B of those from the same key.
_MIXING, _BANDS = 2**31, 2**31 + 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classifier(System):
    """An encoder, which may come from a pretraining, and a head that tells the class.

    Examples of several classes: an input `data.ClassSet` and a term that reads it, such as
    `objectives.BinaryCrossEntropy`.

    Its variables are those of `encoder` and `head`, both in `params`; a frozen encoder lies in
    `teacher` instead, so that it has neither gradient nor moments.

    Attributes:
      input_name: which of `inputs`.
      encoder: a module with `patch_size`, called as `models.ViT`, as it was pretrained. It may wrap
        the pretrained one, which is then its `encoder`, with the parameters `fresh` beside it.
      head: a module called as `models.ClassHead`.
      mixing: of the examples of a training batch; None: they are not mixed.
      run: directory of the run whose encoder is taken over; None: random weights, the baseline.
      source: which of that run's variables, e.g. "params/encoder" or "teacher/average/encoder".
      checkpoint: step of the run's checkpoint; None: the newest.
      pretrained_size: extent of the inputs that the positions belong to, if another than here: the
        table is then resized (bicubic).
      train_positions: whether a fixed table of positions becomes a parameter, with that table as
        its start, as MAE's fine-tuning has it. "learned" positions always are one.
      frozen: whether the encoder stays as it is. Then it drops no paths, and running statistics in
        it stay, too.
      mask: sampler of patches that the encoder does not see in training, as Audio-MAE fine-tunes;
        None: it sees all, as it always does in evaluation.
      bands: stretches of times and frequencies that are zero in training, before a spectrogram is
        standardised; None: there are none.
    """

    input_name: str = "image"
    encoder: nn.Module
    head: nn.Module
    mixing: Mixing | None = None
    run: str | None = None
    source: str = "params/encoder"
    checkpoint: int | None = None
    pretrained_size: tuple[int, ...] | None = None
    train_positions: bool = False
    frozen: bool = False
    mask: Sampler | None = None
    bands: Bands | None = None

    titles = ("original", "augmented")
    shows_predictions = False

    @property
    def grid(self) -> TokenGrid:
        """Geometry of the inputs that the system is trained on."""
        return self._grid_of(self.input(self.input_name).size)

    @functools.cached_property
    def network(self) -> nn.Module:
        """The encoder as it is trained here."""
        return self.encoder.clone(positions="learned") if self.train_positions else self.encoder

    def check(self) -> None:
        """Raises a UserError if input, encoder, positions, head and terms do not fit."""
        if self.train_positions:
            if self.frozen:
                raise UserError("Nothing is trained in a frozen encoder: unset train_positions.")
            if getattr(self.encoder, "positions", "none") in ("learned", "none"):
                raise UserError(
                    "system.train_positions needs an encoder with a fixed table of positions, "
                    "which this one has not: unset it."
                )
        self._check_mixing()
        if self.bands is not None:
            self.bands.check(self.input(self.input_name))
        for name, each in self._class_sets.items():
            self._check_classes(each.classes, f"data.inputs.{name} has")
        if self.mask is not None:
            self.mask.check(self.grid)
        super().check()
        self.check_terms()

    def _check_mixing(self) -> None:
        values = len(self.input(self.input_name).shape(True))  # 1: waveforms, 2: points
        if self.mixing is None or values >= 3 or (values == 1 and not self.mixing.cutmix):
            return
        raise UserError(
            "Images and videos can be mixed, and sounds without cutmix: set system.mixing to None, "
            "or for sounds its cutmix to 0."
        )

    def check_records(self, records: Records) -> None:
        """Raises a UserError if the records have no labels, or others than the head tells."""
        if self._class_sets and not any(
            isinstance(term, LabelCrossEntropy) for term in self.terms.values()
        ):
            return
        if records.num_classes is None:
            raise UserError(
                "The training data have no labels, but a classifier learns from them: choose "
                "another data.source."
            )
        self._check_classes(records.num_classes, "The training data have")

    def _check_classes(self, classes: int, who: str) -> None:
        if classes != self.head.classes:
            raise UserError(
                f"{who} {classes} classes, but system.head.classes is {self.head.classes}: set it "
                f"to {classes}."
            )

    @property
    def _class_sets(self) -> dict[str, ClassSet]:
        return {name: each for name, each in self.inputs.items() if isinstance(each, ClassSet)}

    def init(self, rng: jax.Array) -> Variables:
        """Returns {"params": {"encoder", "head"}, "stats": ..., "teacher": ...}."""
        encoder_rng, head_rng = jax.random.split(rng)
        grid = self.grid
        patches = jnp.zeros((1, grid.num_tokens, grid.values_per_token))
        encoded, encoder = self.network.init_with_output(
            encoder_rng, patches, grid, trained=self._trained
        )
        if self.train_positions:
            encoder["params"] |= {"positions": self._positions(None)}
        head = self.head.init(head_rng, {"encoder": encoded}, grid.num_tokens)
        return self._variables(encoder, head)

    def load_pretrained(self, variables: Variables, restore: Restore) -> Variables:
        """Puts the encoder of `run` in place."""
        if self.run is None:
            return variables
        there = self._pretrained_grid
        patches = jax.ShapeDtypeStruct((1, there.num_tokens, there.values_per_token), jnp.float32)
        abstract = jax.eval_shape(
            lambda key, x: self.encoder.init(key, x, there), jax.random.key(0), patches
        )
        fresh = getattr(self.encoder, "fresh", ())
        abstract["params"] = {k: v for k, v in abstract["params"].items() if k not in fresh}
        network = getattr(self.encoder, "encoder", self.encoder)
        names = {"params": self.source, "batch_stats": "stats/encoder"}
        loaded = {
            name: restore(self.run, names[name], tree, self.checkpoint, network)
            for name, tree in abstract.items()
        }
        here = _flax("encoder", variables)["params"]
        loaded["params"] = {**loaded["params"], **{name: here[name] for name in fresh}}
        if getattr(self.network, "positions", None) == "learned":
            table = self._positions(loaded["params"].get("positions"))
            loaded["params"] = {**loaded["params"], "positions": table}
        return self._variables(loaded, _flax("head", variables))

    def augment(self, rng: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Varies every input by its own rule, then mixes the examples of the batch.

        Returns:
          The batch; with `_bands` int32 [B, 2, 2] if `bands` draws any; if its examples were mixed,
          with `_share` float32 [B], the weight of its own label, and, if it has one, `_partner` int
          [B], the other. Sets of classes are mixed to shares, float32 [B, V].
        """
        batch = super().augment(rng, batch)
        if self.bands is not None:
            count, key = batch[self.input_name].shape[0], jax.random.fold_in(rng, _BANDS)
            batch["_bands"] = self.bands(key, count, self.input(self.input_name).size)
        if self.mixing is None:
            return batch
        key = jax.random.fold_in(rng, _MIXING)
        mixed, share = self.mixing(key, batch[self.input_name], batch.get("_mask"))
        mixed = {self.input_name: mixed, "_share": share}
        if "label" in batch:
            mixed["_partner"] = batch["label"][::-1]
        for name in self._class_sets:
            own, weight = batch[name].astype(jnp.float32), share[:, None]
            mixed[name] = weight * own + (1.0 - weight) * own[::-1]
        return {**batch, **mixed}

    def sample_masks(
        self, rng: jax.Array, variables: Variables, batch: Batch, progress: jax.Array | float = 0.0
    ) -> Masks:
        """Draws {input name: Mask}, or nothing without a sampler."""
        if self.mask is None:
            return {}
        mask = self.mask(rng, batch[self.input_name].shape[0], self.grid, None, progress)
        if not isinstance(mask, Mask):
            raise UserError(
                f"{type(self.mask).__name__} does not say of every patch whether it is seen: "
                "choose another system.mask."
            )
        return {self.input_name: mask}

    def forward(
        self, variables: Variables, batch: Batch, masks: Masks, rngs: Rngs | None = None
    ) -> dict[str, Any]:
        """Returns `encoder`, `head` with `logits` [B, V], and `stats`.

        With `rngs` as in training (paths are dropped, statistics of the batch are used and the
        running ones renewed), without them as in evaluation; masks hide patches in either case.
        """
        view = self._view(batch)
        training = rngs is not None
        keys = {"dropout": rngs["dropout"]} if training else None
        encoder = _flax("encoder", variables)
        patches, grid = patchify(view, self.grid), self.grid
        # Encoders that are never masked need not know of masks.
        mask = {"mask": masks[self.input_name]} if self.input_name in masks else {}
        if self.frozen:
            same: Any = self.network.apply(encoder, patches, grid, **mask, trained=self._trained)
            encoded, stats = jax.lax.stop_gradient(same), encoder.get("batch_stats", {})
        else:
            encoded, stats = _apply(
                self.network,
                encoder,
                training,
                *(patches, grid),
                **mask,
                trained=self._trained,
                rngs=keys,
            )
        head = _flax("head", variables)
        seen = encoded["patches"].shape[1] if mask else grid.num_tokens
        arguments = {"encoder": encoded}, seen, batch.get("_mask")
        keys = {"dropout": jax.random.fold_in(rngs["dropout"], 1)} if rngs is not None else None
        classified, renewed = _apply(self.head, head, training, *arguments, rngs=keys)
        found = {"encoder": stats, "head": renewed}
        return {
            "encoder": encoded,
            "head": classified,
            "stats": {name: each for name, each in found.items() if each},
        }

    def encode(self, variables: Variables, batch: Batch) -> dict[str, Any]:
        """Encodes and classifies inputs, also of other sizes than trained on."""
        view = self.input(self.input_name).normalise(batch[self.input_name])
        grid = self._grid_of(view.shape[1:-1])
        encoder, patches = _flax("encoder", variables), patchify(view, grid)
        encoded = self.network.apply(encoder, patches, grid, trained=self._trained)
        out = {"encoder": encoded}
        return out | {"head": self.head.apply(_flax("head", variables), out, grid.num_tokens)}

    def reconstruct(self, variables: Variables, batch: Batch, masks: Masks) -> dict[str, jax.Array]:
        """Returns `original` and `augmented`, what the network sees in training."""
        del variables, masks
        data = self.input(self.input_name)
        pair = batch, self.augment(jax.random.key(0), batch)
        views = (data.denormalise(self._view(each)) for each in pair)
        if data.view != "points":  # whose coordinates are no colours
            views = (jnp.clip(view, 0.0, 1.0) for view in views)
        return dict(zip(self.titles, views, strict=True))

    def picture_note(self) -> str:
        """Says what the right column shows."""
        return (
            "Right: what the network learns from, as far as it is drawn inside the training step; "
            "what the host has drawn before is not shown."
        )

    def _view(self, batch: Batch) -> jax.Array:
        """Returns what the encoder sees of a batch, with the bands that were drawn for it."""
        data: Any = self.input(self.input_name)
        view = data.normalise(batch[self.input_name])
        return set_bands(view, batch["_bands"], data.zero) if "_bands" in batch else view

    def _grid_of(self, size: tuple[int, ...]) -> TokenGrid:
        channels = self.input(self.input_name).channels
        return TokenGrid.of(size, self.encoder.patch_size, channels)

    @property
    def _pretrained_grid(self) -> TokenGrid:
        return self._grid_of(self.pretrained_size or self.input(self.input_name).size)

    @property
    def _trained(self) -> TokenGrid:
        """The grid of the table of positions: a learned one is resized once, when it is loaded."""
        learned = getattr(self.network, "positions", None) == "learned"
        return self.grid if learned else self._pretrained_grid

    def _positions(self, table: jax.Array | None) -> jax.Array:
        """Returns the first table of trained positions: a given one, or the encoder's fixed one."""
        there = self._pretrained_grid
        fixed: Any = fixed_positions(self.encoder.positions, there, self.encoder.width)
        first = fixed if table is None else table
        return jnp.asarray(resize_table(first, there.shape, self.grid.shape))

    def _variables(self, encoder: Mapping[str, Any], head: Mapping[str, Any]) -> Variables:
        """Sorts the Flax variables of both networks into the three trees."""
        place = "teacher" if self.frozen else "params"
        variables = {"params": {}, place: {"encoder": encoder["params"]}}
        variables["params"]["head"] = head["params"]
        networks = {"encoder": encoder, "head": head}
        stats = {n: v["batch_stats"] for n, v in networks.items() if v.get("batch_stats")}
        return variables | ({"stats": stats} if stats else {})


def _flax(name: str, variables: Variables) -> dict[str, Any]:
    """Returns the Flax variables of a network."""
    here = {**variables.get("teacher", {}), **variables["params"]}
    stats = variables.get("stats", {})
    return {"params": here[name]} | ({"batch_stats": stats[name]} if name in stats else {})


def _apply(
    network: nn.Module, variables: Any, training: bool, *arguments: Any, **options: Any
) -> tuple[dict[str, Any], Any]:
    """Returns the outputs of a network and its running statistics, renewed if it is trained."""
    if not training or "batch_stats" not in variables:
        same: Any = network.apply(variables, *arguments, **options)
        return same, variables.get("batch_stats", {})
    out, renewed = network.apply(variables, *arguments, **options, mutable=["batch_stats"])
    return out, renewed["batch_stats"]
