"""Point clouds as an input, their augmentation, and digits as point clouds."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.data.digits import Digits
from maskjax.errors import UserError

_VOXELS = 8  # along each axis, of the baseline
_AXES = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}  # the plane that a rotation about an axis turns


@dataclasses.dataclass(frozen=True)
class PointAugment:
    """How training clouds are varied: turned, scaled, moved, in this order, on the device.

    The defaults are Point-MAE's pretraining (Pang et al., 2022). Every cloud has its own draws.

    Attributes:
      rotate: greatest angle in degrees, uniform in [-rotate, rotate].
      axis: "x", "y" or "z", about which it is turned.
      scale: least and greatest factor, uniform, drawn for each axis.
      shift: greatest movement along each axis, uniform in [-shift, shift].

    Raises:
      UserError: a value that has no meaning.
    """

    rotate: float = 0.0
    axis: str = "y"
    scale: tuple[float, float] = (2 / 3, 3 / 2)
    shift: float = 0.2

    def __post_init__(self) -> None:
        if self.axis not in _AXES:
            raise UserError(f"augment.axis is x, y or z, not '{self.axis}'.")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise UserError(
                f"augment.scale is {self.scale}: give the least and the greatest factor, both "
                "positive."
            )
        if self.rotate < 0 or self.shift < 0:
            raise UserError(
                f"augment.rotate is {self.rotate} and augment.shift {self.shift}: give 0 or more."
            )

    def __call__(self, rng: jax.Array, points: jax.Array) -> jax.Array:
        """float [B, P, 3] -> float32 [B, P, 3]. Pure."""
        keys = jax.random.split(rng, points.shape[0])
        return jax.vmap(self._one)(keys, points.astype(jnp.float32))

    def on_host(self, rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
        """float32 [P, 3] -> float32 [P, 3] by NumPy, with draws of its own."""
        points = points.copy()
        if self.rotate:
            angle = math.radians(rng.uniform(-self.rotate, self.rotate))
            a, b = points[:, list(_AXES[self.axis])].T
            turned = (
                math.cos(angle) * a - math.sin(angle) * b,
                math.sin(angle) * a + math.cos(angle) * b,
            )
            points[:, list(_AXES[self.axis])] = np.stack(turned, axis=1)
        points *= rng.uniform(*self.scale, (1, 3)).astype(np.float32)
        return points + rng.uniform(-self.shift, self.shift, (1, 3)).astype(np.float32)

    def _one(self, key: jax.Array, points: jax.Array) -> jax.Array:
        turn, stretch, move = jax.random.split(key, 3)
        if self.rotate:
            angle = jax.random.uniform(turn, (), minval=-1.0) * math.radians(self.rotate)
            i, j = _AXES[self.axis]
            a, b = points[:, i], points[:, j]
            points = points.at[:, i].set(jnp.cos(angle) * a - jnp.sin(angle) * b)
            points = points.at[:, j].set(jnp.sin(angle) * a + jnp.cos(angle) * b)
        low, high = self.scale
        factor = jax.random.uniform(stretch, (1, 3), minval=low, maxval=high)
        offset = jax.random.uniform(move, (1, 3), minval=-1.0) * self.shift
        return points * factor + offset


def unit_ball(points: np.ndarray, centre: bool = True, scale: bool = True) -> np.ndarray:
    """Centres clouds on their mean, then divides them by their largest norm: [..., P, 3]."""
    points = np.asarray(points, np.float32)
    if centre:
        points = points - points.mean(axis=-2, keepdims=True)
    if scale:
        radius = np.linalg.norm(points, axis=-1).max(axis=-1)[..., None, None]
        points = points / np.maximum(radius, np.float32(1e-9))
    return points


@dataclasses.dataclass(frozen=True)
class Points:
    """Clouds of a fixed number of points. Records give float [n, 3 or more] with any n.

    Of more points, `count` are drawn without replacement; of fewer, all, and some again. In
    evaluation they are taken evenly along the record. What follows the three coordinates is left
    out. Centring and scaling come after the choice, as in Point-MAE.

    Attributes:
      count: P, points that the model sees.
      centre: whether the mean of the points is moved to the origin.
      scale: whether the cloud is divided by its largest norm, so that it fills the unit ball.
      augment: of training clouds.
      optional: whether records may lack it.
      eval_votes: how often evaluation sees a cloud. 1: once, as said above. Else each time with
        points and augmentation drawn anew, as in training; the draws are the same for all clouds.

    Raises:
      UserError: a count or a number of votes below 1.
    """

    count: int = 1024
    centre: bool = True
    scale: bool = True
    augment: PointAugment = PointAugment()
    optional: bool = False
    eval_votes: int = 1

    view = "points"
    channels = 3
    dtype = np.dtype(np.float32)

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or self.count < 1:
            raise UserError(f"The count of points is {self.count}: give a positive whole number.")
        if self.eval_votes < 1:
            raise UserError(f"The points have {self.eval_votes} eval_votes: give 1 or more.")

    @property
    def views(self) -> int:
        """How often evaluation sees a cloud."""
        return self.eval_votes

    @property
    def size(self) -> tuple[int]:
        """(P,)."""
        return (self.count,)

    def shape(self, train: bool) -> tuple[int, ...]:
        """Returns (P, 3)."""
        del train
        return (self.count, 3)

    def read(self, value: Any, rng: np.random.Generator | None) -> np.ndarray:
        """float [n, 3 or more] -> float32 [P, 3].

        Raises:
          UserError: the values are no points.
          ValueError: a cloud without points, or with coordinates that are not finite.
        """
        value = np.asarray(value)
        if value.ndim != 2 or value.shape[1] < 3:
            raise UserError(
                f"A cloud has the shape {list(value.shape)}: data.Points needs [points, 3] or more "
                "columns, x, y and z first."
            )
        n = len(value)
        if not n:
            raise ValueError("the cloud has no points")
        if rng is None:
            index = np.arange(self.count) * n // self.count
        else:
            index = rng.permutation(n)[: self.count]
            index = np.concatenate([index, rng.integers(n, size=self.count - len(index))])
        points = value[index, :3].astype(np.float32)
        if not np.isfinite(points).all():
            raise ValueError("the cloud has coordinates that are not finite")
        return unit_ball(points, self.centre, self.scale)

    def read_view(self, value: Any, view: int) -> np.ndarray:
        """float [n, 3 or more] -> float32 [P, 3], augmented: vote number `view`.

        Raises:
          UserError, ValueError: as `read`.
        """
        rng = np.random.default_rng(view)
        return self.augment.on_host(rng, self.read(value, rng))

    def on_device(self, rng: jax.Array, values: jax.Array) -> jax.Array:
        """float32 [B, P, 3] -> float32 [B, P, 3], augmented."""
        return self.augment(rng, values)

    def normalise(self, values: jax.Array) -> jax.Array:
        """The coordinates as they are: `read` has centred and scaled them before augmentation."""
        return jnp.asarray(values, jnp.float32)

    def denormalise(self, view: jax.Array) -> jax.Array:
        """The coordinates as they are."""
        return jnp.asarray(view, jnp.float32)

    def raw(self, values: np.ndarray) -> np.ndarray:
        """float32 [B, P, 3] -> float32 [B, 512]: log(1 + points) in 8 x 8 x 8 voxels.

        The voxels divide the cube around the ball that a cloud fills after centring and scaling.
        Coordinates in the order of the points would depend on that order.
        """
        cells = (unit_ball(values) + 1) * (_VOXELS / 2)
        cells = np.clip(cells.astype(np.int64), 0, _VOXELS - 1)
        flat = (cells[..., 0] * _VOXELS + cells[..., 1]) * _VOXELS + cells[..., 2]
        counts = np.stack([np.bincount(row, minlength=_VOXELS**3) for row in flat])
        return np.log1p(counts).astype(np.float32)

    def accept(self, values: Any) -> None:
        """Wants [B, P, 3] that was centred and scaled by `unit_ball`; P may differ from `count`."""
        if values.ndim != 3 or values.shape[-1] != 3:
            raise UserError(f"Points have the shape [B, P, 3] here, not {tuple(values.shape)}.")
        radius = float(np.linalg.norm(np.asarray(values), axis=-1).max(initial=0.0))
        if self.scale and radius > 1.01:
            raise UserError(
                f"Points lie in the unit ball here, but one is {radius:.3g} from the origin: apply "
                "maskjax.data.unit_ball to the clouds first."
            )


@dataclasses.dataclass(frozen=True)
class DigitPoints:
    """The handwritten digits of scikit-learn as clouds; a real source that needs no download.

    Points fall on pixels with a probability proportional to their intensity, uniform within the
    pixel; the third coordinate is the intensity, so that a digit is a relief. A record is always
    the same cloud.

    Attributes:
      count: points of a record.
      height: third coordinate of the brightest pixels, where a digit is 1 wide.

    Splits: those of `Digits`.
    """

    count: int = 512
    height: float = 0.2

    def open(self, split: str) -> "DigitPointRecords":
        """Opens a split.

        Raises:
          UserError: there is no such split, or scikit-learn is not installed.
        """
        return DigitPointRecords(Digits().open(split), self.count, self.height)


@dataclasses.dataclass(frozen=True)
class DigitPointRecords:
    """Records of `DigitPoints`: `points` float32 [count, 3] and `label`."""

    digits: Any
    count: int
    height: float

    @property
    def num_classes(self) -> int:
        """Ten."""
        return self.digits.num_classes

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the digits."""
        return self.digits.label_names

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = self.digits[i]
        intensity = record["image"][..., 0].astype(np.float64) / 255
        rows, columns = intensity.shape
        rng = np.random.default_rng(i)
        pixels = rng.choice(intensity.size, self.count, p=intensity.ravel() / intensity.sum())
        within = rng.random((self.count, 2))
        x = (pixels % columns + within[:, 0]) / columns
        y = 1 - (pixels // columns + within[:, 1]) / rows  # upwards
        z = self.height * intensity.ravel()[pixels]
        points = np.stack([x, y, z], axis=1).astype(np.float32)
        return {"points": points, "label": record["label"]}

    def describe(self, i: int) -> str:
        """Returns the number and split of a record."""
        return self.digits.describe(i)
