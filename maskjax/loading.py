"""Using a trained run: the system, its variables, and `encode` in one line."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.config import ConfigDict
from maskjax.errors import UserError
from maskjax.systems import System, build_system
from maskjax.training.checkpoints import Checkpoints
from maskjax.training.loop import CHECKPOINTS
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

    def encode(self, images: np.ndarray | jax.Array) -> dict[str, Any]:
        """Encodes images without any mask, tokens in raster order.

        Args:
          images: [B, H, W, C] as the data source gives them: uint8, or floats in [0, 255]. H and
            W may differ from the training's if the patch divides them.

        Returns:
          Nested outputs, e.g. `["encoder"]["mean"]` [B, D] and `["encoder"]["patches"]` [B, N, D].

        Raises:
          UserError: another rank or number of channels, or a size that the patch does not divide.
        """
        images = jnp.asarray(images)
        channels = self.system.spec.channels
        if images.ndim != 4 or images.shape[-1] != channels:
            raise UserError(
                f"Images have the shape [B, H, W, {channels}] here, not {tuple(images.shape)}."
            )
        return self._encode(self.variables, images)

    @functools.cached_property
    def _encode(self) -> Callable[[Any, jax.Array], dict[str, Any]]:
        return jax.jit(lambda variables, image: self.system.encode(variables, {"image": image}))


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
    checkpoints = Checkpoints(workdir / CHECKPOINTS, read_only=True)
    try:
        variables = jax.eval_shape(system.init, jax.random.key(0))
        place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            {"variables": variables},
        )
        found = checkpoints.restore_latest(abstract, step, partial=True)
    finally:
        checkpoints.close()
    if found is None:
        raise UserError(f"{workdir} has no checkpoint yet: train it first.")
    return Loaded(config, system, found[1]["variables"], found[0])
