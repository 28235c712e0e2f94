"""Reading weights out of the directories of runs."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax

from maskjax.errors import UserError
from maskjax.training.checkpoints import Checkpoints

CHECKPOINTS = "checkpoints"  # in the directory of a run
CONFIG_FILE = "config.json"  # likewise

# What changes how a network is computed in training, not what it computes.
_EXECUTION = ("scan", "remat", "dtype", "drop_path")


def restore_variables(workdir: Path, abstract: Any, step: int | None = None) -> tuple[int, Any]:
    """Reads (a part of) the variables of a run, finished or going on, without changing it.

    Args:
      workdir: directory of the run.
      abstract: tree of shapes and dtypes; entries of the saved variables that it lacks are left
        out.
      step: of the checkpoint; None: the newest sound one.

    Returns:
      (step, tree of arrays on the first device of this process).

    Raises:
      UserError: no run, no checkpoint that can be read, or the arrays have other shapes.
    """
    if not (workdir / CHECKPOINTS).is_dir():
        raise UserError(f"{workdir} has no checkpoint: train it first, or name another run.")
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), abstract
    )
    checkpoints = Checkpoints(workdir / CHECKPOINTS, read_only=True)
    try:
        found = checkpoints.restore_latest({"variables": wanted}, step, partial=True)
    finally:
        checkpoints.close()
    if found is None:
        raise UserError(f"{workdir} has no checkpoint yet: train it first.")
    return found[0], found[1]["variables"]


def restore_part(
    run: str, path: str, abstract: Any, step: int | None = None, network: Any = None
) -> Any:
    """Returns one part of the variables of a run: what `System.load_pretrained` reads with.

    Args:
      run: directory of the run.
      path: of the part, such as "params/encoder".
      abstract: shapes and dtypes of the part.
      step: of the checkpoint; None: the newest.
      network: the module that will use it; None: unknown.

    Raises:
      UserError: as `restore_variables`; the run's network differs, even if only in its heads.
    """
    if network is not None:
        _check_network(Path(run), path.split("/")[-1], network)
    tree = abstract
    for name in reversed(path.split("/")):
        tree = {name: tree}
    _, tree = restore_variables(Path(run), tree, step)
    for name in path.split("/"):
        tree = tree[name]
    return tree


def _check_network(run: Path, name: str, network: Any) -> None:
    """Compares a module with that of a run's configuration: shapes do not show all differences."""
    try:
        config = json.loads((run / CONFIG_FILE).read_text())
        there = config["system"][name]
    except (OSError, ValueError, KeyError):
        return  # what cannot be read says more when it is restored
    here = {f.name: getattr(network, f.name) for f in dataclasses.fields(network)}
    if there["kind"].split(".")[-1] != type(network).__name__:
        raise UserError(
            f"The {name} of {run} is a {there['kind']}, not a {type(network).__name__}."
        )
    for key, value in there.items():
        value = tuple(value) if isinstance(value, list) else value
        if key in here and key not in _EXECUTION and here[key] != value:
            raise UserError(
                f"The {name} of {run} has {key} {value}, here it is {here[key]}: set the network "
                "that gets its weights as that run has it."
            )
