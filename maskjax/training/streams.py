"""Random streams: every draw of a run follows from one key, a name and the step."""

import jax

# The order is part of the contract: it numbers the streams. Append, never reorder.
STREAMS = ("init", "data", "augment", "mask", "dropout", "noise")


def stream(key: jax.Array, name: str, step: jax.Array | int = 0) -> jax.Array:
    """Returns the key of a stream at a step; independent of devices and of other streams."""
    return jax.random.fold_in(jax.random.fold_in(key, STREAMS.index(name)), step)
