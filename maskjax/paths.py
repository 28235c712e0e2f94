"""Naming a tensor: in nested outputs "encoder.blocks.3", in trees of variables "encoder/cls"."""

from collections.abc import Mapping
from typing import Any

import jax

from maskjax.config import nearest
from maskjax.errors import UserError


def get_path(out: Any, path: str) -> Any:
    """Returns what a dotted path names in nested dicts, lists, arrays and structs.

    Args:
      out: nested outputs of a system.
      path: names and, for lists or a leading array axis, numbers (negative ones from the end).

    Raises:
      UserError: nothing has that name; the message lists what stands there.
    """
    here, seen = out, []
    for name in path.split("."):
        if isinstance(here, Mapping):
            if name not in here:
                known = [".".join([*seen, key]) for key in here]
                raise UserError(f"The system has no output '{path}'{nearest(path, known)}")
            here = here[name]
        elif name.lstrip("-").isdigit() and hasattr(here, "__getitem__"):
            index = int(name)
            if not -len(here) <= index < len(here):
                raise UserError(
                    f"The system has no output '{path}': there are {len(here)} of them."
                )
            here = here[index]
        elif hasattr(here, name) and not name.startswith("_"):
            here = getattr(here, name)
        else:
            raise UserError(f"The system has no output '{path}': '{'.'.join(seen)}' has no parts.")
        seen.append(name)
    return here


def leaf_name(path: tuple) -> str:
    """Returns the name of a leaf, "encoder/norm/scale", of its path as `jax.tree_util` gives it."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree: Any) -> dict[str, Any]:
    """Returns {name: leaf} of a tree, in its order."""
    return {leaf_name(p): leaf for p, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
