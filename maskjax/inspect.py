"""Prints what a run holds: `python -m maskjax.inspect --workdir=DIR`. Needs no accelerator."""

from pathlib import Path

from absl import flags
from clu import parameter_overview

import maskjax
from maskjax import cli
from maskjax.config import to_json
from maskjax.training.checkpoints import Checkpoints
from maskjax.training.pretrained import CHECKPOINTS
from maskjax.training.run import read_config

WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; default: the newest.")


def main() -> None:
    """Runs the command."""
    workdir = Path(WORKDIR.value)
    config = read_config(workdir)
    print(f"Configuration of {workdir}:\n{to_json(config)}\n")
    run = maskjax.load(workdir, STEP.value)
    print(f"Parameters of checkpoint {run.step}:")
    print(parameter_overview.get_parameter_overview(run.variables["params"]))
    checkpoints = Checkpoints(workdir / CHECKPOINTS, read_only=True)
    print(f"\nCheckpoints: {', '.join(map(str, checkpoints.steps()))}. Arrays of {run.step}:")
    for path, shape in checkpoints.shapes(run.step).items():
        print(f"  {path} {shape}")
    checkpoints.close()


if __name__ == "__main__":
    cli.run(main)
