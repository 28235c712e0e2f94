"""The training loop: from a run and a directory to trained variables.

Order of a run: restore or initialise, compile the step once, then step by step: read, dispatch,
look at the metrics of the step BEFORE (so the device never waits for the host), save and evaluate
when due. What is evaluated is saved before: who resumes there does what is missing. SIGTERM ends
the run after the current step, with a checkpoint, or in the middle of an evaluation; with several
processes, it ends all at the same place, whichever of them gets it.
"""

import contextlib
import dataclasses
import signal
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from maskjax.data import CorruptRecords, train_batches
from maskjax.errors import UserError
from maskjax.parallel import processes
from maskjax.parallel.devices import in_this_thread, peak_flops
from maskjax.parallel.sharding import batch_rows, fetch, place_batch
from maskjax.training.checkpoints import Checkpoints
from maskjax.training.pretrained import CHECKPOINTS
from maskjax.training.progress import Progress
from maskjax.training.run import Run, write_config
from maskjax.training.same_data import check_data, write_data
from maskjax.training.startup import keep_report, startup_report
from maskjax.training.state import TrainState
from maskjax.training.stopwatch import Stopwatch
from maskjax.training.writers import METRICS_FILE, MetricWriter, read_metrics

# (variables, step, final, go_on) -> metrics. It calls `go_on` now and then, with several processes
# equally often in all of them, and lets through what that raises: the run is to stop.
Evaluate = Callable[[Any, int, bool, Callable[[], None]], dict[str, float]]


class Stopped(Exception):
    """SIGTERM came in the middle of an evaluation."""


class NonFinite(Exception):
    """A step had a loss or gradient that is not finite, and the run is to roll back."""


def train(
    run: Run,
    workdir: Path,
    evaluate: Evaluate,
    draw: Callable[[Any, int], None],
    watch: Stopwatch | None = None,
) -> bool:
    """Trains to the end, or until SIGTERM.

    Args:
      run: from `prepare`.
      workdir: of the run, claimed.
      evaluate: called when an evaluation is due and at the end; its metrics are written.
      draw: called when pictures are due and at the end.
      watch: started with the command; the time of the run is told by it at the end.

    Returns:
      True when the run is complete, False when SIGTERM stopped it.

    Raises:
      UserError: the loss is not finite, too many records are corrupt, no checkpoint can be read,
        the data set is not that with which the run began.
    """
    with jax.set_mesh(run.mesh), _sigterm() as stopping:
        watch = watch or Stopwatch("starting")
        return _Trainer(run, workdir, evaluate, draw, stopping, watch).run_all()


class _Trainer:
    """The parts of a run in progress."""

    def __init__(
        self,
        run: Run,
        workdir: Path,
        evaluate: Evaluate,
        draw: Callable[[Any, int], None],
        stopping: Callable[[], bool],
        watch: Stopwatch,
    ) -> None:
        config, clock = run.config, run.clock
        self.run, self.workdir = run, workdir
        self.evaluate, self.draw, self.stopping, self.watch = evaluate, draw, stopping, watch
        self.log_every = clock.interval(config.log.every, "log.every")
        self.save_every = clock.interval(config.checkpoint.every, "checkpoint.every")
        self.eval_every = clock.interval(config.eval.every, "eval.every")
        self.draw_every = clock.interval(config.log.pictures_every, "log.pictures_every")
        self.checkpoints = Checkpoints(
            workdir / CHECKPOINTS,
            keep_last=config.checkpoint.keep_last,
            keep_every=clock.interval(config.checkpoint.keep_every, "checkpoint.keep_every"),
            asynchronous=config.checkpoint.asynchronous,
        )
        self.corrupt = CorruptRecords(run.records, config.data.corrupt_limit)
        self.skipped = 0  # steps in a row without an update
        self.step_function: Callable | None = None

    def run_all(self) -> bool:
        """Trains, evaluates, and closes what was opened, whatever happens."""
        check_data(self.workdir, self.run.records)
        restored = self.checkpoints.restore_latest(self.run.abstract_state)
        write_config(self.workdir, self.run.config)
        write_data(self.workdir, self.run.records)
        if restored is None:
            start, state, why = 0, self.run.init_state(), "step 0: no checkpoint in the directory"
        else:
            (start, state), why = restored, f"step {restored[0]}: its checkpoint is the newest"
        self.report = startup_report(self.run, why)
        processes.say(self.report)
        first = processes.is_first()
        tensorboard = self.run.config.log.tensorboard
        self.progress = Progress(
            self.run.total_steps, start, self.run.config.train.batch_size, enabled=first
        )
        self.writer = MetricWriter(
            self.workdir, start, tensorboard, enabled=first, say=self.progress.say
        )
        try:
            rollbacks = 0
            while True:
                try:
                    state, step = self._steps(state, start)
                    break
                except NonFinite as error:
                    rollbacks += 1
                    start, state = self._roll_back(error, rollbacks)
            with self.watch.on("saving"):
                self.checkpoints.save(step, state, wait=True)
            if step < self.run.total_steps:
                self._tell_time(step)
                self.progress.say(
                    f"Stopped by SIGTERM: step {step} is saved; start again to go on."
                )
                return False
            self.progress.close()
            return self._finish(state, step)
        finally:
            self.progress.close()
            self.writer.close()
            self.checkpoints.close()

    def _steps(self, state: TrainState, start: int) -> tuple[TrainState, int]:
        """Takes steps from `start` to the end or to SIGTERM."""
        run, pending = self.run, None
        missing = self._due(self.eval_every, start) and not self._has_written(start, "eval/")
        if missing and not self._evaluate(state, start):
            return state, start
        self._open_window(start)
        with (
            contextlib.closing(self._batches(start)) as batches,
            self.watch.on("training"),
        ):
            for step in range(start + 1, run.total_steps + 1):
                with self.watch.on("waiting for data"):
                    batch = next(batches)
                if self.step_function is None:
                    keep_report(self.workdir, self.report)
                    with self.watch.on("compiling"):
                        self.step_function = self._compile(state, batch)
                with jax.transfer_guard("disallow"):
                    state, metrics = self.step_function(state, batch)
                if pending:
                    self._look(*pending)
                pending = (step, metrics)
                self.checkpoints.check()

                stop = self.stopping()
                save, evaluate, draw = (
                    self._due(every, step)
                    for every in (self.save_every, self.eval_every, self.draw_every)
                )
                if save or evaluate or draw or stop or step == run.total_steps:
                    self._look(*pending)
                    pending = None
                if draw:
                    self._draw(state, step)
                if save or evaluate:  # after drawing: who resumes here does not draw again
                    with self.watch.on("saving"):
                        self.checkpoints.save(step, state)
                if stop or (evaluate and not self._evaluate(state, step)):
                    return state, step
        return state, run.total_steps

    def _batches(self, start: int) -> Generator[dict[str, jax.Array], None, None]:
        """Yields the batches of the steps after `start`, on the devices."""
        data, run = self.run.config.data, self.run
        host = train_batches(
            run.records,
            run.system.inputs,
            batch_size=run.config.train.batch_size,
            seed=run.config.seed,
            start=start,
            stop=run.total_steps,
            workers=data.workers,
            threads=data.threads,
            prefetch=data.prefetch,
            rows=batch_rows(run.mesh, run.config.train.batch_size),
        )
        with contextlib.closing(host):
            for batch in host:
                self.corrupt.update(batch)
                wanted = {k: v for k, v in batch.items() if k != "_index"}
                yield place_batch(run.mesh, wanted)

    def _compile(self, state: TrainState, batch: dict[str, jax.Array]) -> Callable:
        """Compiles the step, once: the result refuses other shapes instead of compiling again."""
        run, before = self.run, self.watch.seconds("compiling")
        compiled = run.jitted_step.lower(state, batch).compile()
        seconds = self.watch.seconds("compiling") - before
        self.progress.say(f"The step was compiled in {seconds:.1f} s.")
        peak = peak_flops(run.mesh.devices.flat[0])
        self.peak_flops = peak and peak * run.mesh.size
        self.step_flops = run.model_flops(state.variables, batch) if peak else 0
        return in_this_thread(compiled)

    def _look(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Fetches the metrics of a step, shows and writes them, and acts if they are not finite."""
        values = fetch(metrics)
        finite = bool(values.pop("finite"))
        waited, spent = self._spent()
        waited, seconds = waited - self.window_waited, max(spent - self.window_spent, 1e-9)
        rate = (step - self.window_step) * self.run.config.train.batch_size / seconds
        self.progress.update(step, float(values["loss"]))
        due = self.log_every and step % self.log_every == 0
        if due or step == self.run.total_steps or not finite:
            log = {f"train/{name}": value for name, value in values.items()}
            log |= {
                "train/examples_per_second": rate,
                "train/data_wait_share": waited / seconds,
                "train/epoch": step / self.run.clock.steps_per_epoch,
            }
            if self.peak_flops:
                steps_per_second = rate / self.run.config.train.batch_size
                log["train/mfu"] = self.step_flops * steps_per_second / self.peak_flops
            self.writer.write(step, log)
            self._open_window(step)
        self.skipped = 0 if finite else self.skipped + 1
        if not finite:
            self._act_on_non_finite(step)

    def _act_on_non_finite(self, step: int) -> None:
        train = self.run.config.train
        if train.non_finite == "rollback":
            raise NonFinite(f"The loss or gradient of step {step} is not finite")
        if train.non_finite == "skip" and self.skipped < train.non_finite_limit:
            self.progress.say(f"Step {step} is skipped: its loss or gradient is not finite.")
            return
        self.checkpoints.wait()
        steps = self.checkpoints.steps()
        kept = f"checkpoint {steps[-1]} is kept" if steps else "there is no checkpoint yet"
        raise UserError(
            f"The loss or gradient is not finite at step {step} ({kept}): lower schedule.base_lr, "
            "set optimizer.clip_norm, or set train.non_finite to 'skip' or 'rollback'."
        )

    def _roll_back(self, error: NonFinite, rollbacks: int) -> tuple[int, TrainState]:
        """Returns to the newest checkpoint, with other random draws from there on."""
        if rollbacks > self.run.config.train.non_finite_limit:
            raise UserError(
                f"{error}, after {rollbacks - 1} rollbacks: lower schedule.base_lr or set "
                "optimizer.clip_norm."
            ) from None
        self.checkpoints.wait()
        restored = self.checkpoints.restore_latest(self.run.abstract_state)
        step, state = restored or (0, self.run.init_state())
        key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), rollbacks)
        self.writer.rewind(step)
        self.progress.say(f"{error}: back to step {step}, with other random draws.")
        return step, dataclasses.replace(state, rng=jax.random.key_data(key))

    def _due(self, every: int | None, step: int) -> bool:
        """Whether what happens so often is due now; at the end `_finish` does it."""
        return bool(every) and step % every == 0 and 0 < step < self.run.total_steps

    def _has_written(self, step: int, name: str) -> bool:
        """Whether a metric whose name begins so is there for a step; the same in all processes."""
        lines = read_metrics(self.workdir / METRICS_FILE)
        names = (key for line in lines if line["step"] == step for key in line)
        return processes.from_first(str(any(n.startswith(name) for n in names))) == str(True)

    def _evaluation(self, state: TrainState, step: int, final: bool) -> dict[str, float] | None:
        """Returns the metrics of an evaluation; None if SIGTERM came before its end."""

        def go_on() -> None:
            if self.stopping():
                raise Stopped

        try:
            with self.watch.on("evaluating"):
                return self.evaluate(state.variables, step, final, go_on)
        except Stopped:
            return None

    def _evaluate(self, state: TrainState, step: int) -> bool:
        """Evaluates and writes the result; False if SIGTERM came before that."""
        metrics = self._evaluation(state, step, final=False)
        if metrics:
            self.writer.write(step, metrics)
        return metrics is not None

    def _draw(self, state: TrainState, step: int) -> None:
        with self.watch.on("drawing"):
            try:
                self.draw(state.variables, step)
            except OSError as error:
                if processes.joined():
                    raise
                self.progress.say(
                    f"The pictures of step {step} could not be written ({error}). The training "
                    "goes on."
                )

    def _finish(self, state: TrainState, step: int) -> bool:
        """Draws and evaluates at the end, unless an earlier start of this run has done so.

        Returns:
          False if SIGTERM came before the result was written: the next start does it again.
        """
        if self._has_written(step, "train/finished"):
            processes.say(f"This run was finished before, at step {step}: there is nothing to do.")
            return True
        processes.say("The training is complete; drawing and evaluating.")
        self._draw(state, step)
        metrics = self._evaluation(state, step, final=True)
        if metrics is None:
            self._tell_time(step)
            processes.say(f"Stopped by SIGTERM: step {step} is saved; start again to evaluate it.")
            return False
        self.writer.write(step, metrics | {"train/finished": 1.0})
        self._tell_time(step)
        return True

    def _tell_time(self, step: int) -> None:
        """Says and writes what this process has spent its time on."""
        processes.say(f"Time: {self.watch}.")
        seconds = self.watch.all().items()
        self.writer.write(step, {f"time/{name.replace(' ', '_')}": each for name, each in seconds})

    def _spent(self) -> tuple[float, float]:
        """Returns seconds spent waiting for data, and on steps and their data."""
        waited = self.watch.seconds("waiting for data")
        return waited, waited + self.watch.seconds("training")

    def _open_window(self, step: int) -> None:
        """Begins the period that the next line of metrics is about."""
        self.window_step = step
        self.window_waited, self.window_spent = self._spent()


@contextlib.contextmanager
def _sigterm() -> Generator[Callable[[], bool], None, None]:
    """Catches SIGTERM while the loop runs; yields a function that says whether it came.

    With several processes all have to call it equally often.
    """
    if processes.joined():
        # JAX's runtime has taken the signal: it tells the others, and they all stop at one step.
        yield _Preemption()
        return
    received = []
    try:
        before = signal.signal(signal.SIGTERM, lambda *_: received.append(True))
    except ValueError:  # not in the main thread: the signal is somebody else's
        yield lambda: False
        return
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGTERM, before)


class _Preemption:
    """Says whether one of the processes got SIGTERM, at the same call in all of them.

    Calls are counted here: steps would not do, since they go back after a rollback.
    """

    def __init__(self) -> None:
        self._calls, self._reached = 0, False

    def __call__(self) -> bool:
        self._calls += 1
        # True at one call only, hence remembered.
        self._reached |= multihost_utils.reached_preemption_sync_point(self._calls)
        return self._reached
