"""Pretraining from Python, with all that the command does: evaluation, pictures, the report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from maskjax.config import ConfigDict, validate
from maskjax.evaluation import Evaluation
from maskjax.loading import Loaded, load
from maskjax.parallel import processes
from maskjax.report import evaluation_table, format_table, write_report
from maskjax.report.history import read_history
from maskjax.report.reconstructions import Reconstructions
from maskjax.training.loop import train
from maskjax.training.run import claim_workdir, prepare
from maskjax.training.stopwatch import Stopwatch
from maskjax.training.writers import METRICS_FILE


def pretrain(config: ConfigDict, workdir: str | Path) -> Loaded:
    """Trains a configuration and returns the run; goes on from a checkpoint if there is one.

    Metrics, checkpoints, pictures and the report are written into the directory, as by
    `python -m maskjax.train`. If SIGTERM stops the training, the run is that of the checkpoint
    which was saved then.

    Args:
      config: from `maskjax.load_config`, or `maskjax.config.default_config()` with changes.
      workdir: directory of the run, created.

    Raises:
      UserError: any mistake in configuration, data or directory; a loss that is not finite.
    """
    validate(config)
    train_and_report(config, Path(workdir))
    return load(workdir)


def train_and_report(config: ConfigDict, workdir: Path) -> bool:
    """Trains, evaluates, draws and writes the report; with several processes all call it.

    Args:
      config: validated.
      workdir: directory of the run, created.

    Returns:
      True when the run is complete, False when SIGTERM stopped it.

    Raises:
      UserError: as `pretrain`.
    """
    watch = Stopwatch("starting")
    run = prepare(config)
    evaluation = Evaluation(config, run.system, run.mesh, processes.say)
    claim_workdir(workdir, config, processes.say)
    reconstructions = Reconstructions(config, run.system, workdir, run.mesh)

    def evaluate(
        variables: Any, step: int, final: bool, go_on: Callable[[], None]
    ) -> dict[str, float]:
        metrics = evaluation(variables, baselines=final, go_on=go_on)
        if metrics and not final:
            names = [name for name in metrics if name.endswith(("accuracy", "top_1"))]
            shown = [f"{name} {metrics[name]:.3f}" for name in names]
            processes.say(f"step {step}: {', '.join(shown)}")
        return metrics

    def draw(variables: Any, step: int) -> None:
        reconstructions(variables, step)
        going_on = step < run.total_steps  # at the end it is written once, with the evaluation
        if going_on and processes.is_first():
            write_report(workdir)

    if not train(run, workdir, evaluate, draw, watch):
        return False
    if processes.is_first():
        report = write_report(workdir)
        if table := evaluation_table(read_history(workdir / METRICS_FILE).last):
            print(f"\n{format_table(table)}\n")
            print("\n".join(evaluation.conditions()))
        print(f"The report is {report}.")
    return True
