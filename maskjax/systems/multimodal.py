"""Masked autoencoders of several modalities in one encoder (M3AE, MultiMAE).

The shape of this forward pass: every modality is cut into tokens, one mask chooses among the tokens
of all, one encoder sees what was chosen, and every task predicts the places of one modality. The
methods differ in embedders, mask, decoder, tasks and terms: those are configurations of this class.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.config import nearest
from maskjax.data import Text
from maskjax.errors import UserError
from maskjax.masking import BudgetMask
from maskjax.systems.system import Batch, Masks, Rngs, System, Variables
from maskjax.targets import Categories, Target
from maskjax.targets.target import shows_pictures
from maskjax.tokens import TokenGrid, unpatchify

_GREY = 0.5  # what stands for a hidden patch in a picture


@dataclasses.dataclass(frozen=True)
class Task:
    """What is predicted of one modality.

    Attributes:
      input_name: the modality, one of the encoder's.
      target: what is predicted at each of its tokens.
    """

    input_name: str
    target: Target


@dataclasses.dataclass(frozen=True, kw_only=True)
class Multimodal(System):
    """A masked autoencoder of several modalities.

    An example may lack a modality whose input is `optional`: its tokens are then attended by
    nobody and count in no term that reads `valid.NAME`. A batch may lack a modality altogether: it
    is encoded without.

    Attributes:
      encoder: a module with `embedders` {input name: embedder}, called as
        `models.MultimodalEncoder`.
      decoder: a module called as `models.M3AEDecoder`.
      mask: a sampler over several grids, e.g. `masking.Separate` or `masking.DirichletBudget`.
      tasks: {name: task}; terms read `decoder.NAME.prediction` and `targets.NAME`.
      uncertainty: whether every task has a learned `log_variance.NAME`, for terms that weigh
        themselves by it.
    """

    encoder: nn.Module
    decoder: nn.Module
    mask: Any
    tasks: Mapping[str, Task]
    uncertainty: bool = False

    view = "multimodal"

    @property
    def grids(self) -> dict[str, TokenGrid]:
        """Geometry of every modality, in the order in which their tokens are concatenated."""
        return {
            name: embedder.grid(self.input(name))
            for name, embedder in self._encoder.embedders.items()
        }

    def check(self) -> None:
        """Raises a UserError if inputs, embedders, mask and tasks do not fit."""
        embedders = self.encoder.embedders
        for name, embedder in embedders.items():
            embedder.check(name, self.input(name))
        grids = self.grids
        for name, task in self.tasks.items():
            if task.input_name not in embedders:
                raise UserError(
                    f"The task '{name}' predicts '{task.input_name}', which is no modality of "
                    f"system.encoder.embedders{nearest(task.input_name, embedders)}"
                )
        for name, task in self._tasks.items():
            _check_categories(name, task, self._encoder.embedders[task.input_name].categories)
            task.target.check(grids[task.input_name])
        self.mask.check(grids)
        super().check()

    def init(self, rng: jax.Array) -> Variables:
        """Returns {"params": {"encoder", "decoder"}}, with uncertainty also "log_variance"."""
        encoder_rng, decoder_rng, mask_rng = jax.random.split(rng, 3)
        batch = {
            name: jnp.zeros((1, *self.input(name).shape(False)), self.input(name).dtype)
            for name in self._encoder.embedders
        }
        grids = self.grids
        tokens, valid = self._tokens(batch, grids)
        mask = self.mask(mask_rng, 1, grids).joint
        encoded, encoder = self._encoder.init_with_output(encoder_rng, tokens, grids, mask, valid)
        decoder = self.decoder.init(decoder_rng, encoded, grids, mask, self._outputs, valid)
        params = {"encoder": encoder["params"], "decoder": decoder["params"]}
        if self.uncertainty:
            params["log_variance"] = {task: jnp.zeros(()) for task in self.tasks}
        return {"params": params}

    def sample_masks(
        self, rng: jax.Array, variables: Variables, batch: Batch, progress: jax.Array | float = 0.0
    ) -> Masks:
        """Draws {"tokens": BudgetMask} over the modalities that the batch has."""
        del variables
        names = self._present(batch)
        grids = {name: self.grids[name] for name in names}
        return {"tokens": self.mask(rng, batch[names[0]].shape[0], grids, progress=progress)}

    def forward(
        self, variables: Variables, batch: Batch, masks: Masks, rngs: Rngs | None = None
    ) -> dict[str, Any]:
        """Returns `tokens`, `valid`, `masks` by modality, `encoder`, and by task `decoder`, ...

        `tokens.NAME` are the patches [B, N, P] or ids [B, N], `valid.NAME` is bool [B, N],
        `masks.NAME` the mask of a modality and `masks.joint` that of all; `targets.TASK`,
        `decoder.TASK.prediction`, `log_variance.TASK` belong to the tasks.
        """
        del rngs  # nothing is drawn but masks
        params, mask = variables["params"], masks["tokens"]
        grids = {name: self.grids[name] for name in self._present(batch)}
        tokens, valid = self._tokens(batch, grids)
        encoded = self._encoder.apply(
            {"params": params["encoder"]}, tokens, grids, mask.joint, valid
        )
        decoded = self.decoder.apply(
            {"params": params["decoder"]}, encoded, grids, mask.joint, self._outputs, valid
        )
        out = {
            "tokens": tokens,
            "valid": {n: valid.get(n, jnp.ones(tokens[n].shape[:2], bool)) for n in grids},
            "masks": _by_modality(mask, grids),
            "encoder": encoded,
            "decoder": decoded,
            "targets": {
                name: jax.lax.stop_gradient(
                    task.target({"patches": tokens[task.input_name]}, grids[task.input_name])
                )
                for name, task in self._tasks.items()
                if task.input_name in grids
            },
        }
        if self.uncertainty:
            out["log_variance"] = params["log_variance"]
        return out

    def encode(self, variables: Variables, batch: Batch) -> dict[str, Any]:
        """Encodes any of the modalities without a mask, together and each alone.

        Returns:
          `encoder`: outputs for all modalities of the batch together; `alone.NAME`: for each of
          them as if there were no other, which is what retrieval between modalities compares.
        """
        names = self._present(batch)

        def encoded(names: Sequence[str]) -> dict[str, Any]:
            grids = {name: self._grid_of(name, batch[name]) for name in names}
            tokens, valid = self._tokens(batch, grids)
            out: Any = self._encoder.apply(
                {"params": variables["params"]["encoder"]},
                tokens,
                grids,
                valid=valid,
                trained=self.grids,
            )
            return out

        together = encoded(names)
        alone = {name: encoded([name]) for name in names} if len(names) > 1 else {}
        return {"encoder": together, "alone": alone or {names[0]: together}}

    @property
    def reads(self) -> tuple[str, ...]:
        """The modalities of the encoder."""
        return tuple(self.encoder.embedders)

    @property
    def shows_predictions(self) -> bool:
        """Whether a task has a target that can be shown."""
        return bool(self._pictured)

    @property
    def titles(self) -> tuple[str, ...]:
        """For every modality: itself, what was visible of it, and, if there is one, a guess."""
        titles = []
        for name in self._encoder.embedders:
            titles += [name, f"{name} seen", *[f"{name} predicted"] * (name in self._pictured)]
        return tuple(titles)

    def reconstruct(self, variables: Variables, batch: Batch, masks: Masks) -> dict[str, jax.Array]:
        """Returns by title pictures in [0, 1], [B, H, W, C], or texts, ids and marks [B, L, 2]."""
        out = self.forward(variables, batch, masks)
        shown = {}
        for name in self._encoder.embedders:
            guess = None
            if name in self._pictured:
                task = self._pictured[name]
                prediction = out["decoder"][task]["prediction"]
                tokens = {"patches": out["tokens"][name]}
                target = self._tasks[task].target
                assert shows_pictures(target)
                guess = target.invert(prediction, tokens)
            hidden = out["masks"][name].is_masked & out["valid"][name]
            show = self._show_text if self.input(name).view == "text" else self._show_picture
            columns = show(name, out["tokens"][name], hidden, guess)
            shown |= {f"{name}{title}": column for title, column in columns.items()}
        return shown

    def _show_text(
        self, name: str, ids: jax.Array, hidden: jax.Array, guess: jax.Array | None
    ) -> dict[str, jax.Array]:
        """Returns ids and marks (1 masked, 2 right, 3 wrong), int32 [B, L, 2]."""
        text = cast(Text, self.input(name))
        covered = jnp.full_like(ids, text.mask) if text.mask_token is not None else ids
        columns = {
            "": (ids, jnp.zeros_like(ids)),
            " seen": (jnp.where(hidden, covered, ids), hidden),
        }
        if guess is not None:
            guess = guess[..., 0]
            marks = jnp.where(hidden, jnp.where(guess == ids, 2, 3), 0)
            columns[" predicted"] = (jnp.where(hidden, guess, ids), marks)
        return {
            title: jnp.stack([words, marks.astype(jnp.int32)], axis=-1)
            for title, (words, marks) in columns.items()
        }

    def _show_picture(
        self, name: str, tokens: jax.Array, hidden: jax.Array, guess: jax.Array | None
    ) -> dict[str, jax.Array]:
        """Returns float32 [B, H, W, C] in [0, 1]."""
        grid = self.grids[name]

        def picture(patches: jax.Array) -> jax.Array:
            view = unpatchify(patches.astype(jnp.float32), grid)
            return jnp.clip(self.input(name).denormalise(view), 0.0, 1.0)

        original = picture(tokens)
        covered = jnp.broadcast_to(hidden[:, :, None], (*hidden.shape, grid.values_per_token))
        covered = unpatchify(covered, grid)[..., :1]
        columns = {"": original, " seen": jnp.where(covered, _GREY, original)}
        if guess is not None:
            columns[" predicted"] = picture(guess)
        return columns

    def picture_note(self) -> str:
        """Says which pictures owe something to the original."""
        owing = [
            name
            for name, task in self._pictured.items()
            if shows_pictures(target := self._tasks[task].target) and target.uses_target_statistics
        ]
        if not owing:
            return ""
        return (
            f"Predictions of {', '.join(owing)} are of normalised patches: mean and contrast of "
            "every predicted patch are taken from the original, only its structure is the model's."
        )

    @functools.cached_property
    def _encoder(self) -> nn.Module:
        """The encoder, with as many words and classes as the inputs have."""
        fitted = {name: e.fitted(self.input(name)) for name, e in self.encoder.embedders.items()}
        return self.encoder.clone(embedders=fitted)

    @functools.cached_property
    def _tasks(self) -> dict[str, Task]:
        """The tasks, with as many categories as their modalities have."""
        tasks = {}
        for name, task in self.tasks.items():
            if isinstance(task.target, Categories) and task.target.count is None:
                count = self._encoder.embedders[task.input_name].categories
                task = Task(task.input_name, dataclasses.replace(task.target, count=count))
            tasks[name] = task
        return tasks

    @property
    def _pictured(self) -> dict[str, str]:
        """{modality: task that pictures show of it}, one that shows the model alone if possible."""
        chosen: dict[str, str] = {}
        for honest in (True, False):
            for name, task in self._tasks.items():
                target = task.target
                if shows_pictures(target) and honest != target.uses_target_statistics:
                    chosen.setdefault(task.input_name, name)
        return chosen

    @property
    def _outputs(self) -> dict[str, tuple[str, int]]:
        """{task: (modality, values per token)}, what a decoder predicts."""
        return {
            name: (task.input_name, task.target.size(self.grids[task.input_name]))
            for name, task in self._tasks.items()
        }

    def _present(self, batch: Batch) -> list[str]:
        names = [name for name in self._encoder.embedders if name in batch]
        if not names:
            raise UserError(
                f"The batch has none of the modalities {', '.join(self._encoder.embedders)}: "
                "give at least one of them."
            )
        return names

    def _grid_of(self, name: str, values: jax.Array) -> TokenGrid:
        """Returns the geometry of a batch's array, whose size may differ from that trained on."""
        view = jax.eval_shape(self.input(name).normalise, values)
        return self._encoder.embedders[name].grid(self.input(name), view.shape[1:-1])

    def _tokens(
        self, batch: Batch, grids: Mapping[str, TokenGrid]
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Returns {name: tokens}, and {name: bool [B, N]} where some may not be valid."""
        tokens, valid = {}, {}
        for name, grid in grids.items():
            each, embedder = self.input(name), self._encoder.embedders[name]
            tokens[name] = embedder.tokenise(each, batch[name], grid)
            real = embedder.valid(each, tokens[name])
            has = batch.get(f"_has_{name}")
            if has is not None:
                real = jnp.ones(tokens[name].shape[:2], bool) if real is None else real
                real = real & has.astype(bool)[:, None]
            if real is not None:
                valid[name] = real
        return tokens, valid


def _by_modality(mask: BudgetMask, grids: Mapping[str, TokenGrid]) -> dict[str, Any]:
    return {"joint": mask.joint, **{name: mask.modalities[name] for name in grids}}


def _check_categories(name: str, task: Task, categories: int | None) -> None:
    """Refuses pixels of text, words of pixels, and another number of words than there are."""
    count = task.target.count if isinstance(task.target, Categories) else None
    if count == categories:
        return
    if categories is None:
        raise UserError(
            f"The task '{name}' chooses among {count} categories, but '{task.input_name}' has "
            "continuous values: take a target such as targets.Pixels."
        )
    raise UserError(
        f"The task '{name}' has to choose among the {categories} categories of "
        f"'{task.input_name}': take targets.Categories with count {categories}."
    )
