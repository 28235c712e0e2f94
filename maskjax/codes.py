"""Fits the k-means codes that a run predicts: `python -m maskjax.codes --config=FILE`.

The features are those of the target `targets.KMeansCodes` of the configuration: cepstra of the
input, or a layer of an earlier run that the configuration has as a frozen teacher.
"""

from absl import flags

from maskjax import cli
from maskjax.training.code_fitting import fit_codes

CONFIG = cli.define_config()
OUT = flags.DEFINE_string("out", None, "File to write; default: the path of the target.")
TARGET = flags.DEFINE_string("target", None, "Name of the target, if there are several.")
TOKENS = flags.DEFINE_integer("tokens", 1_000_000, "Tokens to fit, spread over the data.")


def main() -> None:
    """Runs the command."""
    print(fit_codes(cli.parsed_config(CONFIG), OUT.value, TARGET.value, TOKENS.value))


if __name__ == "__main__":
    cli.run(main)
