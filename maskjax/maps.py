"""Draws where an encoder attends: `python -m maskjax.maps --workdir=DIR --images=photos`.

For every picture, the attention of each head and the first three principal components of the
features of its patches. Nothing is hidden. The flags are those of `maskjax.reconstruct`.
"""

from pathlib import Path

from absl import flags

import maskjax
from maskjax import cli
from maskjax.report import SEEN, draw_maps, write_report

WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; default: the newest.")
IMAGES = flags.DEFINE_string("images", None, "A picture, a folder, or a pattern in quotes.")
MOST = flags.DEFINE_integer("most", None, "Examples to show at most.", lower_bound=1)
OUT = flags.DEFINE_string("out", None, "PNG file; default: seen/maps.png of the run.")
BLOCK = flags.DEFINE_integer("block", -1, "Whose attention, from 0; negative: from the last.")


def main() -> None:
    """Runs the command."""
    workdir = Path(WORKDIR.value)
    run = maskjax.load(workdir, STEP.value)
    out = OUT.value or workdir / SEEN / "maps.png"
    picture = draw_maps(run, out, IMAGES.value, block=BLOCK.value, most=MOST.value)
    print(f"Checkpoint {run.step} of {workdir}: the picture is {picture}.")
    if OUT.value is None:
        print(f"It is also in {write_report(workdir)}.")


if __name__ == "__main__":
    cli.run(main)
