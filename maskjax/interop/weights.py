"""Weights from other programs into the variables of a system, and back."""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase as fnmatch
from typing import Any

import jax
import numpy as np

from maskjax.errors import UserError
from maskjax.interop.layouts import LAYOUTS
from maskjax.interop.positions import (
    check_resizing,
    read_positions,
    read_tables,
    written_positions,
)
from maskjax.interop.rows import KINDS, STATISTICS, Layout, Row
from maskjax.models.layers import chosen
from maskjax.paths import named_leaves
from maskjax.systems import System

Arrays = Mapping[str, np.ndarray]

_SHOWN = 6  # names in a message


def read_variables(
    system: System,
    variables: Mapping[str, Any],
    arrays: Arrays,
    layout: str,
    grid: tuple[int, ...] | None = None,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Puts weights of another program into the variables of a system.

    Args:
      system: with `grid` and an `encoder`.
      variables: its variables, arrays or shapes; networks that the layout lacks keep theirs.
      arrays: the weights by their names there.
      layout: a name of `LAYOUTS`.
      grid: tokens along each axis of the tables of positions in `arrays`, if they are others than
        here: the tables are then resized (`tokens.resize_table`). None: they have to be the same.

    Returns:
      The variables, those read float32, and the names of the networks that kept theirs.

    Raises:
      UserError: no such layout; names that are missing or left over; another shape; positions that
        this encoder does not have, or that cannot be resized.
    """
    table = _layout(system, layout)
    arrays = _renamed(arrays, table)
    known = _known(variables, table)
    leaves = named_leaves(known)
    used, values = set(), {}
    missing = [
        name for path in leaves for name in _names(table, path, leaves) if name not in arrays
    ]
    missing += [p.name for p in read_tables(system, table) if p.name not in arrays]
    if missing:
        raise UserError(
            f"The file lacks {_list(missing)}, which layout '{layout}' needs for this system: "
            "choose the configuration of the model in the file, or another --layout."
        )
    if grid is not None:
        check_resizing(system, table, leaves, grid)
    for path, leaf in leaves.items():
        if path == "encoder/positions":
            continue
        row, _ = _found(table, path)
        names = _names(table, path, leaves)
        used |= set(names)
        read, k, n = KINDS[row.kind][0], *row.part
        pieces = [read(np.split(np.asarray(arrays[x], np.float32), n)[k], ()) for x in names]
        value = np.stack(pieces) if "/blocks/" in path else pieces[0]
        if value.shape != tuple(leaf.shape):
            raise UserError(
                f"'{names[0]}' gives {path} the shape {value.shape}, but this system has "
                f"{tuple(leaf.shape)}: choose the configuration of the model in the file."
            )
        values[path] = value
    for positions in read_tables(system, table):
        if positions.network in known:
            used.add(positions.name)
            values |= read_positions(
                system, positions, arrays[positions.name], values, leaves, grid
            )
    left = [n for n in arrays if n not in used and not any(fnmatch(n, x) for x in table.unused)]
    if left:
        raise UserError(
            f"The file also has {_list(left)}, which have no place in this system: choose the "
            "configuration of the model in the file, or another --layout."
        )
    read_in = {name: _filled(tree, values, name) for name, tree in known.items()}
    params = variables["params"]
    result = {**variables, "params": {**params, **{n: read_in[n] for n in params if n in known}}}
    if STATISTICS in read_in:
        result[STATISTICS] = {**variables[STATISTICS], **read_in[STATISTICS]}
    return result, tuple(n for n in params if n not in known)


def write_variables(
    system: System, variables: Mapping[str, Any], layout: str
) -> dict[str, np.ndarray]:
    """Returns the variables of a system under the names of another program, float32.

    Args:
      system: with `grid` and an `encoder`.
      variables: its variables.
      layout: a name of `LAYOUTS`.

    Raises:
      UserError: no such layout; a network that the layout has and the system has not; parameters
        that the other program has no place for.
    """
    table = _layout(system, layout)
    if absent := [name for name in table.networks if name not in variables["params"]]:
        raise UserError(
            f"Layout '{layout}' is for models with {_list(absent)}, which this system lacks: "
            "choose another --layout."
        )
    leaves = named_leaves(_known(variables, table))
    names = {path: _names(table, path, leaves) for path in leaves}  # all have a place
    encoder: Any = getattr(system, "encoder", None)  # it has one: `_layout` refuses others
    extent = tuple(getattr(encoder, "patch_size", ()))
    parts: dict[str, dict[int, np.ndarray]] = {}
    for path, leaf in leaves.items():
        if path == "encoder/positions":
            continue
        row, _ = _found(table, path)
        values = np.asarray(jax.device_get(leaf), np.float32)
        for name, value in zip(
            names[path], values if "/blocks/" in path else values[None], strict=True
        ):
            parts.setdefault(name, {})[row.part[0]] = KINDS[row.kind][1](value, extent)
    written = {name: np.concatenate([p[k] for k in sorted(p)]) for name, p in parts.items()}
    for positions in read_tables(system, table):
        written[positions.name] = written_positions(system, positions, leaves)
    return {name: np.ascontiguousarray(value) for name, value in written.items()}


def _known(variables: Mapping[str, Any], table: Layout) -> dict[str, Any]:
    """Returns the trees that a layout describes: networks, and their statistics by themselves."""
    params, stats = variables["params"], variables.get(STATISTICS, {})
    known = {name: params[name] for name in table.networks if name in params}
    stats = {name: stats[name] for name in known if name in stats}
    return known | ({STATISTICS: stats} if stats else {})


def _layout(system: System, layout: str) -> Layout:
    table = chosen(LAYOUTS, layout, "--layout")
    if not hasattr(system, "grid") or not hasattr(system, "encoder"):
        raise UserError(
            f"Weights in layout '{layout}' are those of a masked autoencoder of one input; "
            f"{type(system).__name__} is another system."
        )
    return table


def _found(table: Layout, path: str) -> tuple[Row, str]:
    found = table.find(path)
    if found is None:
        raise UserError(
            f"The layout has no place for '{path}': another layout, or another network, is needed."
        )
    return found


def _names(table: Layout, path: str, leaves: Mapping[str, Any]) -> list[str]:
    """Returns the names there of an array here: one, or one for each block."""
    if path == "encoder/positions":
        return []
    _, name = _found(table, path)
    depth = leaves[path].shape[0] if "/blocks/" in path else 1
    return [name.format(i=i) for i in range(depth)] if "/blocks/" in path else [name]


def _filled(tree: Any, values: Mapping[str, np.ndarray], path: str) -> Any:
    if isinstance(tree, Mapping):
        return {name: _filled(part, values, f"{path}/{name}") for name, part in tree.items()}
    return values[path]


def _renamed(arrays: Arrays, table: Layout) -> dict[str, np.ndarray]:
    """Returns arrays under the names that the rows of a layout have.

    Raises:
      UserError: two arrays have one name then.
    """
    renamed: dict[str, np.ndarray] = {}
    for name, value in arrays.items():
        new = name
        for there, here in table.aliases.items():
            if new.startswith(there):
                new = here + new[len(there) :]
        if new in renamed:
            raise UserError(
                f"The file has '{new}' twice, once as '{name}': it holds a model that this layout "
                "does not describe."
            )
        renamed[new] = value
    return renamed


def _list(names: Iterable[str]) -> str:
    """Returns names for a message, blocks counted once: "blocks.{0-11}.norm1.weight"."""
    groups: dict[str, list[int]] = {}
    for name in dict.fromkeys(names):
        number = re.search(r"\.(\d+)\.", name)
        groups.setdefault(re.sub(r"\.\d+\.", ".*.", name, count=1), []).append(
            int(number[1]) if number else 0
        )
    shown = [
        name.replace("*", f"{min(i)}-{max(i)}" if len(i) > 1 else str(i[0]))
        for name, i in groups.items()
    ]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(f"'{name}'" for name in shown[:_SHOWN]) + more
