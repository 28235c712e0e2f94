"""What XLA makes of the training step on CPUs."""

import re

import jax
import jax.numpy as jnp


def test_moments_are_updated_where_they_lie(tiny, one_device):
    run = one_device(tiny())
    shape = (run.config.train.batch_size, *run.system.inputs["image"].shape(False))
    batch = {"image": jax.ShapeDtypeStruct(shape, jnp.uint8)}
    with jax.set_mesh(run.mesh):
        compiled = run.jitted_step.lower(run.abstract_state, batch).compile()
    program = compiled.as_text()
    assert "opt_state" in program
    assert not re.findall(r" copy\(%\w*opt_state\w*mu", program)
