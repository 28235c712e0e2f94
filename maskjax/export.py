"""Exports the encoder of a run: `python -m maskjax.export --workdir=DIR --out=DIR2`.

Writes a program that jax alone can run on cpu, cuda and tpu, with any batch size, and the weights
as safetensors; checks the program against the run.
"""

from pathlib import Path

from absl import flags

import maskjax
from maskjax import cli
from maskjax.interop.artefact import export_encoder, reload_line

WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
OUT = flags.DEFINE_string("out", None, "Directory to write to.", required=True)
STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; default: the newest.")
OUTPUTS = flags.DEFINE_list(
    "outputs", ["encoder.mean", "encoder.cls", "encoder.patches"], "Outputs to keep, by path."
)
PLATFORMS = flags.DEFINE_list("platforms", ["cpu", "cuda", "tpu"], "Where the program can run.")


def main() -> None:
    """Runs the command."""
    out = Path(OUT.value)
    run = maskjax.load(WORKDIR.value, STEP.value)
    difference = export_encoder(run, out, OUTPUTS.value, PLATFORMS.value)
    print(f"Checkpoint {run.step} was exported to {out} for {', '.join(PLATFORMS.value)}.")
    print(f"Checked: relative difference to the run {difference:.1e}. Run it with jax alone:")
    print(reload_line(run, out))


if __name__ == "__main__":
    cli.run(main)
