"""A tokenizer as a teacher (BEiT): which codes are predicted, where, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.data import Image
from maskjax.errors import UserError
from maskjax.masking import Block
from maskjax.models import LinearHead, ViT, VQDecoder, VQEncoder
from maskjax.models.vq import nearest_code
from maskjax.objectives import MaskedCrossEntropy
from maskjax.systems import CodeTeacher, MaskedAutoencoder, VQTokenizer
from maskjax.targets import Codes
from maskjax.tokens import TokenGrid
from maskjax.training.gradients import loss_and_gradients
from maskjax.training.streams import STREAMS

IMAGE = Image(size=(8, 8), channels=1, mean=(0.5,), std=(0.5,))
LEVELS = dict(width=4, multipliers=(1, 2), blocks=1, dtype="float32")  # a code for 2 x 2 pixels
VQ = VQTokenizer("runs/vq", VQEncoder(**LEVELS, latent_width=4), VQDecoder(**LEVELS), 8)


def make(patch=(2, 2), tokenizer=VQ, vocabulary=8):
    return MaskedAutoencoder(
        encoder=ViT(
            patch_size=patch, width=8, depth=1, heads=2, mask_token=True, relative_bias=True
        ),
        decoder=LinearHead(),
        mask=Block(ratio=0.4, min_block=2),
        teachers={"codes": CodeTeacher(tokenizer)},
        targets={"codes": Codes(vocabulary=vocabulary)},
        terms={"codes": MaskedCrossEntropy("decoder.prediction", "targets.codes")},
        inputs={"image": IMAGE},
    )


@pytest.fixture(scope="module")
def state():
    system = make()
    system.check()
    variables = jax.jit(system.init)(jax.random.key(0))
    images = jax.random.randint(jax.random.key(1), (4, 8, 8, 1), 0, 256).astype(jnp.uint8)
    batch = {"image": images, "_mask": jnp.ones(4, bool)}
    masks = jax.jit(system.sample_masks)(jax.random.key(2), variables, batch)
    return system, variables, batch, masks


@pytest.fixture(scope="module")
def loss_and_grads(state):
    system, *inputs = state
    keys = {name: jax.random.key(0) for name in STREAMS}
    return jax.jit(lambda *a: loss_and_gradients(system, *a, keys, 1)[:2])(*inputs)


def test_predicts_the_codes_of_the_hidden_tokens_of_the_whole_image(state, loss_and_grads):
    system, variables, batch, masks = state
    out = jax.jit(system.forward)(variables, batch, masks)
    teacher = variables["teacher"]["codes"]
    encode = jax.jit(VQ.encoder.apply)
    latents = encode({"params": teacher["encoder"]}, IMAGE.normalise(batch["image"]))
    expected = nearest_code(latents, teacher["table"])
    codes = out["targets"]["codes"]
    np.testing.assert_array_equal(codes, expected)
    assert len(np.unique(codes)) > 1
    logits = out["decoder"]["prediction"]
    assert logits.shape == (4, 16, 8)
    hidden = np.asarray(masks["image"].is_masked)
    assert (hidden.sum(axis=1) == 6).all()
    shares = jax.nn.log_softmax(logits)[np.arange(4)[:, None], np.arange(16)[None, :], codes]
    np.testing.assert_allclose(loss_and_grads[0], -np.asarray(shares)[hidden].mean(), rtol=1e-5)


def test_the_tokenizer_is_loaded_and_left_alone(state, loss_and_grads):
    system, variables = state[:2]
    asked = []

    def restore(run, path, abstract, checkpoint, network):
        asked.append((run, path))
        return jax.tree.map(lambda x: jnp.full(x.shape, 0.5, x.dtype), abstract)

    loaded = system.load_pretrained(variables, restore)
    assert ("runs/vq", "stats/codebook/table") in asked and len(asked) == 3
    assert all((x == 0.5).all() for x in jax.tree.leaves(loaded["teacher"]))
    assert set(loss_and_grads[1]) == {"encoder", "decoder"}


def test_refusals(state):
    variables = state[1]
    with pytest.raises(UserError, match="2x2 codes and the student has 4x4 tokens"):
        make(tokenizer=dataclasses.replace(VQ, encoder=VQEncoder(**LEVELS | dict(stem=2)))).check()
    nameless = make(tokenizer=VQTokenizer(None, VQ.encoder, VQ.decoder, 8))
    nameless.check()
    with pytest.raises(UserError, match=r"teachers\.codes\.tokenizer\.run"):
        nameless.load_pretrained(variables, lambda *_: None)
    grid = TokenGrid.of((8, 8), (2, 2), 1)
    for wrong in (jnp.zeros((2, 16)), jnp.zeros((2, 9), jnp.int32)):
        with pytest.raises(UserError, match="one code for each of the 16 tokens"):
            Codes("codes")({"codes": wrong}, grid)
