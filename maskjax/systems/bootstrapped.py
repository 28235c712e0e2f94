"""dBOT: the student becomes the teacher and starts anew (Liu et al., ICLR 2024, arXiv 2209.03917).

A configuration of `MaskedAutoencoder` cannot say this: at the end of a stage parameters of the
student are replaced as well, which no teacher can do. Everything else is that class.
"""

import dataclasses
import itertools
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.systems.masked_autoencoder import MaskedAutoencoder
from maskjax.systems.system import Variables
from maskjax.systems.teacher import FrozenTeacher

_EXECUTION = ("scan", "remat", "dtype", "drop_path", "parent", "name")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bootstrapped(MaskedAutoencoder):
    """A masked autoencoder in stages, each with the encoder of the one before as frozen teacher.

    `teachers` has one entry, `teacher`, whose network is that of the encoder. The learning rate and
    the moments of the optimiser run on over the stages, as in the original. The variables have
    `teacher/stage` int32 [], how many stages are complete, and `teacher/key`, key data from which
    students are initialised.

    Attributes:
      stages: shares of the training, in (0, 1) and growing, at which a stage ends: the step that
        reaches one is the last of its stage.
      first: teacher of the first stage, unless it is given a `run`: "student", the random weights
        that the student starts with, or "embedding", the same without the blocks, so that the
        features are embedded patches with positions (the paper's choice for ViT-L and H).
      keep_embed_bias: whether a new student keeps the bias of the patch embedding, as the published
        code does by chance.
    """

    stages: tuple[float, ...] = (0.5,)
    first: Literal["student", "embedding"] = "student"
    keep_embed_bias: bool = False

    def check(self) -> None:
        """Refuses stages that are no shares of the training, and a teacher of another shape."""
        bounds = (0.0, *self.stages, 1.0)
        if any(a >= b for a, b in itertools.pairwise(bounds)):
            raise UserError(
                f"system.stages is {self.stages}: give growing shares of the training between 0 "
                "and 1."
            )
        if self.first not in ("student", "embedding"):
            raise UserError(f"system.first is 'student' or 'embedding', not '{self.first}'.")
        if set(self.teachers) != {"teacher"}:
            raise UserError("This system has exactly one teacher: call it system.teachers.teacher.")
        teacher, encoder = self.teachers["teacher"], cast(Any, self.encoder)
        if not isinstance(teacher, FrozenTeacher):
            raise UserError("The student becomes the teacher: make it a systems.FrozenTeacher.")
        network = teacher.network
        for field in dataclasses.fields(encoder):
            here, there = (getattr(n, field.name, None) for n in (self.encoder, network))
            if field.name not in _EXECUTION and here != there:
                raise UserError(
                    f"The student becomes the teacher, but {field.name} is {here} in "
                    f"system.encoder and {there} in system.teachers.teacher.network: make the two "
                    "equal."
                )
        super().check()

    def init(self, rng: jax.Array) -> Variables:
        """Returns the variables of `MaskedAutoencoder` with the first teacher, stage and key."""
        variables = super().init(rng)
        first = jax.tree.map(jnp.copy, variables["params"]["encoder"])
        if self.first == "embedding":
            first = _without_blocks(first)
        counters = {"stage": jnp.zeros((), jnp.int32), "key": jax.random.key_data(rng)}
        return {**variables, "teacher": {**variables["teacher"], "teacher": first, **counters}}

    def update(self, variables: Variables, progress: jax.Array) -> Variables:
        """At the end of a stage, makes the student the teacher and starts another student."""
        variables = super().update(variables, progress)
        stage = sum((jnp.asarray(progress >= end, jnp.int32) for end in self.stages), jnp.int32(0))

        def begin(variables: Variables) -> Variables:
            teacher, params = variables["teacher"], variables["params"]
            key = jax.random.fold_in(jax.random.wrap_key_data(teacher["key"]), stage)
            # The explicit form: this function is no method, so it has no super() of its own.
            fresh = super(Bootstrapped, self).init(key)["params"]
            if self.keep_embed_bias:
                fresh["encoder"]["embed"]["bias"] = params["encoder"]["embed"]["bias"]
            return {
                **variables,
                "params": fresh,
                "teacher": {**teacher, "teacher": params["encoder"], "stage": stage},
            }

        due = stage > variables["teacher"]["stage"]
        return jax.lax.cond(due, begin, lambda variables: variables, variables)


def _without_blocks(params: Any) -> Any:
    """Makes every residual block of a ViT the identity: its two output layers become zero."""

    def zero(path: tuple, leaf: jax.Array) -> jax.Array:
        names = [key.key for key in path]
        output = "blocks" in names and names[-2] in ("out", "down")
        return jnp.zeros_like(leaf) if output else leaf

    return jax.tree_util.tree_map_with_path(zero, params)
