"""Weights from and to other programs: `python -m maskjax.convert`.

In: `--file=mae_pretrain_vit_base_full.pth --layout=mae --config=configs/mae.py:B/16 --workdir=DIR`
makes DIR a run at step 0 with these weights, which every other command takes.
Out: `--workdir=DIR --layout=vit_mae --out=DIR2` writes the weights of a run for another program.
"""

import dataclasses
from pathlib import Path

import jax
from absl import flags

import maskjax
from maskjax import cli
from maskjax.config import build
from maskjax.errors import UserError
from maskjax.interop.files import read_weights
from maskjax.interop.huggingface import write_model
from maskjax.interop.layouts import LAYOUTS
from maskjax.interop.weights import read_variables
from maskjax.report.history import read_history
from maskjax.systems import build_system
from maskjax.training.checkpoints import Checkpoints
from maskjax.training.pretrained import CHECKPOINTS
from maskjax.training.run import claim_workdir, write_config
from maskjax.training.state import init_state
from maskjax.training.writers import METRICS_FILE

WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
LAYOUT = flags.DEFINE_enum("layout", None, sorted(LAYOUTS), "Whose names.", required=True)
FILE = flags.DEFINE_string("file", None, "File or directory of the weights to read.")
OUT = flags.DEFINE_string("out", None, "Directory to write weights to.")
STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint to write; default: the newest.")
POSITIONS_GRID = flags.DEFINE_list(
    "positions_grid",
    None,
    "Tokens along each axis that the tables of positions in --file are for, such as 14,14, if the "
    "configuration has others: they are resized (bicubic, a = -0.75, as PyTorch does).",
)
CONFIG = cli.define_config()


def main() -> None:
    """Runs the command."""
    if (FILE.value is None) == (OUT.value is None):
        raise UserError("Give --file to read weights into a run, or --out to write those of a run.")
    if FILE.value is not None:
        _read(Path(WORKDIR.value), Path(FILE.value))
    elif OUT.value is not None:
        _write(Path(WORKDIR.value), Path(OUT.value))


def _read(workdir: Path, file: Path) -> None:
    config, grid = cli.parsed_config(CONFIG), _grid(POSITIONS_GRID.value)
    if (workdir / CHECKPOINTS).exists():
        raise UserError(f"{workdir} has checkpoints already: choose another --workdir.")
    system = build_system(config)
    arrays = read_weights(file)
    claim_workdir(workdir, config, print)
    # Whatever the length of the training will be, the state has these arrays.
    state = init_state(system, build(config.optimizer).build(1), config.seed)
    variables, left = read_variables(system, state.variables, arrays, LAYOUT.value, grid)
    state = dataclasses.replace(state, variables=jax.device_put(variables))
    checkpoints = Checkpoints(workdir / CHECKPOINTS)
    checkpoints.save(0, state, wait=True)
    checkpoints.close()
    write_config(workdir, config)
    count = sum(x.size for x in jax.tree.leaves(variables["params"]))
    print(f"{workdir} is a run at step 0 with the weights of {FILE.value} ({count:,} parameters).")
    for network in left:
        print(f"Layout '{LAYOUT.value}' has no {network}: it has its random initial values.")


def _grid(numbers: list[str] | None) -> tuple[int, ...] | None:
    if numbers is None:
        return None
    if not all(number.strip().isdecimal() for number in numbers):
        raise UserError(f"--positions_grid takes numbers such as 14,14, not {','.join(numbers)}.")
    return tuple(map(int, numbers))


def _write(workdir: Path, out: Path) -> None:
    run = maskjax.load(workdir, STEP.value)
    write_model(run, out, LAYOUT.value, read_history(workdir / METRICS_FILE))
    print(f"Checkpoint {run.step} of {workdir} was written to {out} in layout '{LAYOUT.value}'.")


if __name__ == "__main__":
    cli.run(main)
