"""Evaluating a run that was loaded, and its features of any records."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from maskjax.config import ConfigDict, build
from maskjax.data import eval_batches, view_count
from maskjax.data.records import Records
from maskjax.evaluation.features import Features, extract, selector
from maskjax.evaluation.run import Evaluation
from maskjax.loading import Loaded
from maskjax.parallel.mesh import make_mesh
from maskjax.parallel.sharding import replicate


def evaluate(
    run: Loaded,
    config: ConfigDict | None = None,
    feature: str | None = None,
    baselines: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """Evaluates a run as a configuration says, on all devices. Nothing is written.

    Args:
      run: from `maskjax.load`.
      config: whose sections `data`, `eval` and `parallel` count; None: that of the run.
      feature: output of `encode` that is probed instead of those configured, e.g. "encoder.cls".
      baselines: whether the raw data and a fresh encoder are evaluated as well.
      say: told in lines what is evaluated under which conditions, or why nothing is.

    Returns:
      {"eval/EVALUATOR/METRIC": value}; with `feature` {"eval/FEATURE/EVALUATOR/METRIC": value};
      of baselines {"eval/BASELINE/EVALUATOR/METRIC": value}.

    Raises:
      UserError: as `Evaluation`.
    """
    config = (run.config if config is None else config).copy_and_resolve_references().unlock()
    if feature:
        for evaluator in config.eval.evaluators.values():
            if "feature" in evaluator:
                evaluator.feature = feature
    mesh = make_mesh(config.parallel.mesh)
    # There may be more inputs than the run was trained on: the maps that a dense probe reads.
    system = dataclasses.replace(run.system, inputs=build(config.data.inputs))
    evaluation = Evaluation(config, system, mesh, say)
    for line in evaluation.conditions():
        say(line)
    prefix = f"eval/{feature}" if feature else "eval"
    return evaluation(replicate(mesh, run.variables), baselines, prefix)


def features_of(
    run: Loaded,
    records: Records,
    paths: Sequence[str] = ("encoder.mean",),
    batch_size: int = 256,
    threads: int = 8,
) -> dict[str, Features]:
    """Encodes records with a run, on one device.

    Args:
      run: from `maskjax.load`.
      records: of any source, e.g. `data.ImageFolder(path).open("all")`; each is fitted to the size
        that the run was trained on. Those that cannot be read are left out.
      paths: outputs of `encode`, each [B, D] or [B, N, D].
      batch_size: records that are encoded at once.
      threads: that read and decode.

    Returns:
      {path: Features}, rows in the order of the records.

    Raises:
      UserError: a path that does not exist, or no readable record.
    """

    def place(batch: Any) -> dict[str, jax.Array]:
        return {name: jnp.asarray(value) for name, value in batch.items()}

    select = selector(run.system.encode, paths)
    with eval_batches(
        records,
        run.system.inputs,
        batch_size=min(batch_size, len(records)),
        threads=threads,
        views=view_count(run.system.inputs),
    ) as batches:
        return extract(select, run.variables, batches, place)
