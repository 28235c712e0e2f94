"""Shows what a run predicts of your pictures: `python -m maskjax.reconstruct --workdir=DIR`.

`--images` is a picture, a folder, or a pattern in quotes; without it the examples are those of the
training's pictures. `--mask_ratio`, `--seed` and `--mask` say what is hidden. The sheet lies in the
directory of the run and joins its report, unless `--out` names another place.
"""

from pathlib import Path

from absl import flags

import maskjax
from maskjax import cli
from maskjax.report import SEEN, reconstruct, write_report

WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; default: the newest.")
IMAGES = flags.DEFINE_string("images", None, "A picture, a folder, or a pattern in quotes.")
MOST = flags.DEFINE_integer("most", None, "Examples to show at most.", lower_bound=1)
OUT = flags.DEFINE_string("out", None, "PNG file; default: seen/reconstruction.png of the run.")
MASK_RATIO = flags.DEFINE_float("mask_ratio", None, "Share of hidden tokens; default: the run's.")
SEED = flags.DEFINE_integer("seed", None, "Of the masks that are drawn; default: the run's.")
MASK = flags.DEFINE_string(
    "mask", None, "Hidden tokens of every example: 0,3,7, or a .npy file of numbers or booleans."
)


def main() -> None:
    """Runs the command."""
    workdir = Path(WORKDIR.value)
    run = maskjax.load(workdir, STEP.value)
    picture = reconstruct(
        run,
        OUT.value or workdir / SEEN / "reconstruction.png",
        IMAGES.value,
        mask_ratio=MASK_RATIO.value,
        mask=MASK.value,
        seed=SEED.value,
        most=MOST.value,
    )
    print(f"Checkpoint {run.step} of {workdir}: the picture is {picture}.")
    if note := run.system.picture_note():
        print(note)
    if OUT.value is None:
        print(f"It is also in {write_report(workdir)}.")


if __name__ == "__main__":
    cli.run(main)
