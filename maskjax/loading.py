"""Using a trained run: the system, its variables, and `encode` in one line."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.config import ConfigDict
from maskjax.errors import UserError
from maskjax.systems import System, build_system
from maskjax.training.pretrained import restore_variables
from maskjax.training.run import read_config


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
        inputs = self.system.inputs
        if not isinstance(data, Mapping):
            if len(inputs) > 1:
                raise UserError(f"Name what is encoded, as a dict out of {', '.join(inputs)}.")
            data = {next(iter(inputs)): data}
        batch = {name: jnp.asarray(values) for name, values in data.items()}
        for name, values in batch.items():
            self.system.input(name).accept(values)
        return self._encode(self.variables, batch)

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
