"""What training, evaluation and export need of a method."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from maskjax.config import nearest
from maskjax.data import Input, Records, augment_batch, batch_shapes
from maskjax.errors import UserError
from maskjax.objectives import Term, TermValue
from maskjax.parallel.sharding import on_mesh

Variables = dict[str, Any]  # {"params": trained by gradients, "stats": ..., "teacher": ...}
Batch = Mapping[str, jax.Array]
Masks = dict[str, Any]  # modality or purpose -> Mask, or another struct of indices
Rngs = Mapping[str, jax.Array]
# (directory of a run, path in its variables such as "params/encoder", abstract tree, step, module
# that will use it) -> tree.
Restore = Callable[[str, str, Any, int | None, Any], Any]
FORWARD_STREAMS = ("dropout", "noise")  # random streams that a forward pass in training reads


@dataclasses.dataclass(frozen=True, kw_only=True)
class System:
    """One published method. All methods but `check` and `load_pretrained` are pure and jittable.

    Variables are a dict of trees: `params`, which the optimiser changes; `stats`, running
    statistics that a forward pass renews, if the method has any; `teacher`, parameters that follow
    the student or stay, if it has one.

    Attributes:
      terms: {name: term}, the objective.
      inputs: {name: input}, what the model sees, from `config.data.inputs`.
      batch_size: examples of a micro-batch; with so many `check_terms` traces the objective.
    """

    terms: Mapping[str, Term]
    inputs: Mapping[str, Input] = dataclasses.field(
        default_factory=dict, metadata={"runtime": True}
    )
    batch_size: int = dataclasses.field(default=1, metadata={"runtime": True})

    titles = ("original", "masked", "prediction", "paste-back")  # of `reconstruct`, in order
    shows_predictions = True  # whether `reconstruct` shows anything that was predicted

    @property
    def view(self) -> str:
        """How reports draw what `reconstruct` returns, a module of `report.views`."""
        return self.input(self.reads[0]).view

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the inputs that `encode` and `reconstruct` read; terms read others."""
        name = getattr(self, "input_name", None)
        return tuple(self.inputs) if name is None else (name,)

    def check(self) -> None:
        """Raises a UserError if the parts do not fit each other or the data."""
        _ = self.shapes  # traces `init`

    def check_terms(self) -> None:
        """Raises a UserError if terms, targets or heads read what is not there.

        The objective is traced for this, on a micro-batch of training. So the step of a run whose
        mesh is set here, and whose data have labels as most have, need not trace it again.
        """

        def objective(variables: Variables, batch: Batch, rng: jax.Array) -> Any:
            return self.draw_terms(
                variables, self.augment(jax.random.wrap_key_data(rng), batch), rng
            )

        batch = batch_shapes(self.inputs, self.batch_size, train=True)
        batch = {"label": jax.ShapeDtypeStruct((self.batch_size,), jnp.int32)} | batch
        jax.eval_shape(objective, *on_mesh((self.shapes, batch)), _key_data())

    def draw_terms(self, variables: Variables, batch: Batch, rng: jax.Array) -> Any:
        """Returns the terms of an augmented batch with all draws from one key, to be counted.

        Args:
          rng: data of the key.
        """
        key = jax.random.wrap_key_data(rng)
        masks = self.sample_masks(key, variables, batch, jnp.zeros(()))
        return self.jitted_terms(variables, batch, masks, dict.fromkeys(FORWARD_STREAMS, key))

    @functools.cached_property
    def shapes(self) -> Variables:
        """Shapes and dtypes of the variables, without memory for them; traced once."""
        return jax.eval_shape(
            lambda rng: self.jitted_init(jax.random.wrap_key_data(rng)), _key_data()
        )

    # Python traces a function once for all calls of one jitted function with equal shapes, under
    # one mesh, also within other programs, which XLA makes no different by it.

    @functools.cached_property
    def jitted_init(self) -> Callable[[jax.Array], Variables]:
        """`init`, traced once for the shapes and for the programs that draw."""
        return jax.jit(self.init)

    @functools.cached_property
    def jitted_terms(self) -> Callable[..., tuple[dict[str, TermValue], Any]]:
        """`term_values`, traced once for `check_terms`, the step and the count of its FLOPs."""
        return jax.jit(self.term_values)

    def check_records(self, records: Records) -> None:
        """Raises a UserError if the training split lacks what the system learns from: labels."""

    def init(self, rng: jax.Array) -> Variables:
        """Returns freshly initialised variables."""
        raise NotImplementedError

    def load_pretrained(self, variables: Variables, restore: Restore) -> Variables:
        """Puts weights of earlier runs in place, once, before the first step.

        Args:
          variables: fresh.
          restore: reads variables of a run; systems do not know how runs are stored.
        """
        del restore
        return variables

    def augment(self, rng: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Varies a batch of training inside the step: here, every input by its own rule."""
        return augment_batch(self.inputs, rng, batch)

    def sample_masks(
        self, rng: jax.Array, variables: Variables, batch: Batch, progress: jax.Array | float = 0.0
    ) -> Masks:
        """Draws the masks of a batch; `progress` is the share of the training that is done."""
        raise NotImplementedError

    def forward(
        self, variables: Variables, batch: Batch, masks: Masks, rngs: Rngs | None = None
    ) -> dict[str, Any]:
        """Runs everything that the terms may read and returns it, nested and named.

        `out["stats"]` are the renewed running statistics, if the variables have `stats`. Without
        `rngs` nothing is drawn: no dropout, no noise.
        """
        raise NotImplementedError

    def term_values(
        self, variables: Variables, batch: Batch, masks: Masks, rngs: Rngs | None = None
    ) -> tuple[dict[str, TermValue], Any]:
        """Returns the value of every term, not yet divided by its count, and the renewed stats."""
        out = self.forward(variables, batch, masks, rngs)
        values = {name: term(out, batch) for name, term in self.terms.items()}
        return values, jax.lax.stop_gradient(out.get("stats", {}))

    def update(self, variables: Variables, progress: jax.Array) -> Variables:
        """Renews what follows the parameters, after each step of the optimiser: a teacher."""
        del progress
        return variables

    def encode(self, variables: Variables, batch: Batch) -> dict[str, Any]:
        """Encodes without any mask, tokens in raster order: what probes and users read, by path."""
        raise NotImplementedError

    def reconstruct(self, variables: Variables, batch: Batch, masks: Masks) -> dict[str, jax.Array]:
        """Returns what a report draws, by the names in `titles`; pictures are in [0, 1]."""
        raise NotImplementedError

    def picture_note(self) -> str:
        """Says in one sentence what the pictures of `reconstruct` show and what they owe to."""
        return ""

    def input(self, name: str) -> Input:
        """Returns an input by name.

        Raises:
          UserError: there is none of this name; the message names the nearest.
        """
        if name not in self.inputs:
            raise UserError(f"data.inputs has no '{name}'{nearest(name, self.inputs)}")
        return self.inputs[name]


def _key_data() -> Any:
    """Returns the shape of the data of a key, on the mesh that is set, if any."""
    return on_mesh(jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))))
