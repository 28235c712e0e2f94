"""The training step and its pictures are compiled once a run, whatever happens in it."""

import contextlib
import logging

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from maskjax.report.reconstructions import PICTURES, Reconstructions
from maskjax.training.loop import train


@contextlib.contextmanager
def compiled():
    """Yields a list of the names of what is compiled meanwhile."""
    names = []

    class Handler(logging.Handler):
        def emit(self, record):
            message = record.getMessage()
            if message.startswith("Finished XLA compilation of "):
                names.append(message.split()[4])

    handler, logger = Handler(), logging.getLogger("jax._src.dispatch")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield names
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


@pytest.fixture(autouse=True)
def no_cache(cache):
    """Nothing is read from the disk here."""
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", cache)
    compilation_cache.reset_cache()


def steps(names):
    return [name for name in names if "train_step" in name]


def test_one_compilation_per_run(tiny, launch, one_device, tmp_path):
    config = tiny(train__duration="12 steps", eval__every="1 steps", checkpoint__every="3 steps")
    run = one_device(config)

    @jax.jit
    def evaluator(variables):
        return jax.tree.reduce(lambda a, b: a + b.sum(), variables, 0.0)

    def evaluate(variables, *_):
        return {"eval/sum": float(evaluator(variables))}

    with compiled() as names:
        assert not launch(run, tmp_path, stop_after=5, evaluate=evaluate)
        assert len(steps(names)) == 1
        run = one_device(config)  # as in another process
        assert launch(run, tmp_path, evaluate=evaluate)
        assert len(steps(names)) == 2  # one of each start
        assert launch(one_device(config), tmp_path)  # finished: nothing to compile
        assert len(steps(names)) == 2
    assert sum("evaluator" in name for name in names) == 1


def test_pictures_are_compiled_once(tiny, one_device, tmp_path):
    config = tiny(log__pictures=2, log__pictures_every="5 steps")
    run = one_device(config)
    draw = Reconstructions(config, run.system, tmp_path, run.mesh)
    with compiled() as names:
        assert train(run, tmp_path, lambda *_: {}, draw)
    assert sum("reconstruct" in name for name in names) == 1
    assert len(list((tmp_path / PICTURES).iterdir())) == 4


def test_a_second_compilation_would_be_seen():
    @jax.jit
    def train_step(x):
        return x * 2

    with compiled() as names:
        train_step(np.zeros(2))
        train_step(np.ones(2))
        assert len(steps(names)) == 1
        train_step(np.zeros(3))
        assert len(steps(names)) == 2


def test_another_shape_is_refused():
    """The compiled step cannot be given another batch, which would compile it again."""
    step = jax.jit(lambda x: x + 1).lower(np.zeros(2)).compile()
    with pytest.raises(TypeError):
        step(np.zeros(3))
