"""Saving and restoring the training state, with Orbax, so that nothing saved is ever lost."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from maskjax.errors import UserError

_MANIFEST = "manifest.json"
_BROKEN = "broken"  # damaged checkpoints are moved here, never deleted


class Checkpoints:
    """The checkpoints of one run.

    Orbax commits a checkpoint by renaming its directory, so one that was interrupted never counts.
    After the commit a manifest with size and SHA-256 of every file is added; a checkpoint whose
    files do not match it (truncated, empty, missing or altered) is not restored.
    """

    def __init__(
        self,
        directory: Path,
        keep_last: int = 2,
        keep_every: int | None = None,
        asynchronous: bool = True,
        say: Callable[[str], None] = print,
    ):
        """Opens or creates the directory.

        Args:
          directory: of the checkpoints.
          keep_last: how many of the newest to keep.
          keep_every: steps; multiples are kept for ever. None: no others.
          asynchronous: write in the background, while the training goes on.
          say: told in one line what was skipped and why.
        """
        self._directory = Path(directory).absolute()
        self._say = say
        policies = [checkpoint_managers.LatestN(keep_last)]
        if keep_every:
            policies.append(checkpoint_managers.EveryNSteps(keep_every))
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                enable_async_checkpointing=asynchronous,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifests),
                cleanup_tmp_directories=True,
                step_name_format=ocp.path.step.standard_name_format(),
            ),
        )

    def save(self, step: int, state: Any, wait: bool = False) -> None:
        """Saves the state of a step; does nothing if that step is saved already.

        Args:
          step: steps taken.
          state: tree of arrays; may be donated as soon as this returns.
          wait: return only when the checkpoint is committed.
        """
        if step in self._manager.all_steps():
            return
        self._manager.save(step, args=ocp.args.StandardSave(state), force=True)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Blocks until everything that was saved is committed."""
        self._manager.wait_until_finished()
        self._write_manifests()

    def close(self) -> None:
        """Waits and releases the directory."""
        self.wait()
        self._manager.close()

    def steps(self) -> list[int]:
        """Returns the steps that have a committed checkpoint, in order."""
        self._manager.reload()
        return sorted(self._manager.all_steps())

    def restore_latest(self, abstract: Any) -> tuple[int, Any] | None:
        """Restores the newest sound checkpoint.

        A damaged one is named in one line and moved aside, and the one before is tried.

        Args:
          abstract: tree of `ShapeDtypeStruct` with the shardings wanted now.

        Returns:
          (step, state), or None if there is no checkpoint at all.

        Raises:
          UserError: all checkpoints are damaged, or the newest sound one has other parameters.
        """
        steps = self.steps()
        for step in reversed(steps):
            damage = self._damage(step)
            if damage is None:
                self._check_model(step, abstract)
                try:
                    restored = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
                    # A restored leaf may share its buffer with another; donation needs its own.
                    return step, jax.tree.map(lambda x: x.copy(), restored)
                except Exception as error:  # whatever a damaged file makes a library raise
                    damage = f"cannot be read ({type(error).__name__})"
            self._move_aside(step)
            self._say(
                f"Checkpoint {step} {damage}: moved to {_BROKEN}/, trying the one before."
            )
        if steps:
            raise UserError(
                f"No checkpoint in {self._directory} can be read; they are kept in {_BROKEN}/. "
                "Choose another --workdir to start anew."
            )
        return None

    def _damage(self, step: int) -> str | None:
        """Says what is wrong with the files of a checkpoint, or None."""
        folder = self._directory / str(step)
        manifest = folder / _MANIFEST
        if not manifest.exists():
            return None  # committed by Orbax, but interrupted before the manifest: still whole
        try:
            files = json.loads(manifest.read_text())
        except ValueError:
            return "has an unreadable manifest"
        for name, (size, digest) in files.items():
            path = folder / name
            if not path.is_file():
                return f"lacks the file {name}"
            if path.stat().st_size != size:
                return f"has {path.stat().st_size} instead of {size} bytes in {name}"
            if _digest(path) != digest:
                return f"has altered bytes in {name}"
        return None

    def _check_model(self, step: int, abstract: Any) -> None:
        """Refuses a checkpoint whose parameters are not those of the present model."""
        try:
            metadata = self._manager.item_metadata(step)
            saved = _shapes(metadata.tree if hasattr(metadata, "tree") else metadata)
        except Exception:
            return  # the restore will say more
        wanted = _shapes(abstract)
        different = [
            f"{path} is {saved.get(path, 'absent')} there and {wanted.get(path, 'absent')} here"
            for path in [*wanted, *(path for path in saved if path not in wanted)]
            if saved.get(path) != wanted.get(path)
        ]
        if saved and different:
            raise UserError(
                f"Checkpoint {step} in {self._directory} belongs to another model "
                f"({len(different)} arrays differ; {different[0]}): choose another --workdir."
            )

    def _move_aside(self, step: int) -> None:
        target = self._directory.parent / _BROKEN / str(step)
        target.parent.mkdir(exist_ok=True)
        while target.exists():
            target = target.with_name(target.name + "_")
        (self._directory / str(step)).rename(target)
        self._manager.reload()

    def _write_manifests(self) -> None:
        """Adds a manifest to every committed checkpoint that has none."""
        if jax.process_index() != 0:
            return
        for folder in self._directory.iterdir():
            if folder.name.isdigit() and not (folder / _MANIFEST).exists():
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile, as too old
                    _write_manifest(folder)


def _write_manifest(folder: Path) -> None:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    listing = {
        str(path.relative_to(folder)): (path.stat().st_size, _digest(path)) for path in files
    }
    partial = folder / (_MANIFEST + ".tmp")
    partial.write_text(json.dumps(listing, indent=1))
    os.replace(partial, folder / _MANIFEST)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
        if hasattr(leaf, "shape")
    }
