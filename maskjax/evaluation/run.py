"""Evaluating a system as its configuration says."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from maskjax.config import ConfigDict, build
from maskjax.data import batch_shapes, eval_batches
from maskjax.errors import UserError
from maskjax.evaluation.features import Features, check_vectors, extract, raw_features, selector
from maskjax.parallel.mesh import check_batch
from maskjax.parallel.sharding import batch_rows, fetch, place_batch, replicated
from maskjax.systems import System
from maskjax.training.streams import stream

BASELINES = ("raw", "random")


class Evaluation:
    """The evaluators and baselines of a configuration, on its training and test splits."""

    def __init__(
        self, config: ConfigDict, system: System, mesh: Mesh, say: Callable[[str], None] = print
    ) -> None:
        """Opens the splits and checks what can be checked before any time is spent.

        Args:
          config: of the run.
          system: whose `encode` is evaluated.
          mesh: of the devices.
          say: told in one line why nothing is evaluated, if so.

        Raises:
          UserError: an unknown baseline, a feature path that does not exist, unlabelled data with
            a test split, splits that cannot be opened.
        """
        self._config, self._system, self._mesh = config, system, mesh
        self._evaluators = build(config.eval.evaluators)
        for baseline in config.eval.baselines:
            if baseline not in BASELINES:
                raise UserError(
                    f"eval.baselines are out of {', '.join(BASELINES)}, not '{baseline}'."
                )
        self.enabled = bool(config.data.test_split) and bool(self._evaluators)
        if not self.enabled:
            say("Nothing will be evaluated: data.test_split or eval.evaluators is not set.")
            return
        source = build(config.eval.source) or build(config.data.source)
        self._splits = {
            "train": source.open(config.eval.train_split or config.data.train_split),
            "test": source.open(config.data.test_split),
        }
        unlabelled = any(records.num_classes is None for records in self._splits.values())
        for name, evaluator in self._evaluators.items():
            if unlabelled and evaluator.needs_labels:
                raise UserError(
                    f"The data has no labels, which eval.evaluators.{name} needs: set "
                    "data.test_split to None, or use a source with labels."
                )
        check_batch(mesh, config.eval.batch_size, keys="eval.batch_size")
        named = {p: name for e in self._evaluators.values() for p, name in e.raw.items()}
        self._paths = {p: named.get(p) for e in self._evaluators.values() for p in e.paths}
        self._select = selector(system.encode, tuple(self._paths))
        shapes = jax.eval_shape(
            self._select, system.shapes, batch_shapes(system.inputs, 1, train=False)
        )
        for evaluator in self._evaluators.values():
            check_vectors(shapes, evaluator)

    def __call__(
        self, variables: Any, baselines: bool = False, prefix: str = "eval"
    ) -> dict[str, float]:
        """Evaluates variables; with `baselines` also the raw data and a fresh encoder.

        With several processes all call it, and all get the same.

        Returns:
          {"PREFIX/EVALUATOR/METRIC": value} and {"eval/BASELINE/EVALUATOR/METRIC": value}.
        """
        if not self.enabled:
            return {}
        metrics = self._evaluate(prefix, self._encoded(variables))
        if not baselines:
            return metrics
        if "raw" in self._config.eval.baselines:
            features = {
                split: raw_features(self._whole(split), self._system.inputs, self._paths)
                for split in self._splits
            }
            metrics |= self._evaluate("eval/raw", features)
        if "random" in self._config.eval.baselines:
            key = stream(jax.random.key(self._config.seed), "init")
            fresh = jax.jit(self._system.init, out_shardings=replicated(self._mesh))(key)
            metrics |= self._evaluate("eval/random", self._encoded(fresh))
        return metrics

    def _encoded(self, variables: Any) -> dict[str, dict[str, Features]]:
        return {
            split: extract(
                self._select, variables, self._batches(split), partial(place_batch, self._mesh)
            )
            for split in self._splits
        }

    def _evaluate(self, prefix: str, features: dict[str, dict[str, Features]]) -> dict[str, float]:
        return {
            f"{prefix}/{name}/{metric}": float(value)
            for name, evaluator in self._evaluators.items()
            for metric, value in evaluator(features["train"], features["test"]).items()
        }

    def _whole(self, split: str) -> Iterator[dict[str, np.ndarray]]:
        """Yields batches with the rows of all processes, on the host."""
        for batch in self._batches(split):
            yield batch if jax.process_count() == 1 else fetch(place_batch(self._mesh, batch))

    def _batches(self, split: str) -> Any:
        limit = self._config.eval.max_train_examples if split == "train" else None
        return eval_batches(
            self._splits[split],
            self._system.inputs,
            batch_size=self._config.eval.batch_size,
            max_examples=limit,
            workers=self._config.data.workers,
            threads=self._config.data.threads,
            prefetch=self._config.data.prefetch,
            rows=batch_rows(self._mesh, self._config.eval.batch_size),
        )
