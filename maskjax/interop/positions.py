"""Tables of positions in weights of other programs: which there are, resizing, both ways."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from maskjax.errors import UserError
from maskjax.interop.rows import Layout, Positions
from maskjax.tokens import TokenGrid, resize_table, sincos

Arrays = Mapping[str, np.ndarray]

_SAME = 1e-4  # two tables of positions are equal; the reference tables are rounded differently


def read_tables(system: Any, layout: Layout) -> list[Positions]:
    """Returns the tables that a file of this layout has for this system."""
    return [
        p
        for p in layout.positions
        if hasattr(system, p.network)
        and not (p.optional and getattr(system, p.network).positions == "none")
    ]


def check_resizing(
    system: Any, layout: Layout, leaves: Mapping[str, Any], grid: tuple[int, ...]
) -> None:
    """Raises a UserError if tables of this grid cannot become those of the system.

    Args:
      system: with `grid`.
      layout: of the file.
      leaves: {path: parameter} of the system.
      grid: tokens along each axis in the file.
    """
    here, shown = system.grid.shape, _shown(grid)
    if related := [path for path in leaves if "relative_bias" in path]:
        if tuple(grid) != here:
            raise UserError(
                f"'{related[0]}' is a table of relative positions, which is not resized: take the "
                f"size of input of the model in the file, {shown} tokens, and leave out "
                "--positions_grid."
            )
    elif not read_tables(system, layout):
        raise UserError(
            "There is no table of positions to resize in a file of this layout: leave out "
            "--positions_grid."
        )
    if len(grid) != len(here) or min(grid) < 1:
        raise UserError(
            f"--positions_grid is {shown}, but the tokens of this system lie along {len(here)} "
            f"axes, {_shown(here)}: give as many positive numbers."
        )


def read_positions(
    system: Any,
    positions: Positions,
    rows: np.ndarray,
    values: Arrays,
    leaves: Mapping[str, Any],
    old: tuple[int, ...] | None,
) -> dict[str, np.ndarray]:
    """Learned positions become a parameter; fixed ones have to be those that are computed here.

    Args:
      system: with `grid`.
      positions: which table.
      rows: it, [1, N, D] or [1, 1 + N, D].
      values: {path: array} of what was read before.
      leaves: {path: parameter} of the system.
      old: the grid of the table; None: that of the system.

    Returns:
      {path: array} to be put into `values`.

    Raises:
      UserError: another number of tokens, or positions that the network here does not have.
    """
    new = {}
    rows = np.asarray(rows, np.float32).reshape(-1, rows.shape[-1])
    if positions.class_token:
        first, rows = rows[0], rows[1:]
        if positions.network == "encoder":
            new["encoder/cls"] = values["encoder/cls"] + first
        elif np.abs(first).max() > 0:
            raise UserError(
                f"'{positions.name}' moves the class token of the decoder, which has no such "
                "parameter here: the file holds another model."
            )
    grid: TokenGrid = system.grid
    if len(rows) != math.prod(old or grid.shape):
        whose = f"--positions_grid={_shown(old)}" if old else "this system"
        raise UserError(
            f"'{positions.name}' is for {len(rows)} tokens, but {whose} has "
            f"{math.prod(old or grid.shape)}: set the size of the input to that of the model in "
            "the file, or --positions_grid to the tokens along each axis there."
        )
    resized = old is not None and tuple(old) != grid.shape
    if resized:
        rows = np.asarray(resize_table(rows, old, grid.shape))
    if f"{positions.network}/positions" in leaves:
        return new | {f"{positions.network}/positions": rows}
    if np.abs(rows - sincos(grid.shape, rows.shape[1])).max() <= _SAME:
        return new
    if positions.network != "encoder":
        raise UserError(
            f"'{positions.name}' is not the sine-cosine table that the {positions.network} "
            "computes, and it learns none"
            + (
                ": leave out --positions_grid and read the file at its own size; encoding, "
                "fine-tuning (system.pretrained_size) and teachers resize positions later."
                if resized
                else ": the file holds another model."
            )
        )
    raise UserError(
        f"'{positions.name}'{' resized' * resized} is not the sine-cosine table that this encoder "
        "computes: set system.encoder.positions='learned'."
    )


def written_positions(system: Any, positions: Positions, leaves: Mapping[str, Any]) -> np.ndarray:
    """Returns a table as the other program has it, float32 [1, N, D] or [1, 1 + N, D].

    Raises:
      UserError: the network has positions of another kind.
    """
    learned = leaves.get(f"{positions.network}/positions")
    network = getattr(system, positions.network)
    if learned is not None:
        rows = np.asarray(jax.device_get(learned), np.float32)
    elif getattr(network, "positions", "sincos") != "sincos":
        raise UserError(
            f"Positions of the kind '{network.positions}' have no place in this layout: only "
            "'sincos' and 'learned' have."
        )
    else:
        rows = sincos(system.grid.shape, network.width)
    return (np.pad(rows, ((1, 0), (0, 0))) if positions.class_token else rows)[None]


def _shown(grid: tuple[int, ...]) -> str:
    return "x".join(map(str, grid))
