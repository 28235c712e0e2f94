"""Settings of all tests: eight simulated CPU devices, and strict shapes."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

GOLDENS = os.path.join(os.path.dirname(__file__), "goldens")


@pytest.fixture(scope="session")
def golden():
    """Returns a function that loads the arrays of a reference run by name."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(os.path.join(GOLDENS, f"{name}.npz")) as file:
            return dict(file)

    return load
