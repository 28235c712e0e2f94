"""A run: everything that follows from a configuration before the first step, checked."""

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Sized
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from maskjax.config import ConfigDict, build, differences, from_json, to_json
from maskjax.errors import UserError
from maskjax.files import replace_file
from maskjax.parallel import processes
from maskjax.parallel.devices import run_once
from maskjax.parallel.flops import count_flops
from maskjax.parallel.mesh import check_batch, make_mesh
from maskjax.parallel.sharding import lay_out, on_mesh
from maskjax.systems import System, build_system
from maskjax.training.durations import Clock
from maskjax.training.layout import check_layout
from maskjax.training.pretrained import CONFIG_FILE, restore_part
from maskjax.training.schedules import Schedule
from maskjax.training.state import TrainState, abstract_state, init_state
from maskjax.training.step import make_train_step

NON_FINITE = ("raise", "skip", "rollback")


@dataclasses.dataclass(frozen=True)
class Run:
    """What training and evaluation are made of.

    Attributes:
      config: the resolved configuration.
      system: the method.
      records: of the training split; has `__len__`.
      mesh: of the devices.
      clock: converts durations to steps.
      optimizer: gradients -> direction.
      schedule: step -> learning rate.
    """

    config: ConfigDict
    system: System
    records: Any  # data.Records; in a plan, a `range`
    mesh: Mesh
    clock: Clock
    optimizer: optax.GradientTransformation
    schedule: Schedule

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.clock.length

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """Shapes and shardings of the training state."""
        parallel = self.config.parallel
        return abstract_state(
            self.system, self.optimizer, self.mesh, parallel.fsdp_min_size, parallel.rules
        )

    def init_state(self) -> TrainState:
        """Returns the state before the first step, laid out on the mesh.

        Raises:
          UserError: weights of an earlier run are wanted that cannot be read.
        """
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state)
        init = jax.jit(
            lambda: init_state(self.system, self.optimizer, self.config.seed),
            out_shardings=shardings,
            compiler_options=run_once(self.system.shapes),
        )
        state = init()
        variables = self.system.load_pretrained(state.variables, restore_part)
        return dataclasses.replace(state, variables=lay_out(variables, shardings.variables))

    @functools.cached_property
    def jitted_step(self) -> Any:
        """(state, batch) -> (state, metrics), jitted; the state is donated.

        To be lowered while the mesh is set.
        """
        step = make_train_step(
            self.system,
            self.optimizer,
            self.schedule,
            self.total_steps,
            self.config.train.accumulate,
        )
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state)
        return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))

    def model_flops(self, variables: Any, batch: Any) -> int:
        """Returns the FLOPs of a step by convention: three forward passes, no recomputation.

        Augmentation is not of the model.

        Args:
          variables: of the system; arrays or shapes, as the batch.
          batch: of training, over all devices.
        """

        def augment(batch: Any) -> Any:
            return self.system.augment(jax.random.key(0), batch)

        batch = on_mesh(jax.eval_shape(augment, batch))
        return 3 * count_flops(self.system.draw_terms, variables, batch, self.abstract_state.rng)


def prepare(
    config: ConfigDict,
    devices: list[jax.Device] | None = None,
    records: Sized | None = None,
) -> Run:
    """Builds a run from its configuration.

    Args:
      config: resolved.
      devices: of the mesh; None: all that there are.
      records: of the training split; None: those of the source. A plan gives their number alone,
        as a `range`.

    Raises:
      UserError: any mistake in the configuration or the data that can be seen without training.
    """
    if config.train.non_finite not in NON_FINITE:
        raise UserError(
            f"train.non_finite is one of {', '.join(NON_FINITE)}, not '{config.train.non_finite}'."
        )
    mesh = make_mesh(config.parallel.mesh, devices)
    batch_size = config.train.batch_size
    check_batch(mesh, batch_size, config.train.accumulate)
    with jax.set_mesh(mesh):  # as in training, which then uses what is traced here
        system = build_system(config)
    if records is None:
        records = build(config.data.source).open(config.data.train_split)
        system.check_records(records)
    if len(records) < batch_size:
        raise UserError(
            f"The training split has {len(records)} examples, fewer than one batch: "
            f"reduce train.batch_size ({batch_size})."
        )
    clock = Clock(batch_size, steps_per_epoch=len(records) // batch_size)
    total_steps = clock.steps(config.train.duration, "train.duration")
    if total_steps < 1:
        raise UserError(f"train.duration = '{config.train.duration}' is less than one step.")
    clock = dataclasses.replace(clock, total_steps=total_steps)
    for section, key in (
        ("checkpoint", "every"),
        ("checkpoint", "keep_every"),
        ("eval", "every"),
        ("log", "every"),
        ("log", "pictures_every"),
    ):
        clock.interval(config[section][key], f"{section}.{key}")
    run = Run(
        config=config,
        system=system,
        records=records,
        mesh=mesh,
        clock=clock,
        optimizer=build(config.optimizer).build(total_steps),
        schedule=build(config.schedule).build(clock),
    )
    check_layout(config, mesh, run.abstract_state.variables["params"])
    return run


def claim_workdir(workdir: Path, config: ConfigDict, say: Callable[[str], None]) -> None:
    """Creates the directory of a run, or checks that the one that exists is of the same model.

    Nothing is written yet: the checkpoints may still turn out to be of another model.

    Raises:
      UserError: it cannot be written, it holds a run of another model, or other processes do not
        see it.
    """
    existing = workdir / CONFIG_FILE
    if existing.exists():
        before = read_config(workdir)
        model = differences(config.system, before.system)
        if model:
            key, (here, there) = next(iter(model.items()))
            raise UserError(
                f"{workdir} holds a run of another model (system.{key} is {there} there and {here} "
                "here): choose another --workdir, or give the same configuration."
            )
        for key, (here, there) in differences(config, before).items():
            say(f"config.{key} is {here}; it was {there} when this run was started")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=workdir).close()
    except OSError as error:
        raise UserError(
            f"The work directory {workdir} cannot be written ({error.strerror}): choose another "
            "--workdir."
        ) from None
    processes.check_shared(workdir)


def write_config(workdir: Path, config: ConfigDict) -> None:
    """Writes the configuration of a run into its directory, by the first process alone."""
    if processes.is_first():
        replace_file(workdir / CONFIG_FILE, (to_json(config) + "\n").encode())


def read_config(workdir: Path) -> ConfigDict:
    """Returns the configuration of a run.

    Raises:
      UserError: the directory is not that of a run.
    """
    try:
        return from_json((workdir / CONFIG_FILE).read_text())
    except FileNotFoundError:
        raise UserError(
            f"{workdir} is not the directory of a run: it has no {CONFIG_FILE}."
        ) from None
    except ValueError as error:
        raise UserError(f"{workdir / CONFIG_FILE} is not valid JSON ({error}).") from None
