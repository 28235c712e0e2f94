"""Weights with fewer bits, for artefacts that are served: bfloat16, or int8 with scales."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.errors import UserError
from maskjax.paths import leaf_name, named_leaves

WEIGHTS = ("float32", "bfloat16", "int8")
_LARGEST = 127  # of int8; -128 is not used, so that the range is symmetric


class Int8(NamedTuple):
    """A matrix as int8 with a float32 scale for each of its outputs (symmetric, no zero point).

    Attributes:
      values: int8 [..., in, out].
      scale: float32, broadcastable to `values`.
    """

    values: np.ndarray
    scale: np.ndarray


def reduce_weights(variables: Any, weights: str) -> Any:
    """Returns variables whose kernels have fewer bits.

    Kernels (of linear layers and convolutions) are nearly all of the bytes; biases, norms, tokens
    and tables stay float32.

    Args:
      variables: tree of float32 arrays.
      weights: one of `WEIGHTS`.

    Returns:
      The tree with bfloat16 arrays or `Int8` in place of kernels, on the host.

    Raises:
      UserError: there is no such kind.
    """
    if weights not in WEIGHTS:
        raise UserError(f"--weights must be one of {', '.join(WEIGHTS)}, not '{weights}'.")

    def change(path: tuple, leaf: Any) -> Any:
        values, name = np.asarray(leaf), leaf_name(path)
        is_kernel = name.endswith("/kernel") and np.issubdtype(values.dtype, np.floating)
        if weights == "float32" or not is_kernel:
            return values
        return values.astype(jnp.bfloat16) if weights == "bfloat16" else _int8(name, values)

    return jax.tree_util.tree_map_with_path(change, variables)


def restore_weights(reduced: Any) -> Any:
    """Inverts `reduce_weights`, up to rounding: float32 again. Can be traced."""

    def change(leaf: Any) -> Any:
        if isinstance(leaf, Int8):
            return jnp.asarray(leaf.values).astype(jnp.float32) * leaf.scale
        return jnp.asarray(leaf).astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf

    return jax.tree.map(change, reduced, is_leaf=lambda leaf: isinstance(leaf, Int8))


def weight_files(reduced: Any) -> dict[str, np.ndarray]:
    """Returns {name: array} to save; int8 kernels are "…/kernel" and "…/kernel_scale"."""
    files = {}
    for name, leaf in named_leaves(reduced).items():
        if name.endswith("/kernel/values"):
            name = name.removesuffix("/values")
        elif name.endswith("/kernel/scale"):
            name = name.removesuffix("/scale") + "_scale"
        files[name] = leaf
    return files


def _int8(name: str, kernel: np.ndarray) -> Int8:
    """Divides each output by its largest weight; the blocks of a stack are scaled by themselves."""
    stacked = "/blocks/" in name and kernel.ndim > 2
    axes = tuple(range(int(stacked), kernel.ndim - 1))
    largest = np.abs(kernel).max(axis=axes, keepdims=True)
    scale = np.where(largest > 0, largest / _LARGEST, 1.0).astype(np.float32)
    values = np.clip(np.rint(kernel / scale), -_LARGEST, _LARGEST).astype(np.int8)
    return Int8(values, scale)
