"""Pictures of what a system predicts, for a few fixed examples."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from maskjax.config import ConfigDict, build
from maskjax.data import eval_batches
from maskjax.errors import UserError
from maskjax.loading import Data, Loaded, draw_and_reconstruct
from maskjax.parallel import processes
from maskjax.parallel.devices import run_once
from maskjax.parallel.sharding import replicate, replicated
from maskjax.report.pictures import save_sheet
from maskjax.report.views import columns
from maskjax.systems import System

PICTURES = "pictures"  # of the training, in the directory of a run
SEEN = "seen"  # pictures that somebody asked for later


class Reconstructions:
    """Draws the first examples of the test split (of the training split, if there is no other).

    Examples and masks are the same at every step of a run, so that pictures can be compared.
    """

    def __init__(
        self, config: ConfigDict, system: System, workdir: Path, mesh: Mesh | None = None
    ) -> None:
        """Compiles nothing yet.

        Args:
          config: of the run.
          system: the method.
          workdir: of the run.
          mesh: on which the variables lie; None: on one device.
        """
        self._config, self._system, self._workdir, self._mesh = config, system, workdir, mesh

        def reconstruct(variables: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
            return draw_and_reconstruct(system, variables, batch, jax.random.key(config.seed))

        whole = None if mesh is None else replicated(mesh)
        # Here and not where it is called, so that it is compiled once a run.
        self._program = jax.jit(reconstruct, out_shardings=whole, compiler_options=run_once())

    def __call__(self, variables: Any, step: int) -> Path | None:
        """Draws a sheet. With several processes all call it; the first one writes the file.

        Args:
          variables: of the system.
          step: of the run, for the name of the file.

        Returns:
          The file, `pictures/reconstruction_STEP.png`, or None if `log.pictures` is 0.
        """
        if not self._config.log.pictures:
            return None
        arrays = jax.device_get(self._program(variables, self._batch()))
        path = self._workdir / PICTURES / f"reconstruction_{step:08d}.png"
        if processes.is_first():
            path.parent.mkdir(exist_ok=True)
            save_sheet(path, columns(arrays, self._system), self._system.picture_note())
        return path

    def _batch(self) -> dict[str, jax.Array]:
        """Reads the examples, and lays them out as the variables are."""
        data, count = self._config.data, self._config.log.pictures
        records = build(data.source).open(data.test_split or data.train_split)
        with eval_batches(
            records, self._system.inputs, batch_size=count, max_examples=count, threads=0
        ) as batches:
            batch = {name: v for name, v in next(batches).items() if name != "_index"}
        if self._mesh is None:
            return jax.tree.map(jnp.asarray, batch)
        return replicate(self._mesh, batch)


def reconstruct(run: Loaded, out: str | Path, data: Data | None = None, **options: Any) -> Path:
    """Draws what a trained run predicts of any data, as the pictures of the training do.

    Args:
      run: from `maskjax.load`.
      out: the PNG file to write.
      data: as `Loaded.read` takes it, e.g. "photos/*.jpg"; None: what the training showed.
      **options: `mask_ratio`, `mask`, `seed` and `most`, as in `Loaded.reconstruct`.

    Returns:
      The file.

    Raises:
      UserError: as `Loaded.reconstruct`; or the file cannot be written.
    """
    out = check_png(out)
    arrays = run.reconstruct(data, **options)
    return write_sheet(out, columns(arrays, run.system), run.system.picture_note())


def check_png(out: str | Path) -> Path:
    """Returns the path of a picture that is to be written, before time is spent on it."""
    out = Path(out)
    if out.suffix.lower() != ".png":
        raise UserError(f"Pictures are written as PNG: call the file {out.with_suffix('.png')}.")
    return out


def write_sheet(out: Path, pictures: dict[str, Any], note: str) -> Path:
    """As `save_sheet`, for a place that a user has named."""
    try:
        return save_sheet(out, pictures, note)
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}): choose another file with --out."
        ) from None
