"""Teachers: second sets of parameters that give targets or scores and receive no gradient.

An averaged teacher follows the student (`ema_update`, `Momentum`). A frozen one is a network of
its own (`FrozenTeacher`): with random weights, or with those of another run. Where its parameters
lie in the variables of a system, and what is made of its outputs, is the system's affair.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.systems.system import Restore
from maskjax.tokens import TokenGrid, patchify, unpatchify


def ema_update(teacher: Any, student: Any, decay: jax.Array | float) -> Any:
    """Returns decay * teacher + (1 - decay) * student, leaf by leaf (Tarvainen & Valpola, 2017).

    Args:
      teacher: a tree of parameters.
      student: one of the same structure; where both are dicts it may have further entries.
      decay: scalar in [0, 1].
    """
    if isinstance(teacher, Mapping):
        return {name: ema_update(part, student[name], decay) for name, part in teacher.items()}
    return jax.tree.map(
        lambda t, s: (t + (1.0 - decay) * (s - t)).astype(t.dtype), teacher, student
    )


@dataclasses.dataclass(frozen=True)
class Momentum:
    """Decay of an averaged teacher as a function of the progress of the training.

    Attributes:
      start: decay at the first step, in [0, 1].
      end: decay at the end of the change, in [0, 1].
      shape: of the way from `start` to `end`: "cosine" (half a period: flat at both ends),
        "linear", or "constant" (`start` throughout).
      share: of the training over which the decay changes, in (0, 1]; `end` from then on.
    """

    start: float = 0.996
    end: float = 1.0
    shape: Literal["cosine", "linear", "constant"] = "cosine"
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.shape not in ("cosine", "linear", "constant"):
            raise UserError(
                f"shape of a momentum is 'cosine', 'linear' or 'constant', not '{self.shape}'."
            )
        if not (0 <= self.start <= 1 and 0 <= self.end <= 1):
            raise UserError(
                f"A momentum goes from {self.start} to {self.end}: both have to be in [0, 1]."
            )
        if not 0 < self.share <= 1:
            raise UserError(f"share of a momentum is {self.share}: it has to be in (0, 1].")

    def __call__(self, progress: jax.Array | float) -> jax.Array:
        """Returns the decay, float32 [], at a share `progress` in [0, 1] of the training."""
        if self.shape == "constant":
            return jnp.asarray(self.start, jnp.float32)
        done = jnp.clip(jnp.asarray(progress, jnp.float32) / self.share, 0.0, 1.0)
        if self.shape == "cosine":
            done = 0.5 - 0.5 * jnp.cos(math.pi * done)
        # Written from the end, so that small distances from 1 are not lost in rounding.
        return self.end - (self.end - self.start) * (1.0 - done)


@dataclasses.dataclass(frozen=True)
class FrozenTeacher:
    """A network that is not trained, with its own input size and normalisation.

    Attributes:
      network: a module with `patch_size`, called as `models.ViT`.
      run: directory of a maskjax run whose parameters it gets; None: random ones.
      source: which of that run's variables, e.g. "params/encoder" or "teacher/encoder".
      checkpoint: step of the run's checkpoint; None: the newest.
      size: height and width that it sees; the student's input is resized to it. None: the same.
      mean: per channel, of pixels in [0, 1], that it was trained with; None: as the student.
      std: as `mean`.
      masked: whether it sees only what the mask of the student leaves visible (DMAE) instead of
        the whole input.
    """

    network: nn.Module
    run: str | None = None
    source: str = "params/encoder"
    checkpoint: int | None = None
    size: tuple[int, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    masked: bool = False

    def grid(self, student: TokenGrid) -> TokenGrid:
        """Returns the geometry of its tokens, given that of the student's."""
        size = student.size if self.size is None else self.size
        return TokenGrid.of(size, self.network.patch_size, student.channels)

    def check(self, student: TokenGrid) -> None:
        """Raises a UserError if its tokens are not those of the student, one to one."""
        here, there = ("x".join(map(str, g.shape)) for g in (self.grid(student), student))
        if here != there:
            raise UserError(
                f"The teacher has {here} tokens and the student {there}, but a target is needed at "
                "every token: change the teacher's `size` or `network.patch_size`."
            )
        if (self.mean is None) != (self.std is None):
            raise UserError("A teacher's normalisation needs both mean and std, or neither.")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != student.channels:
                raise UserError(
                    f"The teacher's {name} has {len(values)} values but its input has "
                    f"{student.channels} channels: give one value per channel."
                )
        if self.std is not None and min(self.std) <= 0:
            raise UserError(f"The teacher's std is {self.std}: every value has to be positive.")

    def init(self, rng: jax.Array, student: TokenGrid) -> Any:
        """Returns random parameters."""
        grid = self.grid(student)
        patches = jnp.zeros((1, grid.num_tokens, grid.values_per_token))
        return self.network.init(rng, patches, grid)["params"]

    def load(self, params: Any, restore: Restore) -> Any:
        """Returns the parameters of `run`, or those given if it has none.

        Args:
          params: from `init`; they say which shapes are wanted.
          restore: reads variables of a run; systems do not know how runs are stored.

        Raises:
          UserError: no such run, or its network is another one.
        """
        if self.run is None:
            return params
        abstract = jax.eval_shape(lambda: params)
        return restore(self.run, self.source, abstract, self.checkpoint, self.network)

    def inputs(self, out: Mapping[str, Any], student: TokenGrid) -> jax.Array:
        """Returns what it sees, [B, N, P'].

        Args:
          out: with `patches` [B, N, P] in the student's units, `pixels` [B, N, P] in [0, 1].
          student: their geometry.
        """
        x = out["patches"] if self.mean is None else out["pixels"]
        if self.mean is not None:
            pixels = student.values_per_token // student.channels
            mean, std = (
                jnp.tile(jnp.asarray(v, x.dtype), pixels)[None, None, :]
                for v in (self.mean, self.std)
            )
            x = (x - mean) / std
        grid = self.grid(student)
        if grid == student:
            return x
        shape = (x.shape[0], *grid.size, grid.channels)
        return patchify(jax.image.resize(unpatchify(x, student), shape, "cubic"), grid)

    def __call__(
        self, params: Any, out: Mapping[str, Any], student: TokenGrid, mask: Mask | None
    ) -> dict[str, Any]:
        """Returns the outputs of the network; no gradient flows into them.

        Blocks behind the last one that somebody reads cost nothing: XLA drops them, if the network
        is unrolled (`scan=False`).

        Args:
          params: of the network.
          out: see `inputs`.
          student: geometry of the student's tokens.
          mask: of the student.
        """
        grid = self.grid(student)
        mask = mask if self.masked else None
        inputs = self.inputs(out, student)
        outputs: Any = self.network.apply({"params": params}, inputs, grid, mask)
        return jax.lax.stop_gradient(outputs)
