"""Computes mean and standard deviation of a source: `python -m maskjax.statistics --config=FILE`.

Prints them in the form in which a config file has them.
"""

from maskjax import cli
from maskjax.config import build
from maskjax.data import channel_statistics

CONFIG = cli.define_config()


def main() -> None:
    """Runs the command."""
    data = cli.parsed_config(CONFIG).data
    records = build(data.source).open(data.train_split)
    inputs = build(data.inputs)
    # Maps and sets of classes beside them have neither mean nor std.
    scaled = {name: each for name, each in inputs.items() if hasattr(each, "mean")}
    for input_name, each in (scaled or inputs).items():
        mean, std = channel_statistics(records, input_name, each)
        for name, values in (("mean", mean), ("std", std)):
            shown = ", ".join(f"{value:.4f}" for value in values)
            print(f"c.data.inputs.{input_name}.{name} = ({shown},)")


if __name__ == "__main__":
    cli.run(main)
