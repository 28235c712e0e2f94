"""The image tokenizer as a system."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from maskjax.data import Image
from maskjax.errors import UserError
from maskjax.models import Codebook, VQDecoder, VQEncoder
from maskjax.objectives import CodePerplexity, MaskedRegression
from maskjax.systems import VQAutoencoder
from maskjax.training.state import init_state
from maskjax.training.step import make_train_step

TERMS = {
    "reconstruction": MaskedRegression("decoder.prediction", "patches", mask="masks.everything"),
    "commitment": MaskedRegression("latents", "quantised", mask="masks.everything", weight=0.25),
    "perplexity": CodePerplexity(size=8),
}
IMAGE = Image(size=(8, 8), channels=1, mean=(0.5,), std=(0.5,))


def make(image=IMAGE, **changes):
    levels = dict(width=8, multipliers=(1,), blocks=0, stem=2, dtype="float32") | changes
    return VQAutoencoder(
        encoder=VQEncoder(**levels, latent_width=4),
        decoder=VQDecoder(**levels),
        codebook=Codebook(size=8),
        terms=TERMS,
        inputs={"image": image},
    )


@pytest.fixture(scope="module")
def variables():
    return jax.jit(make().init)(jax.random.key(0))


@pytest.fixture(scope="module")
def batch():
    return {"image": 255 * jax.random.uniform(jax.random.key(1), (6, 8, 8, 1))}


@pytest.fixture(scope="module")
def outs(variables, batch):
    """Outputs in training and outside of it."""
    system = make()
    masks = system.sample_masks(jax.random.key(0), variables, batch)
    rngs = {"noise": jax.random.key(1)}
    run = jax.jit(lambda v, b: [system.forward(v, b, masks, r) for r in (rngs, None)])
    return run(variables, batch)


def test_loss_is_that_of_the_paper(outs, batch):
    out = outs[0]
    view = (batch["image"] / 255 - 0.5) / 0.5
    predicted = out["decoder"]["prediction"].reshape(6, 4, 4, 2, 2).swapaxes(2, 3)
    expected = jnp.mean((predicted.reshape(6, 8, 8, 1) - view) ** 2)
    expected += 0.25 * jnp.mean((out["latents"] - out["quantised"]) ** 2)
    values = {name: term(out, batch) for name, term in TERMS.items()}
    loss = sum(TERMS[name].weight * v.total / v.count for name, v in values.items())
    assert loss == pytest.approx(float(expected), rel=1e-5)


def test_the_codebook_is_renewed_in_training_only(variables, outs):
    trained, plain = outs
    before = variables["stats"]["codebook"]
    jax.tree.map(np.testing.assert_array_equal, plain["stats"]["codebook"], before)
    assert not np.allclose(trained["stats"]["codebook"]["table"], before["table"])


def test_it_learns_to_reconstruct(batch):
    """A few dozen steps on one batch, through the step of training."""
    system = make()
    optimizer = optax.scale_by_adam()
    step = jax.jit(make_train_step(system, optimizer, lambda step: 1e-2, 100, accumulate=1))
    state = init_state(system, optimizer, 0)
    losses, used = [], []
    for _ in range(40):
        state, metrics = step(state, batch)
        losses.append(float(metrics["terms/reconstruction"]))
        used.append(float(metrics["terms/perplexity"]))
    assert losses[-1] < 0.5 * losses[0]
    assert used[-1] > 2
    expected = metrics["terms/reconstruction"] + 0.25 * metrics["terms/commitment"]
    assert float(metrics["loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_codes_alone_make_the_reconstruction(variables, batch):
    system = make()

    @jax.jit
    def run(variables, batch):
        codes = system.encode(variables, batch)["encoder"]["codes"]
        return system.reconstruct(variables, batch, {}), codes, system.decode(variables, codes)

    pictures, codes, decoded = run(variables, batch)
    assert codes.shape == (6, 16)
    np.testing.assert_allclose(pictures["reconstruction"], decoded, atol=1e-5)
    np.testing.assert_allclose(pictures["original"], batch["image"] / 255, atol=1e-5)
    assert set(pictures) == set(system.titles)


def test_perplexity():
    term = CodePerplexity(size=4)
    codes = jnp.array([[0, 1], [0, 1], [2, 2]])
    value = term({"codes": codes}, {"_mask": jnp.array([True, True, False])})
    assert value.total / value.count == pytest.approx(2.0)
    assert value.metrics["used"] == 0.5


def test_refusals():
    with pytest.raises(UserError, match="not divisible"):
        make(Image(size=(9, 9), channels=1, mean=(0.5,), std=(0.5,))).check()
    mixed = make()
    object.__setattr__(mixed, "decoder", VQDecoder(width=4, multipliers=(1, 2), dtype="float32"))
    with pytest.raises(UserError, match="levels"):
        mixed.check()
