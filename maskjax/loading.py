"""Using a trained run: the system, its variables, `encode` and `reconstruct` in one line."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.config import ConfigDict, build
from maskjax.data import Given, Image, Records, eval_batches, find_images
from maskjax.errors import UserError
from maskjax.systems import System, build_system
from maskjax.systems.other_masks import given_mask, with_hidden, with_ratio
from maskjax.training.pretrained import restore_variables
from maskjax.training.run import read_config
from maskjax.training.streams import stream

# Pictures by path, one value per example of the only input, or {input: one value per example}.
Data = str | os.PathLike | np.ndarray | Sequence[Any] | Mapping[str, Sequence[Any]]
MOST = 16  # examples that are read of what somebody gives, if nothing else is said


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A run that was read from its directory.

    Attributes:
      config: of the run.
      system: the method.
      variables: of the checkpoint.
      step: of the checkpoint.
    """

    config: ConfigDict
    system: System
    variables: dict[str, Any]
    step: int

    def encode(
        self, data: np.ndarray | jax.Array | Mapping[str, np.ndarray | jax.Array]
    ) -> dict[str, Any]:
        """Encodes data without any mask, tokens in raster order.

        Args:
          data: of the only input, or {input name: array} where there are several. Images are
            [B, H, W, C] as the data source gives them: uint8, or floats in [0, 255]; H and W may
            differ from the training's if the patch divides them.

        Returns:
          Nested outputs, e.g. `["encoder"]["mean"]` [B, D] and `["encoder"]["patches"]` [B, N, D].

        Raises:
          UserError: another rank or number of channels, or a size that the patch does not divide.
        """
        if not isinstance(data, Mapping):
            reads = self.system.reads
            if len(reads) > 1:
                raise UserError(f"Name what is encoded, as a dict out of {', '.join(reads)}.")
            data = {reads[0]: data}
        batch = {name: jnp.asarray(values) for name, values in data.items()}
        for name, values in batch.items():
            self.system.input(name).accept(values)
        return self._encode(self.variables, batch)

    def read(self, data: Data | None = None, most: int | None = None) -> dict[str, np.ndarray]:
        """Reads data as the run's evaluation does: decoded, fitted to the input, not augmented.

        Args:
          data: a path of pictures (a file, a folder, a pattern such as "photos/*.jpg"), for a run
            that sees images alone; or one value per example, as the data source gives it, e.g.
            uint8 [B, h, w, C] or a list of [h, w, c] of any size; {input name: values} where there
            are several inputs; None: the examples that the pictures of the training show, from the
            test split (or the training split, if there is no other).
          most: if there are more examples, only so many, spread evenly; None: 16, or as many as
            the pictures of the training show.

        Returns:
          A batch: {input name: [n, ...]}, `label` int32 [n], -1 where there is none, and
          `_has_NAME` bool [n] for inputs that may be missing.

        Raises:
          UserError: there is nothing, or something that cannot be read.
        """
        inputs = self.system.inputs
        if data is None:
            source, most = self.config.data, most or self.config.log.pictures or MOST
            records = build(source.source).open(source.test_split or source.train_split)
        else:
            values = self._values(data)
            records = Given(values)
            # What terms and evaluators alone read may be left out.
            inputs = {n: x for n, x in inputs.items() if n in values or n in self.system.reads}
        if not len(records):
            raise UserError("There are no examples to read: give one or more.")
        count = min(most or MOST, len(records))
        with eval_batches(
            records, inputs, batch_size=count, max_examples=count, threads=0
        ) as batches:
            batch = next(batches)
        for row in np.flatnonzero(~batch["_mask"]) if data is not None else ():
            raise _unreadable(records, int(batch["_index"][row]), self.system)
        batch = {name: v for name, v in batch.items() if name not in ("_index", "_mask")}
        return {"label": np.full(count, -1, np.int32)} | batch

    def reconstruct(
        self,
        data: Data | None = None,
        *,
        mask_ratio: float | None = None,
        mask: Any = None,
        seed: int | None = None,
        most: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Hides a part of every example and predicts it.

        Without arguments this is what the pictures of the training show.

        Args:
          data: as `read` takes it.
          mask_ratio: share of hidden tokens; None: that of the run.
          mask: which tokens to hide of every example, as `masking.hidden_tokens` takes it: numbers,
            a boolean map of the grid, or the path of a `.npy` file; None: masks are drawn.
          seed: of the draw; None: that of the run.
          most: as in `read`.

        Returns:
          {title: [n, ...]}, for images float32 [n, H, W, C] in [0, 1]: `original`, `masked`,
          `prediction`, `paste-back`, or what else `system.titles` names.
          `system.picture_note()` says what they owe to the original.

        Raises:
          UserError: data that cannot be read; a mask or ratio that leaves nothing to see or to
            predict, or that this system cannot take; both of them at once.
        """
        if mask is not None and mask_ratio is not None:
            raise UserError("A given mask has its own ratio: give the mask or a mask ratio.")
        hidden = None if mask is None else given_mask(self.system, mask)
        program = self._reconstruction(mask_ratio, hidden)
        key = jax.random.key(self.config.seed if seed is None else seed)
        arrays = jax.device_get(program(self.variables, self.read(data, most), key))
        return {title: arrays[title] for title in self.system.titles}

    def _reconstruction(
        self, ratio: float | None, hidden: tuple[int, ...] | None
    ) -> Callable[..., dict[str, Any]]:
        """Returns (variables, batch, key) -> pictures, compiled once for each kind of mask."""
        if (ratio, hidden) in self._reconstructions:
            return self._reconstructions[ratio, hidden]
        system = self.system
        if ratio is not None:
            system = with_ratio(system, ratio)
        elif hidden is not None:
            system = with_hidden(system, hidden)
        program = jax.jit(functools.partial(draw_and_reconstruct, system))
        self._reconstructions[ratio, hidden] = program
        return self._reconstructions[ratio, hidden]

    @functools.cached_property
    def _reconstructions(self) -> dict[Any, Callable[..., dict[str, Any]]]:
        return {}

    def _values(self, data: Data) -> Mapping[str, Any]:
        inputs = {name: self.system.input(name) for name in self.system.reads}
        if isinstance(data, Mapping):
            return data
        if isinstance(data, str | os.PathLike):
            name = _image_input(inputs)
            return {name: find_images(data)}
        if len(inputs) > 1:
            raise UserError(f"Name what is given, as a dict out of {', '.join(inputs)}.")
        return {next(iter(inputs)): data}

    @functools.cached_property
    def _encode(self) -> Callable[[Any, Mapping[str, jax.Array]], dict[str, Any]]:
        return jax.jit(self.system.encode)


def load(workdir: str | Path, step: int | None = None) -> Loaded:
    """Reads a run, finished or going on, without changing it.

    Args:
      workdir: directory of the run.
      step: of the checkpoint; None: the newest sound one.

    Raises:
      UserError: no run, or no checkpoint that can be read.
    """
    workdir = Path(workdir)
    config = read_config(workdir)
    system = build_system(config)
    found, variables = restore_variables(workdir, system.shapes, step)
    return Loaded(config, system, variables, found)


def draw_and_reconstruct(
    system: System, variables: Any, batch: Mapping[str, jax.Array], key: jax.Array
) -> dict[str, jax.Array]:
    """Returns what `system.reconstruct` does, with masks that a key draws; pure, to be jitted."""
    masks = system.sample_masks(stream(key, "mask"), variables, batch)
    return system.reconstruct(variables, batch, masks)


def _image_input(inputs: Mapping[str, Any]) -> str:
    """Returns the name of the input that pictures in files belong to."""
    needed = [name for name, each in inputs.items() if not each.optional]
    images = [name for name, each in inputs.items() if isinstance(each, Image)]
    if not images or not set(needed) <= {images[0]}:
        shown = ", ".join(f"{name} ({each.view})" for name, each in inputs.items())
        raise UserError(
            f"This run sees {shown}, which pictures in files are not: leave out the pictures to "
            "see examples of its own data."
        )
    return images[0]


def _unreadable(records: Records, number: int, system: System) -> UserError:
    """Returns the error about a record that could not be read, by reading it again."""
    what = records.describe(number)
    try:
        record = records[number]
        for name, each in system.inputs.items():
            if name in record:
                each.read(record[name], None)
    except Exception as error:  # of any kind, as decoders raise them
        return UserError(f"{what} cannot be read ({type(error).__name__}: {error}): leave it out.")
    return UserError(f"{what} cannot be read: leave it out.")
