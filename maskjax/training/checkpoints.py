"""Saving and restoring the training state, with Orbax, so that nothing saved is ever lost."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers

from maskjax.errors import UserError
from maskjax.parallel import processes
from maskjax.parallel.devices import run_once
from maskjax.paths import named_leaves

_MANIFEST = "manifest.json"
_ITEM = "default"  # Orbax's name for the folder of the arrays within a checkpoint
_BROKEN = "broken"  # damaged checkpoints are moved here, never deleted
# Devices that hold the same array share the writing of it in slices. To cut a slice is a program
# for every shape: a second of compilation or more, which small arrays do not repay.
_SLICE_BYTES = 2**22


class Checkpoints:
    """The checkpoints of one run.

    Orbax commits a checkpoint by renaming its directory, so one that was interrupted never counts.
    Committed with it is a manifest of size and SHA-256 of every file; a checkpoint whose files do
    not match (truncated, empty, missing or altered) is not restored. With several processes all
    call every method together; the first one judges the files, and the others follow it.

    A save that fails (a full disk, a lost permission) does not end the training: one line says so,
    and the next save is another attempt. Several processes would have to agree on that; there it is
    an error.
    """

    def __init__(
        self,
        directory: Path,
        keep_last: int = 2,
        keep_every: int | None = None,
        asynchronous: bool = True,
        read_only: bool = False,
        say: Callable[[str], None] = processes.say,
    ) -> None:
        """Opens or, unless it is only read, creates the directory.

        Args:
          directory: of the checkpoints.
          keep_last: how many of the newest to keep.
          keep_every: steps; multiples are kept for ever. None: no others.
          asynchronous: write in the background, while the training goes on.
          read_only: change nothing on disk, e.g. beside a run that is going on.
          say: told in one line what was skipped and why.
        """
        self._directory = Path(directory).absolute()
        self._asynchronous = asynchronous
        self._read_only = read_only
        self._say = say
        self._saving: int | None = None  # the step that may be written in the background
        policies = [checkpoint_managers.LatestN(keep_last)]
        if keep_every:
            policies.append(checkpoint_managers.EveryNSteps(keep_every))
        registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
        arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=_SLICE_BYTES)
        types = ocp.type_handlers.create_type_handler_registry((jax.Array, arrays))
        handler = ocp.PyTreeCheckpointHandler(type_handler_registry=types)
        for arguments in (ocp.args.PyTreeSave, ocp.args.PyTreeRestore):
            registry.add(_ITEM, arguments, handler)
        verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)  # Orbax warns that read-only is read-only
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifests),
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            read_only=read_only,
        )
        self._manager = ocp.CheckpointManager(
            self._directory, handler_registry=registry, options=options
        )
        logging.set_verbosity(verbosity)

    def save(self, step: int, state: Any, wait: bool = False) -> None:
        """Saves the state of a step; does nothing if that step is saved already.

        Args:
          step: steps taken.
          state: tree of arrays; may be donated as soon as this returns.
          wait: return only when the checkpoint is committed.

        Raises:
          UserError: it cannot be written, and `wait` says that nothing comes after it.
        """
        self.wait()
        if step in self._manager.all_steps():
            return
        self._saving, arguments = step, ocp.args.PyTreeSave(state)
        failure = self._failure(lambda: self._manager.save(step, args=arguments, force=True))
        if wait or not self._asynchronous:
            failure = failure or self._failure(self._manager.wait_until_finished)
        if failure and wait and not self._is_committed():
            newest = max(self._manager.all_steps(), default="none")
            raise UserError(
                f"Step {step} could not be saved ({failure}); the newest checkpoint is "
                f"{newest}. Free space in {self._directory} or restore its permissions, "
                "and start again."
            )
        self._warn(failure)

    def wait(self) -> None:
        """Blocks until everything that was saved is committed, or says that it could not be."""
        self._warn(self._failure(self._manager.wait_until_finished))
        self._saving = None

    def check(self) -> None:
        """Says if a save in the background has failed; blocks nothing."""
        background = self._saving is not None and not processes.joined()
        if background and not self._manager.is_saving_in_progress():
            self.wait()

    def _failure(self, act: Callable[[], Any]) -> str:
        """Does something; returns why it failed, or ''. What it left unfinished is removed."""
        try:
            act()
        except Exception as error:  # Orbax and TensorStore raise errors of many kinds
            if processes.joined():
                raise
            for remains in self._directory.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(remains, ignore_errors=True)
            return f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return ""

    def _is_committed(self) -> bool:
        return (self._directory / str(self._saving)).exists()

    def _warn(self, failure: str) -> None:
        if failure and self._is_committed():  # which comes before old ones are removed
            self._say(
                f"An old checkpoint could not be removed ({failure}). The training goes on; remove "
                f"by hand what is too much in {self._directory}."
            )
        elif failure:
            self._say(
                f"A checkpoint could not be saved ({failure}). The training goes on, and the next "
                "save is another attempt."
            )

    def close(self) -> None:
        """Waits and releases the directory."""
        self.wait()
        self._manager.close()

    def steps(self) -> list[int]:
        """Returns the steps that have a committed checkpoint, in order."""
        self._manager.reload()
        return sorted(self._manager.all_steps())

    def shapes(self, step: int) -> dict[str, tuple[int, ...]]:
        """Returns {path: shape} of the arrays of a checkpoint, without reading them."""
        return _shapes(self._manager.item_metadata(step).tree)

    def restore_latest(
        self, abstract: Any, step: int | None = None, partial: bool = False
    ) -> tuple[int, Any] | None:
        """Restores the newest sound checkpoint.

        A damaged one is named in one line and moved aside, and the one before is tried.

        Args:
          abstract: tree of `ShapeDtypeStruct` with the shardings wanted now.
          step: restore this one and no other.
          partial: the tree has only a part of what was saved.

        Returns:
          (step, state), or None if there is no checkpoint at all.

        Raises:
          UserError: all checkpoints are damaged, there is none of `step`, or the newest sound one
            has other parameters.
        """
        steps = json.loads(processes.from_first(json.dumps(self.steps())))
        if step is not None:
            if step not in steps:
                raise UserError(
                    f"There is no checkpoint {step} in {self._directory}; there are: "
                    f"{', '.join(map(str, steps)) or 'none'}."
                )
            steps = [step]
        for step in reversed(steps):
            damage = self._agreed_damage(step)
            if not damage:
                self._check_model(step, abstract, partial)
                state = None
                try:
                    state = self._restore(step, abstract)
                except Exception as error:  # whatever a damaged file makes a library raise
                    damage = f"cannot be read ({type(error).__name__})"
                damage = next(filter(None, processes.gather(damage)), "")
                if not damage:
                    return step, state
            if self._read_only:
                self._say(f"Checkpoint {step} {damage}: trying the one before.")
            else:
                self._move_aside(step)
                self._say(
                    f"Checkpoint {step} {damage}: moved to {_BROKEN}/, trying the one before."
                )
        if steps:
            raise UserError(
                f"No checkpoint in {self._directory} can be read: restore the files, or choose "
                "another --workdir to start anew."
            )
        return None

    def _restore(self, step: int, abstract: Any) -> Any:
        arguments = ocp.args.PyTreeRestore(
            item=abstract,
            restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
            partial_restore=True,
        )
        restored = self._manager.restore(step, args=arguments)
        # A restored leaf may share its buffer with another; donation needs its own.
        copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), compiler_options=run_once())
        return copy(restored)

    def _agreed_damage(self, step: int) -> str:
        """Says what the first process finds wrong with a checkpoint, or ''."""
        return processes.from_first((processes.is_first() and self._damage(step)) or "")

    def _damage(self, step: int) -> str | None:
        """Says what is wrong with the files of a checkpoint, or None."""
        folder = self._directory / str(step)
        manifest = folder / _MANIFEST
        if not (folder / _ITEM).is_dir():
            # Orbax must not see it: it would take the first checkpoint's layout for that of all.
            return "has no arrays"
        if not manifest.exists():
            return None  # not checked, but read: a restore notices most damage by itself
        try:
            files = {name: tuple(v) for name, v in json.loads(manifest.read_text()).items()}
        except (ValueError, TypeError, AttributeError):
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

    def _check_model(self, step: int, abstract: Any, partial: bool) -> None:
        """Refuses a checkpoint whose parameters are not those of the present model."""
        try:
            saved = self.shapes(step)
        except Exception:
            return  # the restore will say more
        wanted = _shapes(abstract)
        paths = list(wanted) if partial else list(wanted | saved)
        different = [
            f"{path} is {saved.get(path, 'absent')} there and {wanted.get(path, 'absent')} here"
            for path in paths
            if saved.get(path) != wanted.get(path)
        ]
        if saved and different:
            raise UserError(
                f"Checkpoint {step} in {self._directory} belongs to another model "
                f"({len(different)} arrays differ; {different[0]}): choose another --workdir."
            )

    def _move_aside(self, step: int) -> None:
        if processes.is_first():
            target = self._directory.parent / _BROKEN / str(step)
            target.parent.mkdir(exist_ok=True)
            while target.exists():
                target = target.with_name(target.name + "_")
            (self._directory / str(step)).rename(target)
        processes.from_first("moved")
        self._manager.reload()

    def _write_manifests(self) -> None:
        """Adds the manifest to the checkpoint that is about to be committed.

        Orbax calls this between its last write of arrays and the rename of the directory.
        """
        if jax.process_index() == 0:  # as Orbax counts
            for folder in self._directory.glob("*.orbax-checkpoint-tmp*"):
                # Files of the folder itself are left out: the commit writes its time into them.
                files = [path for path in sorted(folder.glob("*/**/*")) if path.is_file()]
                listing = {
                    str(path.relative_to(folder)): (path.stat().st_size, _digest(path))
                    for path in files
                }
                (folder / _MANIFEST).write_text(json.dumps(listing, indent=1))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = named_leaves(tree).items()
    return {name: tuple(leaf.shape) for name, leaf in leaves if hasattr(leaf, "shape")}
