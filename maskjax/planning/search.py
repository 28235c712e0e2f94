"""What would make a configuration fit: one change at a time, the smallest that does."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from maskjax.config import ConfigDict, flatten
from maskjax.errors import UserError
from maskjax.parallel.mesh import batch_shards

# From the least to the most that is computed again.
REMAT = ("none", "dots", "dots_with_no_batch_dims", "hidden", "full")


@dataclasses.dataclass(frozen=True)
class Change:
    """A change of a configuration that makes it fit.

    Attributes:
      what: in words.
      keys: {key: value} of the configuration.
    """

    what: str
    keys: Mapping[str, Any]

    @property
    def flags(self) -> str:
        """As the user writes it on the command line."""
        return " ".join(f"--config.{key}={value}" for key, value in self.keys.items())


def changed(config: ConfigDict, keys: Mapping[str, Any]) -> ConfigDict:
    """Returns a copy of a configuration with other values of some keys."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.update_from_flattened_dict(dict(keys))
    return config


def of_networks(config: ConfigDict, name: str) -> list[str]:
    """Returns the keys of all networks of the system that have an argument of this name."""
    return [
        key
        for key in flatten(config)
        if key.startswith("system.") and key.rpartition(".")[2] == name
    ]


def changes(
    config: ConfigDict,
    mesh: Mapping[str, int],
    fits: Callable[[ConfigDict], bool],
    say: Callable[[str], None],
) -> list[Change]:
    """Returns the smallest change of each kind that makes a configuration fit.

    Args:
      config: that does not fit.
      mesh: sizes by axis.
      fits: whether the compiler accepts a configuration.
      say: is told what takes time.
    """
    found = []
    for kind in (_remat, _accumulate, _batch, _fsdp):
        say(f"looking for what would fit: {kind.__name__.strip('_')} ...")
        if change := _first(kind(config, mesh), config, fits):
            found.append(change)
    return found


def _first(
    candidates: Iterable[Change],
    config: ConfigDict,
    fits: Callable[[ConfigDict], bool],
) -> Change | None:
    for change in candidates:
        try:
            if fits(changed(config, change.keys)):
                return change
        except UserError:  # not possible for another reason, such as a mesh that does not divide
            continue
    return None


def _remat(config: ConfigDict, mesh: Mapping[str, int]) -> Iterator[Change]:
    keys = of_networks(config, "remat")
    now = [REMAT.index(flatten(config)[key]) for key in keys]
    for policy in REMAT[min(now, default=len(REMAT)) + 1 :]:
        yield Change(f"remat {policy}", dict.fromkeys(keys, policy))


def _accumulate(config: ConfigDict, mesh: Mapping[str, int]) -> Iterator[Change]:
    per_device = config.train.batch_size // batch_shards(mesh)
    parts = config.train.accumulate * 2
    while parts <= per_device:
        if per_device % parts == 0:
            yield Change(f"{parts} micro-batches, the same gradient", {"train.accumulate": parts})
        parts *= 2


def _batch(config: ConfigDict, mesh: Mapping[str, int]) -> Iterator[Change]:
    least = batch_shards(mesh) * config.train.accumulate
    size = config.train.batch_size // 2
    while size >= least:
        if size % least == 0:
            yield Change(f"a batch of {size}", {"train.batch_size": size})
        size //= 2


def _fsdp(config: ConfigDict, mesh: Mapping[str, int]) -> Iterator[Change]:
    size = mesh["fsdp"] * 2
    while size <= mesh["data"] * mesh["fsdp"]:  # those of the other axes stay
        keys = {"parallel.mesh.fsdp": size, "parallel.mesh.data": -1}
        yield Change(f"parameters split over {size} devices", keys)
        size *= 2
