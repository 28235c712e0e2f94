"""Pretrains: `python -m maskjax.train --config=configs/quickstart.py --workdir=runs/quickstart`.

Goes on from the newest checkpoint if the directory has one. Exit codes: 0 done; 1 failure; 75
stopped by SIGTERM after saving, start again to go on.

Several processes train one model together: under srun and on TPU pods they find each other; else
give each --coordinator=HOST:PORT, --processes=N and --process=I. docs/launching.md shows how.
"""

from pathlib import Path
from typing import Any

from absl import flags

from maskjax import cli
from maskjax.config import flatten
from maskjax.evaluation import Evaluation
from maskjax.parallel import processes
from maskjax.report import evaluation_table, format_table, write_report
from maskjax.report.history import read_history
from maskjax.report.reconstructions import draw_reconstructions
from maskjax.training.loop import train
from maskjax.training.run import claim_workdir, prepare
from maskjax.training.writers import METRICS_FILE

CONFIG = cli.define_config()
cli.define_processes()
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)


def main() -> int:
    """Runs the command; returns its exit code."""
    config, workdir = cli.parsed_config(CONFIG), Path(WORKDIR.value)
    cli.join_processes({"--workdir": workdir} | flatten(config, "config."))
    run = prepare(config)
    evaluation = Evaluation(config, run.system, run.mesh, processes.say)
    claim_workdir(workdir, config, processes.say)

    def evaluate(variables: Any, step: int, final: bool) -> dict[str, float]:
        metrics = evaluation(variables, baselines=final)
        if metrics and not final:
            names = [name for name in metrics if name.endswith(("accuracy", "top_1"))]
            shown = [f"{name} {metrics[name]:.3f}" for name in names]
            processes.say(f"step {step}: {', '.join(shown)}")
        return metrics

    def draw(variables: Any, step: int) -> None:
        draw_reconstructions(config, run.system, variables, step, workdir, run.mesh)
        going_on = step < run.total_steps  # at the end it is written once, with the evaluation
        if going_on and processes.is_first():
            write_report(workdir)

    if not train(run, workdir, evaluate, draw):
        return cli.EXIT_PREEMPTED
    if processes.is_first():
        report = write_report(workdir)
        if table := evaluation_table(read_history(workdir / METRICS_FILE).last):
            print(f"\n{format_table(table)}\n")
        print(f"The report is {report}.")
    return 0


if __name__ == "__main__":
    cli.run(main)
