"""Pretrains: `python -m maskjax.train --config=configs/quickstart.py --workdir=runs/quickstart`.

Goes on from the newest checkpoint if the directory has one. Exit codes: 0 done; 1 failure; 75
stopped by SIGTERM after saving, start again to go on.

Several processes train one model together: under srun and on TPU pods they find each other; else
give each --coordinator=HOST:PORT, --processes=N and --process=I. docs/launching.md shows how.
"""

from pathlib import Path

from absl import flags

from maskjax import cli
from maskjax.config import flatten
from maskjax.parallel.devices import keep_memory
from maskjax.pretraining import train_and_report

CONFIG = cli.define_config()
cli.define_processes()
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)


def main() -> int:
    """Runs the command; returns its exit code."""
    config, workdir = cli.parsed_config(CONFIG), Path(WORKDIR.value)
    cli.join_processes({"--workdir": workdir} | flatten(config, "config."))
    if config.parallel.keep_memory:
        keep_memory()
    if not train_and_report(config, workdir):
        return cli.EXIT_PREEMPTED
    return 0


if __name__ == "__main__":
    cli.run(main)
