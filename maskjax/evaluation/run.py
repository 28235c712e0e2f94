"""Evaluating a system as its configuration says."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh

from maskjax.config import ConfigDict, build
from maskjax.data import batch_shapes, eval_batches, view_count
from maskjax.data.pipeline import BatchIterator
from maskjax.errors import UserError
from maskjax.evaluation.features import (
    Batch,
    Evaluator,
    Features,
    Select,
    check_vectors,
    extract,
    raw_features,
    selector,
)
from maskjax.parallel.devices import run_once
from maskjax.parallel.mesh import check_batch
from maskjax.parallel.sharding import batch_rows, fetch, place_batch, replicated
from maskjax.systems import System
from maskjax.training.streams import stream

BASELINES = ("raw", "random")

T = TypeVar("T")

# (batches, {path: input whose raw values stand for it}) -> {path: features}
Read = Callable[[Iterable[Batch], Mapping[str, str | None]], dict[str, Features]]


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
        self._selectors: dict[tuple[str, ...], Select] = {}
        self._check_paths()

    def __call__(
        self,
        variables: Any,
        baselines: bool = False,
        prefix: str = "eval",
        go_on: Callable[[], None] = lambda: None,
    ) -> dict[str, float]:
        """Evaluates variables; with `baselines` also the raw data and a fresh encoder.

        With several processes all call it, and all get the same.

        Args:
          variables: of the system.
          baselines: whether those of the configuration are evaluated, too.
          prefix: of the names of the metrics.
          go_on: called before every batch and every evaluator, by all processes equally often; to
            end the evaluation it raises something.

        Returns:
          {"PREFIX/EVALUATOR/METRIC": value} and {"eval/BASELINE/EVALUATOR/METRIC": value}.
        """
        if not self.enabled:
            return {}
        evaluate = partial(self._evaluate, go_on=go_on)
        metrics = evaluate(prefix, self._evaluators, partial(self._encoded, variables))
        if not baselines:
            return metrics
        if compared := self._compared_with("raw"):
            metrics |= evaluate("eval/raw", compared, self._raw)
        if compared := self._compared_with("random"):
            key = stream(jax.random.key(self._config.seed), "init")
            init = jax.jit(
                self._system.jitted_init,
                out_shardings=replicated(self._mesh),
                compiler_options=run_once(self._system.shapes),
            )
            encoded = partial(self._encoded, init(key))
            metrics |= evaluate("eval/random", compared, encoded)
        return metrics

    def conditions(self) -> list[str]:
        """Says in lines what the figures belong to: examples, decoder, what evaluators read."""
        if not self.enabled:
            return []
        read = {split for each in self._evaluators.values() for split in each.splits}
        limits = {"train": self._config.eval.max_train_examples, "test": None}
        names = {"train": "training", "test": "test"}
        counts = " and ".join(
            f"{min(len(records), limits[split] or len(records)):,} {names[split]}"
            for split, records in self._splits.items()
            if split in read
        )
        views = view_count(self._system.inputs)
        seen = f", {views} views of each" if views > 1 else ""
        lines = [f"Evaluated on {counts} examples, not augmented{seen}."]
        if decoder := self._system.shapes["params"].get("decoder"):
            size = sum(leaf.size for leaf in jax.tree.leaves(decoder))
            section = self._config.system.get("decoder") or {}
            shape = [f"{key} {section[key]}" for key in ("width", "depth") if key in section]
            shown = ", ".join([*shape, f"{size:,} parameters"])
            lines.append(f"Pretrained with a decoder of {shown}, which is not evaluated.")
        for name, each in self._evaluators.items():
            lines.append(f"{name}: {type(each).__name__} of {', '.join(each.paths)}.")
        return lines

    def _compared_with(self, baseline: str) -> Mapping[str, Evaluator]:
        """Returns the evaluators that a baseline of the configuration makes sense for."""
        if baseline not in self._config.eval.baselines:
            return {}
        return {n: each for n, each in self._evaluators.items() if baseline in each.baselines}

    def _evaluate(
        self,
        prefix: str,
        evaluators: Mapping[str, Evaluator],
        read: Read,
        go_on: Callable[[], None],
    ) -> dict[str, float]:
        """Returns the figures of evaluators; `read` gives the features of batches."""
        features = {}
        for split in self._splits:
            readers = [each for each in evaluators.values() if split in each.splits]
            raw = {path: name for each in readers for path, name in each.raw.items()}
            paths = {path: raw.get(path) for each in readers for path in each.paths}
            found = {}
            if paths:
                with self._batches(split) as batches:
                    found = read(_before_each(go_on, batches), paths)
            features[split] = {
                path: dataclasses.replace(each, mesh=self._mesh) for path, each in found.items()
            }
        return {
            f"{prefix}/{name}/{metric}": float(value)
            for name, evaluator in _before_each(go_on, evaluators.items())
            for metric, value in evaluator(features["train"], features["test"]).items()
        }

    def _encoded(self, variables: Any, batches: Iterable[Batch], paths: Mapping) -> dict:
        place = partial(place_batch, self._mesh)
        with jax.set_mesh(self._mesh):  # as in training, so that the program is the same
            return extract(self._select(paths), variables, batches, place)

    def _raw(self, batches: Iterable[Batch], paths: Mapping[str, str | None]) -> dict:
        # A map that a probe is to tell is no data that it could be told from.
        read = {path for each in self._evaluators.values() for path in each.paths}
        inputs = {n: each for n, each in self._system.inputs.items() if f"batch.{n}" not in read}
        return raw_features(map(self._whole, batches), inputs, paths)

    def _select(self, paths: Iterable[str]) -> Select:
        """Returns the function of the outputs at some paths, compiled once."""
        paths = tuple(paths)
        if paths not in self._selectors:
            self._selectors[paths] = selector(self._system.encode, paths)
        return self._selectors[paths]

    def _check_paths(self) -> None:
        select = self._select(path for each in self._evaluators.values() for path in each.paths)
        batch = batch_shapes(self._system.inputs, 1, train=False)
        shapes = jax.eval_shape(select, self._system.shapes, batch)
        for evaluator in self._evaluators.values():
            check_vectors(shapes, evaluator)

    def _whole(self, batch: Batch) -> Batch:
        """Returns a batch with the rows of all processes, on the host."""
        return batch if jax.process_count() == 1 else fetch(place_batch(self._mesh, batch))

    def _batches(self, split: str) -> BatchIterator:
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
            views=view_count(self._system.inputs),
        )


def _before_each(act: Callable[[], None], items: Iterable[T]) -> Iterator[T]:
    """Yields items, and does something before each of them."""
    for item in items:
        act()
        yield item
