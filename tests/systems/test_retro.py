import dataclasses
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.config import ConfigDict, from_json, part, to_json, validate
from maskjax.data import Image, Text, TextFiles
from maskjax.data.vocabulary import train_vocabulary
from maskjax.errors import UserError
from maskjax.masking import EnhancedDecoding, WholeWords
from maskjax.models import BERT, PostNormBlock
from maskjax.report.views import columns
from maskjax.systems import RetroMAE, build_system

TEXT = Text(length=24)
TEXTS = ["the wing of a plane", "a flat plate", "shock waves at the wing", "heat"]


def system(**options):
    return RetroMAE(
        **{
            "encoder": BERT(width=8, depth=1, heads=2, positions=24, dtype="float32"),
            "decoder": PostNormBlock(heads=2, dtype="float32"),
            "mask": WholeWords(),
            "decoder_mask": EnhancedDecoding(masks=4),
            "duplex": True,
            "aggregate": 3,
            "terms": {},
            "inputs": {"text": TEXT},
            **options,
        }
    )


@pytest.fixture(scope="module")
def parts():
    retro = system()
    variables = jax.jit(retro.init)(jax.random.key(0))
    batch = {"text": jnp.asarray(TEXT.batch(TEXTS))}
    masks = jax.jit(lambda key: retro.sample_masks(key, variables, batch))(jax.random.key(1))
    return retro, variables, batch, masks


@pytest.fixture(scope="module")
def forward(parts):
    """Outputs and pictures of a batch, in one compilation."""
    retro, variables, _, masks = parts

    def both(batch):
        arguments = variables, batch, masks
        return {**retro.forward(*arguments), "pictures": retro.reconstruct(*arguments)}

    return jax.jit(both)


@pytest.fixture(scope="module")
def out(parts, forward):
    return jax.device_get(forward(parts[2]))


def test_what_is_predicted(parts, out):
    ids = np.asarray(parts[2]["text"])
    ordinary = ids > 4
    np.testing.assert_array_equal(out["targets"]["predicted"], ordinary)
    masked = np.asarray(out["masks"]["encoder"].is_masked)
    # "heat" is one word, of more bytes than may be masked of so short a text.
    np.testing.assert_array_equal(masked.any(axis=1), [True, True, True, False])
    assert not (masked & ~ordinary).any()
    assert out["encoder"]["logits"].shape == (4, round(0.3 * 24), 261)
    assert out["decoder"]["logits"].shape == (4, 24, 261)


def test_a_token_is_decoded_without_seeing_itself(parts, forward, out):
    """Changing one original token changes other predictions of the decoder, but not its own.

    The encoder sees the masked text alone.
    """
    _, _, batch, masks = parts
    place = 5
    other = jax.device_get(forward({"text": batch["text"].at[0, place].set(40)}))
    change = np.abs(other["decoder"]["tokens"] - out["decoder"]["tokens"])[0].max(axis=-1)
    real = np.asarray(batch["text"][0] > 0)
    attended = np.asarray(masks["decoder"].attend)[0, :, place]
    assert attended.any() and not attended[place]
    np.testing.assert_array_equal(change[real] > 0, attended[real])
    np.testing.assert_array_equal(other["encoder"]["cls"], out["encoder"]["cls"])


def test_encoding(parts):
    retro, variables, batch, _ = parts
    both = dataclasses.replace(retro, inputs={"text": TEXT, "text2": TEXT})
    batch = {"text": batch["text"], "text2": batch["text"][::-1]}
    out = jax.jit(both.encode)(variables, batch)
    np.testing.assert_allclose(out["encoder"]["cls"], out["text2"]["cls"][::-1], atol=1e-6)
    cls, words = np.split(np.asarray(out["encoder"]["aggregate"]), [8], axis=1)
    np.testing.assert_allclose(np.linalg.norm(cls, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(words, axis=1), 1, rtol=1e-5)
    assert ((words > 0).sum(axis=1) <= 3).all()
    largest = np.argsort(-np.asarray(out["encoder"]["bag"]), axis=1)[:, :3]
    assert (np.take_along_axis(words, largest, axis=1) > 0).any()


def test_dropout_needs_a_key(parts, out):
    retro, variables, batch, masks = parts
    dropped = jax.jit(
        lambda key: retro.forward(variables, batch, masks, {"dropout": key})["decoder"]["tokens"]
    )(jax.random.key(0))
    assert np.abs(out["decoder"]["tokens"] - dropped).max() > 1e-3


def test_pictures(parts, out):
    retro, _, batch, masks = parts
    arrays = out["pictures"]
    assert set(arrays) == set(retro.titles)
    marks = arrays["encoder"][..., 1]
    np.testing.assert_array_equal(marks > 0, masks["encoder"].is_masked)
    right = arrays["encoder"][..., 0] == batch["text"]
    np.testing.assert_array_equal(marks == 2, right & (marks > 0))
    drawn = columns(arrays, retro)
    assert [*drawn] == [*retro.titles] and drawn["decoder"].dtype == np.uint8


@pytest.mark.parametrize(
    "options, sentence",
    [
        (dict(inputs={"image": Image()}), "data.inputs has no 'text'"),
        (dict(inputs={"text": Image()}), "use data.Text"),
        (dict(inputs={"text": Text(length=24, cls_token=None)}), "set cls_token"),
        (dict(inputs={"text": Text(length=25)}), "longer than the 24 positions"),
        (dict(encoder=BERT(vocabulary=100)), "the tokenizer of data.inputs.text has 261"),
        (dict(aggregate=0), "system.aggregate is 0"),
    ],
)
def test_mistakes(options, sentence):
    with pytest.raises(UserError, match=sentence):
        system(**options).check()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    pytest.importorskip("tokenizers")
    rows = TextFiles("package:sklearn/datasets/descr/*.rst").open("all").rows
    file = str(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")
    train_vocabulary((row["text"] for row in rows), file, 400, "wordpiece")
    return file


@pytest.mark.parametrize("variant", ["wiki", "msmarco", "dupmae-wiki", "cranfield", "dupmae-stsb"])
def test_variants_that_need_files(tokenizer, variant):
    path = Path(__file__).parents[2] / "configs" / "retromae.py"
    spec = importlib.util.spec_from_file_location("retromae", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(variant)
    for name, section in config.data.inputs.items():
        if section.kind == "data.Text":
            config.data.inputs[name].tokenizer = tokenizer
    validate(config)
    retro = build_system(from_json(to_json(config)))
    variables = jax.eval_shape(retro.init, jax.random.key(0))
    ids = {name: each.batch(TEXTS) for name, each in retro.inputs.items() if each.view == "text"}

    def terms(variables, batch):
        masks = retro.sample_masks(jax.random.key(0), variables, batch)
        return retro.term_values(variables, batch, masks, {"dropout": jax.random.key(0)})[0]

    values = jax.eval_shape(terms, variables, ids)
    assert ("bag" in values) == variant.startswith("dupmae")
    assert all(value.total.shape == () for value in values.values())


def test_the_vocabulary_may_be_larger_than_the_tokenizer():
    config = part("models.BERT", vocabulary=384)
    assert isinstance(config, ConfigDict) and config.vocabulary == 384
    encoder = BERT(width=8, depth=1, heads=2, positions=24, vocabulary=384)
    params = jax.eval_shape(system(encoder=encoder).init, jax.random.key(0))["params"]
    assert params["encoder"]["word"].shape == (384, 8)
