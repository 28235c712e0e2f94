"""A quick plan reads what another process is writing."""

import jax
import jax.numpy as jnp

from maskjax.planning.probe import _is_whole


def test_a_program_is_read_when_it_is_whole():
    def program(x):
        y = jax.lax.fori_loop(0, 3, lambda _, y: jnp.tanh(y @ x), x)
        return jnp.sort(y, axis=0).sum()

    text = jax.jit(program).lower(jnp.ones((4, 4))).compile().as_text() + "\n"
    assert text.count("\n}") > 2
    assert _is_whole(text)
    end = len(text.rstrip())
    assert not any(_is_whole(text[:cut]) for cut in range(end))
