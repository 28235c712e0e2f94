"""Exports what a run computes: `python -m maskjax.export --workdir=DIR --out=DIR2`.

Writes programs that jax alone can run on cpu, cuda and tpu, with any batch size: the encoder, and
the reconstruction where a system predicts what can be shown (`--programs=encoder` leaves it out);
and the weights as safetensors. Checks the programs against the run. `--weights=int8` or `bfloat16`
makes all of them smaller, and says what that changes on the run's own examples. README.md is a
model card. `launch/serve.py` runs what was written on pictures.
"""

import json
from pathlib import Path
from typing import Any

from absl import flags

import maskjax
from maskjax import cli
from maskjax.interop.artefact import DESCRIPTION, export_run, reload_line
from maskjax.interop.artefact import WEIGHTS as WEIGHTS_FILE
from maskjax.interop.card import write_card
from maskjax.interop.programs import ENCODER
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
PROGRAMS = flags.DEFINE_list(
    "programs", None, "Out of encoder and reconstruction; default: all that the run has."
)
WEIGHTS = flags.DEFINE_enum("weights", "float32", KINDS, "Of kernels; all else stays float32.")


def main() -> None:
    """Runs the command."""
    out = Path(OUT.value)
    run = maskjax.load(WORKDIR.value, STEP.value)
    difference = export_run(run, out, OUTPUTS.value, PLATFORMS.value, WEIGHTS.value, PROGRAMS.value)
    description = json.loads((out / DESCRIPTION).read_text())
    programs, measured = description["programs"], _errors(description)
    contents = [
        *(f"- `{program['file']}`: the {name}" for name, program in programs.items()),
        f"- `{WEIGHTS_FILE}`: the weights. Kernels are {WEIGHTS.value}.",
        f"- `{DESCRIPTION}`: inputs and outputs of the programs, which `jax.export` runs.",
        *([""] if measured else []),
        *measured,
    ]
    history = read_history(Path(WORKDIR.value) / METRICS_FILE)
    write_card(out, run, history, contents)
    print(f"Checkpoint {run.step} was exported to {out} for {', '.join(PLATFORMS.value)}:")
    print(*(program["file"] for program in programs.values()), WEIGHTS_FILE, sep=", ")
    print(*measured, sep="\n", end="\n" * bool(measured))
    print(f"Checked: relative difference to the run {difference:.1e}.", end=" ")
    if ENCODER in programs:
        print("Run it with jax alone:", reload_line(run, out), sep="\n")
    else:
        print(f"{DESCRIPTION} says what the program takes.")


def _errors(description: dict[str, Any]) -> list[str]:
    """Returns a table of what fewer bits change; nothing without them."""
    errors = {
        path: each
        for program in description["programs"].values()
        for path, each in program.get("error", {}).items()
    }
    if not errors:
        return []
    return [
        f"Differences to float32 kernels on {description['examples']} examples of the run:",
        "",
        "| output | largest, of the largest value | root mean square, of that of the values |",
        "|---|---|---|",
        *(
            f"| {path} | {each['largest']:.2e} | {each['rms']:.2e} |"
            for path, each in errors.items()
        ),
    ]


if __name__ == "__main__":
    cli.run(main)
