"""Exports the encoder of a run: `python -m maskjax.export --workdir=DIR --out=DIR2`.

Writes a program that jax alone can run on cpu, cuda and tpu, with any batch size, and the weights
as safetensors; checks the program against the run. `--weights=int8` or `bfloat16` makes both
smaller, and says what that changes on the run's own examples. README.md is a model card.
"""

import json
from pathlib import Path
from typing import Any

from absl import flags

import maskjax
from maskjax import cli
from maskjax.interop.artefact import DESCRIPTION, PROGRAM, export_encoder, reload_line
from maskjax.interop.artefact import WEIGHTS as WEIGHTS_FILE
from maskjax.interop.card import write_card
from maskjax.interop.reduced import WEIGHTS as KINDS
from maskjax.report.history import read_history
from maskjax.training.writers import METRICS_FILE

WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
OUT = flags.DEFINE_string("out", None, "Directory to write to.", required=True)
STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; default: the newest.")
OUTPUTS = flags.DEFINE_list(
    "outputs", ["encoder.mean", "encoder.cls", "encoder.patches"], "Outputs to keep, by path."
)
PLATFORMS = flags.DEFINE_list("platforms", ["cpu", "cuda", "tpu"], "Where the program can run.")
WEIGHTS = flags.DEFINE_enum("weights", "float32", KINDS, "Of kernels; all else stays float32.")


def main() -> None:
    """Runs the command."""
    out = Path(OUT.value)
    run = maskjax.load(WORKDIR.value, STEP.value)
    difference = export_encoder(run, out, OUTPUTS.value, PLATFORMS.value, WEIGHTS.value)
    measured = _errors(json.loads((out / DESCRIPTION).read_text()))
    contents = [
        f"The encoder: `{PROGRAM}`, which `jax.export` runs, its weights `{WEIGHTS_FILE}`, and",
        f"`{DESCRIPTION}`, which names inputs and outputs. Kernels are {WEIGHTS.value}.",
        *([""] if measured else []),
        *measured,
    ]
    history = read_history(Path(WORKDIR.value) / METRICS_FILE)
    write_card(out, run, history, contents)
    print(f"Checkpoint {run.step} was exported to {out} for {', '.join(PLATFORMS.value)}.")
    print(*measured, sep="\n", end="\n" * bool(measured))
    print(f"Checked: relative difference to the run {difference:.1e}. Run it with jax alone:")
    print(reload_line(run, out))


def _errors(description: dict[str, Any]) -> list[str]:
    """Returns a table of what fewer bits change; nothing without them."""
    if "error" not in description:
        return []
    return [
        f"Differences to float32 kernels on {description['examples']} examples of the run:",
        "",
        "| output | largest, of the largest value | root mean square, of that of the values |",
        "|---|---|---|",
        *(
            f"| {path} | {each['largest']:.2e} | {each['rms']:.2e} |"
            for path, each in description["error"].items()
        ),
    ]


if __name__ == "__main__":
    cli.run(main)
