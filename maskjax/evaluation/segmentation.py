"""Dense probes: segmentation from frozen patch tokens, linear and by nearest neighbours."""

import abc
import dataclasses
import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from maskjax.errors import UserError
from maskjax.evaluation.features import Features, OfFeatures, check_finite
from maskjax.evaluation.linear import moments
from maskjax.evaluation.neighbours import nearest
from maskjax.evaluation.overlap import confusion, overlap

_WARMUP = 1500 / 40_000  # share of the steps, as in DINOv2
_BATCH = 16  # images whose maps are predicted at once


@dataclasses.dataclass(frozen=True)
class _OfMaps(OfFeatures, abc.ABC):
    """What probes of tokens by maps of classes share.

    Tokens lie on a regular grid with square patches in the pixels of the map, so their number and
    the size of the map tell the grid. Scores of the classes are made for tokens, enlarged to the
    map's size (bilinear, half-pixel centres) and compared there, pixel by pixel.

    Attributes:
      classes: C; classes are 0 to C - 1.
      feature: path of the patch tokens in the output of `encode`, [B, N, D].
      labels: path of the maps, `batch.NAME` of an input `data.ClassMap`, int32 [B, H, W, 1].
      ignore_label: value of pixels that count neither in fitting nor in the figures.
    """

    classes: int
    feature: str = "encoder.patches"
    labels: str = "batch.map"
    ignore_label: int = 255

    needs_labels = False  # one of the whole example
    tokens = True
    baselines = ("random",)  # raw pixels are no tokens

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise UserError(f"{type(self).__name__} needs at least two classes.")

    @property
    def paths(self) -> tuple[str, ...]:
        """What it reads: tokens and maps."""
        return (self.feature, self.labels)

    def __call__(
        self, train: Mapping[str, Features], test: Mapping[str, Features]
    ) -> dict[str, float]:
        """Returns `miou`, `pixel_accuracy` and `class_accuracy` on the test maps, see `overlap`.

        Raises:
          UserError: features that are no tokens on a grid, or maps that do not fit them or have
            other classes.
        """
        splits = [self._split(name, each) for name, each in (("train", train), ("test", test))]
        (known, maps), (asked, truth) = splits
        counts = np.zeros((self.classes, self.classes), np.int64)
        for rows, predicted in self._predict(known, maps, asked, truth.shape[1:]):
            counts += confusion(truth[rows], predicted, self.classes)
        return overlap(counts)

    @abc.abstractmethod
    def _predict(
        self, known: Features, maps: np.ndarray, asked: Features, size: tuple[int, int]
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Yields rows of the test examples and their predicted maps, int [rows, *size]."""

    def _split(self, name: str, split: Mapping[str, Features]) -> tuple[Features, np.ndarray]:
        """Returns tokens [n, N, D] and maps int32 [n, H, W] with -1 for what does not count."""
        tokens, maps = split[self.feature], split[self.labels].values
        if maps.ndim != 4 or maps.shape[-1] != 1 or maps.dtype.kind != "i":
            raise UserError(
                f"'{self.labels}' has the shape {maps.shape} and the type {maps.dtype}, but has to "
                "be a map of classes: name an input data.ClassMap."
            )
        if tokens.values.ndim != 3:
            raise UserError(
                f"'{self.feature}' has the shape {tokens.values.shape}, but segmentation reads "
                "tokens: choose e.g. encoder.patches."
            )
        check_finite(tokens.values, name)
        grid(tokens.values.shape[1], maps.shape[1:3])
        maps = np.where(maps[..., 0] == self.ignore_label, -1, maps[..., 0])
        if maps.max(initial=-1) >= self.classes or maps.min(initial=0) < -1:
            raise UserError(
                f"The {name} maps have classes from {maps.min()} to {maps.max()}, but "
                f"{type(self).__name__} was told {self.classes} (and to ignore "
                f"{self.ignore_label}): set its classes and ignore_label."
            )
        if not (maps >= 0).any():
            raise UserError(f"No pixel of the {name} maps has a class: check ignore_label.")
        return tokens, maps


@dataclasses.dataclass(frozen=True)
class LinearSegmentation(_OfMaps):
    """A linear layer on every token, trained on the pixels of the map.

    The linear evaluation of DINOv2 (Oquab et al., 2024, arXiv 2304.07193, section 7.4) on one layer
    of features: cross-entropy of the enlarged logits, all labelled pixels of a batch weighing the
    same, by AdamW with a linear warm-up and a linear decay of the rate. Instead of a BatchNorm
    before the layer, features are standardised by the training tokens, and there is no
    augmentation, since they are computed once.

    Attributes:
      steps: of the training.
      batch_size: images a step.
      learning_rate: the highest.
      weight_decay: per unit of learning rate, of weights and bias.
      seed: of the order of the examples.
    """

    steps: int = 2000
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.steps, self.batch_size) < 1 or self.learning_rate <= 0:
            raise UserError(
                "LinearSegmentation needs steps and a batch_size of at least 1 and a "
                "learning_rate above 0."
            )

    def _predict(
        self, known: Features, maps: np.ndarray, asked: Features, size: tuple[int, int]
    ) -> Iterator[tuple[slice, np.ndarray]]:
        scale = moments(known.values.reshape(-1, known.values.shape[-1]))
        params = self._fit(known.values, maps, scale)
        for rows, tokens in _pieces(asked.values):
            yield (
                rows,
                np.asarray(_linear_map(params, scale, tokens, size))[: rows.stop - rows.start],
            )

    def _fit(self, values: np.ndarray, maps: np.ndarray, scale: Any) -> Any:
        """Returns {"weights": [D, C], "bias": [C]} of the last step."""
        warmup = max(1, round(_WARMUP * self.steps))
        course = optax.join_schedules(
            [
                optax.linear_schedule(0.0, self.learning_rate, warmup),
                optax.linear_schedule(self.learning_rate, 0.0, max(1, self.steps - warmup)),
            ],
            [warmup],
        )
        optimizer = optax.adamw(course, weight_decay=self.weight_decay)
        # The problem is convex: where it starts does not matter.
        params = {
            "weights": jnp.zeros((values.shape[-1], self.classes)),
            "bias": jnp.zeros(self.classes),
        }

        @partial(jax.jit, donate_argnums=0)
        def step(carry: Any, tokens: jax.Array, truth: jax.Array) -> Any:
            def loss(params: Any) -> jax.Array:
                logits = _enlarged(_logits(params, scale, tokens), truth.shape[1:])
                losses = optax.softmax_cross_entropy_with_integer_labels(
                    logits, jnp.maximum(truth, 0)
                )
                counts = truth >= 0
                return jnp.where(counts, losses, 0.0).sum() / jnp.maximum(counts.sum(), 1)

            params, moments = carry
            updates, moments = optimizer.update(jax.grad(loss)(params), moments, params)
            return optax.apply_updates(params, updates), moments

        carry, rng = (params, optimizer.init(params)), np.random.default_rng(self.seed)
        size, order = min(self.batch_size, len(values)), np.zeros(0, np.int64)
        for _ in range(self.steps):
            if len(order) < size:  # what is left of an epoch begins the next one
                order = np.concatenate([order, rng.permutation(len(values))])
            chosen, order = np.sort(order[:size]), order[size:]
            carry = step(carry, values[chosen], maps[chosen])
        return carry[0]


@dataclasses.dataclass(frozen=True)
class KNNSegmentation(_OfMaps):
    """Segmentation by the labels of the nearest training tokens; nothing is fitted.

    The protocol of Hummingbird (Balazevic et al., 2023, arXiv 2306.01667): a training token stands
    for the shares of the classes among its pixels; a test token gets the mean of the k most similar
    ones, weighted by the softmax of cosine / T. Here every training token with a labelled pixel is
    kept, none is drawn, and training images are not augmented.

    Attributes:
      k: number of neighbours; a smaller training set gives all its tokens.
      temperature: T.
    """

    k: int = 30
    temperature: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1 or not self.temperature > 0:
            raise UserError("KNNSegmentation needs k of at least 1 and a temperature above 0.")

    def _predict(
        self, known: Features, maps: np.ndarray, asked: Features, size: tuple[int, int]
    ) -> Iterator[tuple[slice, np.ndarray]]:
        n, tokens, width = asked.values.shape
        shares = token_shares(maps, known.values.shape[1], self.classes).reshape(-1, self.classes)
        labelled = shares.any(axis=1)
        shares, values = shares[labelled], known.values.reshape(-1, width)[labelled]
        k = min(self.k, len(values))
        queries = asked.values.reshape(-1, width)
        similarities, rows = nearest(values, queries, k, known.mesh)
        similarities, rows = (x.reshape(n, tokens, k) for x in (similarities, rows))
        for piece, near in _pieces(similarities):
            count = piece.stop - piece.start
            names = np.zeros((len(near), tokens, k, self.classes), np.float32)
            names[:count] = shares[rows[piece]]
            predicted = _voted_map(near, names, self.temperature, size)
            yield piece, np.asarray(predicted)[:count]


def grid(tokens: int, size: tuple[int, ...]) -> tuple[int, int]:
    """Returns rows and columns of tokens whose patches are square in the pixels of a map.

    Args:
      tokens: N.
      size: height and width of the map.

    Raises:
      UserError: there is no such grid.
    """
    rows = round(math.sqrt(tokens * size[0] / size[1]))
    columns = tokens // max(rows, 1)
    if rows * columns != tokens or size[0] * columns != size[1] * rows or size[0] % rows:
        raise UserError(
            f"{tokens} tokens cannot lie on a map of {size[0]} x {size[1]} pixels with square "
            "patches of whole pixels: read patch tokens without a class token, and maps of the "
            "image's shape."
        )
    return rows, columns


def token_shares(maps: np.ndarray, tokens: int, classes: int) -> np.ndarray:
    """Returns the shares of the classes among the labelled pixels of each token.

    Args:
      maps: int [n, H, W]; negative values are not labelled.
      tokens: N.
      classes: C.

    Returns:
      float32 [n, N, C] with sum 1, or zeros where a token has no labelled pixel.
    """
    n, height, width = maps.shape
    rows, columns = grid(tokens, (height, width))
    blocks = maps.reshape(n, rows, height // rows, columns, width // columns)
    counts = np.stack([(blocks == c).sum(axis=(2, 4)) for c in range(classes)], axis=-1)
    counts = counts.reshape(n, tokens, classes).astype(np.float32)
    return counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)


def _pieces(values: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields rows and their values, padded with zeros to one size."""
    size = min(_BATCH, len(values))
    for start in range(0, len(values), size):
        rows = slice(start, min(start + size, len(values)))
        padding = [(0, start + size - rows.stop)] + [(0, 0)] * (values.ndim - 1)
        yield rows, np.pad(values[rows], padding)


def _enlarged(scores: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Brings the scores of tokens [B, N, C] to the size of a map: [B, H, W, C]."""
    b, n, c = scores.shape
    scores = scores.reshape(b, *grid(n, size), c)
    return jax.image.resize(scores, (b, *size, c), "bilinear", antialias=False)


def _logits(params: Any, scale: Any, tokens: jax.Array) -> jax.Array:
    """[B, N, D] -> [B, N, C]."""
    mean, std = (x[None, None, :] for x in scale)
    logits = jnp.matmul((tokens - mean) / std, params["weights"], precision="highest")
    return logits + params["bias"][None, None, :]


@partial(jax.jit, static_argnums=3)
def _linear_map(params: Any, scale: Any, tokens: jax.Array, size: tuple[int, int]) -> jax.Array:
    return _enlarged(_logits(params, scale, tokens), size).argmax(axis=-1)


@partial(jax.jit, static_argnums=3)
def _voted_map(
    similarities: jax.Array, shares: jax.Array, temperature: float, size: tuple[int, int]
) -> jax.Array:
    """Similarities [B, N, k] and shares of classes [B, N, k, C] -> map [B, *size]."""
    weights = jax.nn.softmax(similarities / temperature, axis=-1)
    return _enlarged((weights[..., None] * shares).sum(axis=2), size).argmax(axis=-1)
