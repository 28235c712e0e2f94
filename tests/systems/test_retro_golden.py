"""RetroMAE and DupMAE against the numbers of the authors' code."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import torch_names
from maskjax.masking import AttentionMask, EnhancedDecoding, WholeWords
from maskjax.masking.words import masked_words
from maskjax.models import BERT, PostNormBlock
from maskjax.objectives import BagOfWords, MaskedCrossEntropy
from maskjax.systems import RetroMAE
from maskjax.training.gradients import loss_and_gradients

PAD, CLS, SEP = 0, 1, 2


def close(actual, expected, tolerance):
    expected = np.asarray(expected)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * scale)


def bert_params(get):
    layers = [post_norm_block(get, f"lm.bert.encoder.layer.{i}") for i in range(2)]
    name = "lm.bert.embeddings"
    return {
        "word": get[f"{name}.word_embeddings.weight"],
        "position": get[f"{name}.position_embeddings.weight"],
        "segment": get[f"{name}.token_type_embeddings.weight"],
        "norm": torch_names.norm(get, f"{name}.LayerNorm"),
        "blocks": torch_names.stack(layers),
        "transform": torch_names.dense(get, "lm.cls.predictions.transform.dense"),
        "transform_norm": torch_names.norm(get, "lm.cls.predictions.transform.LayerNorm"),
        "output_bias": get["lm.cls.predictions.bias"],
    }


def post_norm_block(get, name):
    attention = {
        part: torch_names.dense(get, f"{name}.attention.self.{part}")
        for part in ("query", "key", "value")
    }
    return {
        "attention": {**attention, "out": torch_names.dense(get, f"{name}.attention.output.dense")},
        "norm1": torch_names.norm(get, f"{name}.attention.output.LayerNorm"),
        "mlp": {
            "up": torch_names.dense(get, f"{name}.intermediate.dense"),
            "down": torch_names.dense(get, f"{name}.output.dense"),
        },
        "norm2": torch_names.norm(get, f"{name}.output.LayerNorm"),
    }


def system(arrays, duplex=False, scan=False, remat="none"):
    cfg = {k.removeprefix("cfg/"): v.item() for k, v in arrays.items() if k.startswith("cfg/")}
    heads = cfg["num_attention_heads"]
    ratio = cfg["intermediate_size"] / cfg["hidden_size"]
    terms = dict(
        encoder=MaskedCrossEntropy("encoder.logits", "targets.masked", "masks.encoder.valid"),
        decoder=MaskedCrossEntropy("decoder.logits", "targets.text", "targets.predicted"),
    )
    if duplex:
        terms["bag"] = BagOfWords(weight=cfg["bow_loss_weight"])
    return RetroMAE(
        encoder=BERT(
            cfg["hidden_size"],
            cfg["num_hidden_layers"],
            heads,
            ratio,
            cfg["max_position_embeddings"],
            cfg["vocab_size"],
            scan=scan,
            remat=remat,
            dtype="float32",
        ),
        decoder=PostNormBlock(heads, ratio, dtype="float32"),
        mask=WholeWords(),
        decoder_mask=EnhancedDecoding(),
        duplex=duplex,
        aggregate=4,
        terms=terms,
        inputs={
            "text": types.SimpleNamespace(
                view="text",
                length=12,
                pad=PAD,
                special=(PAD, CLS, SEP),
                cls_token="[CLS]",
                vocabulary_size=cfg["vocab_size"],
            )
        },
    )


@pytest.fixture(scope="module")
def reference(golden):
    return golden("retromae")


@pytest.fixture(scope="module")
def inputs(reference):
    get = {k.removeprefix("param/"): v for k, v in reference.items() if k.startswith("param/")}
    params = {"encoder": bert_params(get), "decoder": post_norm_block(get, "c_head")}
    real = jnp.asarray(reference["in/encoder_attention_mask"], bool)
    attend = jnp.asarray(reference["in/decoder_attention_mask"], bool)
    rows = jnp.broadcast_to(jnp.arange(12)[None, :], real.shape)
    masks = {
        "encoder": masked_words(
            jnp.asarray(reference["in/encoder_input_ids"]),
            jnp.asarray(reference["in/encoder_labels"]) >= 0,
            slots=5,
        ),
        "decoder": AttentionMask(~attend, rows, real),
    }
    batch = {"text": jnp.asarray(reference["in/decoder_input_ids"])}
    return {"params": jax.tree.map(jnp.asarray, params)}, batch, masks


@pytest.fixture(scope="module")
def outputs(reference, inputs):
    return {duplex: jax.jit(system(reference, duplex).forward)(*inputs) for duplex in (False, True)}


def real_places(reference):
    return np.asarray(reference["in/encoder_attention_mask"], bool)


def test_attention_mask(reference, inputs):
    given = reference["in/decoder_attention_mask"].astype(bool)
    np.testing.assert_array_equal(inputs[2]["decoder"].attend, given)


def test_encoder(reference, inputs, outputs):
    out = outputs[False]
    real = real_places(reference)
    close(out["encoder"]["tokens"][real], reference["out/encoder_hidden"][real], 1e-5)
    mask = inputs[2]["encoder"]
    rows = np.broadcast_to(np.arange(2)[:, None], mask.indices.shape)
    expected = reference["out/encoder_logits"][rows, mask.indices]
    close(out["encoder"]["logits"][mask.valid], expected[mask.valid], 1e-5)
    labels = reference["in/encoder_labels"]
    np.testing.assert_array_equal(
        out["targets"]["masked"][mask.valid], labels[rows, mask.indices][mask.valid]
    )
    np.testing.assert_array_equal(out["targets"]["predicted"], reference["in/decoder_labels"] >= 0)


def test_decoder(reference, outputs):
    decoder = outputs[False]["decoder"]
    real = real_places(reference)
    close(decoder["queries"], reference["out/retromae_query"], 1e-5)
    close(decoder["context"][real], reference["out/decoder_kv"][real], 1e-5)
    close(decoder["tokens"][real], reference["out/retromae_decoder_hidden"][real], 1e-5)
    close(decoder["logits"][real], reference["out/retromae_decoder_logits"][real], 1e-5)


def test_bag_of_words(reference, outputs):
    out = outputs[True]
    close(out["encoder"]["bag"], reference["out/dupmae_ot_embedding"], 1e-5)
    np.testing.assert_allclose(out["targets"]["bag"], reference["in/bag_word_weight"], rtol=1e-6)


@pytest.mark.parametrize(
    "name, scan, remat, accumulate, terms",
    [
        (
            "retromae",
            True,
            "full",
            2,
            dict(encoder="encoder_mlm_loss", decoder="retromae_decoder_loss"),
        ),
        (
            "dupmae",
            False,
            "none",
            1,
            dict(encoder="encoder_mlm_loss", decoder="dupmae_decoder_loss", bag="dupmae_bow_loss"),
        ),
    ],
)
def test_losses_and_gradients(reference, inputs, name, scan, remat, accumulate, terms):
    retro = system(reference, name == "dupmae", scan, remat)
    objective = jax.jit(lambda *a: loss_and_gradients(retro, *a, {}, accumulate)[:3])
    loss, grads, metrics = objective(*inputs)
    close(loss, reference[f"out/{name}_loss"], 1e-5)
    for term, expected in terms.items():
        close(metrics[f"terms/{term}"], reference[f"out/{expected}"], 1e-5)

    encoder, decoder = grads["encoder"], grads["decoder"]
    named = {
        "lm.bert.embeddings.word_embeddings.weight": encoder["word"],
        "lm.bert.embeddings.position_embeddings.weight": encoder["position"],
        "lm.bert.encoder.layer.0.attention.self.query.weight": encoder["blocks"]["attention"][
            "query"
        ]["kernel"][0].T,
        "lm.cls.predictions.bias": encoder["output_bias"],
        "c_head.attention.self.query.weight": decoder["attention"]["query"]["kernel"].T,
        "c_head.output.dense.weight": decoder["mlp"]["down"]["kernel"].T,
    }
    given = f"grad/{name}/"
    expected = {k.removeprefix(given): v for k, v in reference.items() if k.startswith(given)}
    assert len(expected) >= 2
    for parameter, gradient in expected.items():
        close(named[parameter], gradient, 1e-4)


def test_a_query_that_passes_the_norm_would_be_noticed(reference, outputs):
    out = outputs[True]
    with pytest.raises(AssertionError):
        close(out["decoder"]["queries"], reference["out/retromae_query"], 1e-5)
