"""Evaluates a run, finished or going on: `python -m maskjax.eval --workdir=DIR`.

Repeats the evaluation of its configuration, or extends it: `--feature=encoder.cls` probes another
output, a row of its own in the table; `--config=FILE` takes the sections `eval` and `data` of
another configuration. The figures are added to metrics.jsonl and to the report. Several processes
share the work as in training.
"""

from pathlib import Path

from absl import flags

import maskjax
from maskjax import cli
from maskjax.config import differences, flatten
from maskjax.errors import UserError
from maskjax.evaluation import evaluate
from maskjax.parallel import processes
from maskjax.report import evaluation_table, format_table, write_report
from maskjax.report.history import read_history
from maskjax.training.writers import METRICS_FILE, MetricWriter

CONFIG = cli.define_config()
cli.define_processes()
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; default: the newest.")
FEATURE = flags.DEFINE_string("feature", None, "Output to probe instead of the configured ones.")
BASELINES = flags.DEFINE_bool("baselines", True, "Evaluate the baselines too.")


def main() -> None:
    """Runs the command."""
    workdir = Path(WORKDIR.value)
    command = {"--workdir": workdir, "--step": STEP.value, "--feature": FEATURE.value}
    if CONFIG.value is not None:
        command |= flatten(cli.parsed_config(CONFIG), "config.")
    cli.join_processes(command)
    run = maskjax.load(workdir, STEP.value)
    config = run.config.copy_and_resolve_references().unlock()
    if CONFIG.value is not None:
        other = cli.parsed_config(CONFIG)
        if different := differences(other.system, config.system):
            raise UserError(
                f"--config describes another model than {workdir} holds (system."
                f"{next(iter(different))} differs): only its sections eval and data may differ."
            )
        config.eval, config.data = other.eval, other.data
    feature = FEATURE.value or None
    metrics = evaluate(run, config, feature, BASELINES.value and not feature, processes.say)
    if not processes.is_first():
        return
    MetricWriter(workdir).write(run.step, metrics)
    write_report(workdir)
    print(f"Checkpoint {run.step} of {workdir}:\n")
    print(format_table(evaluation_table(read_history(workdir / METRICS_FILE).last)))


if __name__ == "__main__":
    cli.run(main)
