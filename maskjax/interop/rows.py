"""What a layout, the names and shapes that another program has for weights, is made of.

A layout is a table. Each row says what a module (or a single array) is called elsewhere, and which
of a few kinds it is; a kind knows how to turn an array round, either way. Nothing here depends on
sizes, so a layout holds for every network of its family.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np

Extent = tuple[int, ...]

STATISTICS = "stats"  # begins the paths of running statistics


@dataclasses.dataclass(frozen=True)
class Row:
    """A module or an array here and elsewhere.

    Attributes:
      path: here, e.g. "encoder/stack/blocks/mlp/up"; under `blocks` arrays are stacked by block.
        Running statistics have their own tree: "stats/encoder/embed/first_norm/mean".
      name: there; "{i}" is the number of the block.
      kind: a name of `KINDS`.
      part: (k, n) if the array here is the k-th of n equal parts, along the first axis, of the one
        there, as query, key and value often are.
    """

    path: str
    name: str
    kind: str
    part: tuple[int, int] = (0, 1)


@dataclasses.dataclass(frozen=True)
class Positions:
    """A table of positions elsewhere.

    Attributes:
      network: whose it is here, "encoder" or "decoder".
      name: there, [1, N, D] or [1, 1 + N, D].
      class_token: whether it has a row for the class token, which is first. It is added to the
        class token here, since nothing but their sum is ever seen.
      optional: whether there are models of the family without it.
    """

    network: str
    name: str
    class_token: bool = True
    optional: bool = False


@dataclasses.dataclass(frozen=True)
class Layout:
    """The names of one family of models.

    Attributes:
      rows: see `Row`.
      positions: see `Positions`.
      aliases: {beginning of a name in some files: the same as the rows have it}.
      unused: patterns (`fnmatch`) of names that have no counterpart here and may be left out.
    """

    rows: tuple[Row, ...]
    positions: tuple[Positions, ...] = ()
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unused: tuple[str, ...] = ()

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that the layout describes, e.g. ("encoder", "decoder")."""
        names = (row.path.split("/")[0] for row in self.rows)
        return tuple(name for name in dict.fromkeys(names) if name != STATISTICS)

    @functools.cached_property
    def _by_path(self) -> dict[str, Row]:
        return {row.path: row for row in self.rows}

    def find(self, path: str) -> tuple[Row, str] | None:
        """Returns the row of an array here, and its name there; None: it has no place."""
        rows = self._by_path
        if path in rows:
            return rows[path], rows[path].name
        module, _, leaf = path.rpartition("/")
        suffix = {"kernel": "weight", "scale": "weight", "bias": "bias"}.get(leaf)
        if module not in rows or suffix is None:
            return None
        return rows[module], f"{rows[module].name}.{suffix}"


def _same(x: np.ndarray, extent: Extent) -> np.ndarray:
    del extent
    return x


def _matrix(x: np.ndarray, extent: Extent) -> np.ndarray:
    """[in, out] and [out, in]; biases and norms stay."""
    del extent
    return x.T if x.ndim == 2 else x


def _from_points(x: np.ndarray, extent: Extent) -> np.ndarray:
    """[out, in, 1], a convolution over single points, -> [in, out]; biases stay."""
    del extent
    return x[:, :, 0].T if x.ndim == 3 else x


def _to_points(x: np.ndarray, extent: Extent) -> np.ndarray:
    """Inverts `_from_points`."""
    del extent
    return x.T[:, :, None] if x.ndim == 2 else x


def _from_convolution(x: np.ndarray, extent: Extent) -> np.ndarray:
    """[D, C, *patch] -> [prod(patch) * C, D], channel fastest; a bias stays."""
    del extent
    return x if x.ndim == 1 else np.moveaxis(x, (0, 1), (-1, -2)).reshape(-1, x.shape[0])


def _to_convolution(x: np.ndarray, extent: Extent) -> np.ndarray:
    """Inverts `_from_convolution` for patches of `extent`."""
    if x.ndim == 1:
        return x
    return np.moveaxis(x.reshape(*extent, -1, x.shape[-1]), (-1, -2), (0, 1))


def _flat(x: np.ndarray, extent: Extent) -> np.ndarray:
    del extent
    return x.reshape(-1)


def _token(x: np.ndarray, extent: Extent) -> np.ndarray:
    del extent
    return x.reshape(1, 1, -1)


Turn = Callable[[np.ndarray, Extent], np.ndarray]

# By kind: from there, and back. Both get the array and the extent of a patch.
KINDS: dict[str, tuple[Turn, Turn]] = {
    "dense": (_matrix, _matrix),
    "norm": (_same, _same),
    "array": (_same, _same),
    "points": (_from_points, _to_points),
    "patches": (_from_convolution, _to_convolution),
    "token": (_flat, _token),  # [D] here, [1, 1, D] there
}
