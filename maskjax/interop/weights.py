"""Weights from other programs into the variables of a system, and back."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from maskjax.errors import UserError
from maskjax.interop.layouts import KINDS, LAYOUTS, Layout, Positions, Row
from maskjax.models.layers import chosen
from maskjax.paths import named_leaves
from maskjax.systems import System
from maskjax.tokens import TokenGrid, sincos

Arrays = Mapping[str, np.ndarray]

_SHOWN = 6  # names in a message
_SAME = 1e-4  # two tables of positions are equal; the reference tables are rounded differently


def read_params(
    system: System, params: Any, arrays: Arrays, layout: str
) -> tuple[Any, tuple[str, ...]]:
    """Puts weights of another program into the parameters of a system.

    Args:
      system: with `grid` and an `encoder`.
      params: its parameters, arrays or shapes; networks that the layout lacks keep theirs.
      arrays: the weights by their names there.
      layout: a name of `LAYOUTS`.

    Returns:
      The parameters, float32, and the names of the networks that kept theirs.

    Raises:
      UserError: no such layout; names that are missing or left over; another shape; positions that
        this encoder does not have.
    """
    table = _layout(system, layout)
    arrays = {_renamed(name, table): value for name, value in arrays.items()}
    known = {n: params[n] for n in table.networks if n in params}
    leaves = named_leaves(known)
    used, values = set(), {}
    missing = [
        name for path in leaves for name in _names(table, path, leaves) if name not in arrays
    ]
    missing += [p.name for p in _tables(system, table) if p.name not in arrays]
    if missing:
        raise UserError(
            f"The file lacks {_list(missing)}, which layout '{layout}' needs for this system: "
            "choose the configuration of the model in the file, or another --layout."
        )
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
    for positions in table.positions:
        if positions.network in known:
            used.add(positions.name)
            _read_positions(system, positions, arrays[positions.name], values, leaves)
    left = [n for n in arrays if n not in used and not n.startswith(table.unused or ("\0",))]
    if left:
        raise UserError(
            f"The file also has {_list(left)}, which have no place in this system: choose the "
            "configuration of the model in the file, or another --layout."
        )
    read_in = {n: _filled(known[n], values, n) for n in known}
    return {**params, **read_in}, tuple(n for n in params if n not in known)


def write_params(system: System, params: Any, layout: str) -> dict[str, np.ndarray]:
    """Returns the parameters of a system under the names of another program, float32.

    Args:
      system: with `grid` and an `encoder`.
      params: its parameters.
      layout: a name of `LAYOUTS`.

    Raises:
      UserError: no such layout; a network that the layout has and the system has not; parameters
        that the other program has no place for.
    """
    table = _layout(system, layout)
    if absent := [name for name in table.networks if name not in params]:
        raise UserError(
            f"Layout '{layout}' is for models with {_list(absent)}, which this system lacks: "
            "choose another --layout."
        )
    leaves = named_leaves({name: params[name] for name in table.networks})
    names = {path: _names(table, path, leaves) for path in leaves}  # all have a place
    encoder: Any = getattr(system, "encoder", None)  # it has one: `_layout` refuses others
    parts: dict[str, dict[int, np.ndarray]] = {}
    for path, leaf in leaves.items():
        if path == "encoder/positions":
            continue
        row, _ = _found(table, path)
        values = np.asarray(jax.device_get(leaf), np.float32)
        for name, value in zip(
            names[path], values if "/blocks/" in path else values[None], strict=True
        ):
            value = KINDS[row.kind][1](value, tuple(encoder.patch_size))
            parts.setdefault(name, {})[row.part[0]] = value
    written = {name: np.concatenate([p[k] for k in sorted(p)]) for name, p in parts.items()}
    for positions in table.positions:
        rows = _position_table(system, positions, leaves)
        if positions.class_token:
            rows = np.pad(rows, ((1, 0), (0, 0)))
        written[positions.name] = rows[None]
    return {name: np.ascontiguousarray(value) for name, value in written.items()}


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


def _tables(system: System, table: Layout) -> Iterable[Positions]:
    return [p for p in table.positions if hasattr(system, p.network)]


def _read_positions(
    system: Any, positions: Positions, rows: np.ndarray, values: dict, leaves: Mapping[str, Any]
) -> None:
    """Learned positions become a parameter; fixed ones have to be those that are computed here."""
    rows = np.asarray(rows, np.float32).reshape(-1, rows.shape[-1])
    if positions.class_token:
        first, rows = rows[0], rows[1:]
        if positions.network == "encoder":
            values["encoder/cls"] = values["encoder/cls"] + first
        elif np.abs(first).max() > 0:
            raise UserError(
                f"'{positions.name}' moves the class token of the decoder, which has no such "
                "parameter here: the file holds another model."
            )
    grid: TokenGrid = system.grid
    if len(rows) != grid.num_tokens:
        raise UserError(
            f"'{positions.name}' is for {len(rows)} tokens, but this system has {grid.num_tokens}: "
            "set the size of the input to that of the model in the file."
        )
    if f"{positions.network}/positions" in leaves:
        values[f"{positions.network}/positions"] = rows
    elif np.abs(rows - sincos(grid.shape, rows.shape[1])).max() > _SAME:
        raise UserError(
            f"'{positions.name}' is not the sine-cosine table that this {positions.network} "
            "computes: set system.encoder.positions='learned'."
        )


def _position_table(system: Any, positions: Positions, leaves: Mapping[str, Any]) -> np.ndarray:
    """Returns the positions of a network, float32 [N, D]."""
    learned = leaves.get(f"{positions.network}/positions")
    if learned is not None:
        return np.asarray(jax.device_get(learned), np.float32)
    network = getattr(system, positions.network)
    if getattr(network, "positions", "sincos") != "sincos":
        raise UserError(
            f"Positions of the kind '{network.positions}' have no place in this layout: only "
            "'sincos' and 'learned' have."
        )
    return sincos(system.grid.shape, network.width)


def _filled(tree: Any, values: Mapping[str, np.ndarray], path: str) -> Any:
    if isinstance(tree, Mapping):
        return {name: _filled(part, values, f"{path}/{name}") for name, part in tree.items()}
    return values[path]


def _renamed(name: str, table: Layout) -> str:
    for there, here in table.aliases.items():
        if name.startswith(there):
            return here + name[len(there) :]
    return name


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
