import pickle

import numpy as np
import pytest

from maskjax.data import Text, TextFiles
from maskjax.data.vocabulary import load_vocabulary, train_vocabulary
from maskjax.errors import UserError

DESCRIPTIONS = "package:sklearn/datasets/descr/*.rst"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    pytest.importorskip("tokenizers")
    texts = [row["text"] for row in TextFiles(DESCRIPTIONS).open("all").rows]
    files = {}
    for kind in ("wordpiece", "bpe"):
        files[kind] = str(tmp_path_factory.mktemp("tokenizers") / f"{kind}.json")
        assert train_vocabulary(texts, files[kind], 600, kind) == 600
    return files


def starts_of_words(text, sentence):
    ids = text.read(sentence, None)[1:]
    left, right = text.vocabulary.joins_left, text.vocabulary.joins_right
    before = np.concatenate([[text.vocabulary.id("[CLS]")], ids[:-1]])
    starts = ~(left[ids] & right[before])
    words, shown = [], text.vocabulary.shown
    for i, start in zip(ids, starts, strict=True):
        if i in text.special:
            break
        words = [*words, shown[i]] if start else [*words[:-1], words[-1] + shown[i]]
    return words


def test_bytes():
    text = Text(length=16)
    ids = text.read("Wing, é 1", None)
    assert ids.dtype == np.int32 and ids.shape == (16,)
    assert (text.vocabulary_size, text.pad, text.mask, text.special) == (261, 0, 4, (0, 2, 3))
    assert ids[0] == 2 and ids[11] == 3 and not ids[12:].any()
    assert text.decode(ids) == "Wing, é 1"
    words = [word for word in starts_of_words(text, "Wing, é 1") if word.strip()]
    assert words == ["Wing", ",", "··", "1"]


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_trained_tokenizers(trained, kind):
    text = Text(length=48, tokenizer=trained[kind])
    sentence = "the classification of handwritten digits"
    ids = text.read(sentence, None)
    assert text.decode(ids) == sentence or text.decode(ids) == " " + sentence
    assert starts_of_words(text, sentence) == sentence.split()
    assert (ids > 4).sum() > len(sentence.split())  # some words have several pieces
    copy = pickle.loads(pickle.dumps(text))
    assert copy == text and len(pickle.dumps(text)) < 1000
    np.testing.assert_array_equal(copy.read(sentence, None), ids)


def test_longer_texts_are_cut():
    letters = "abcdefghijklmnopqrstuvwxyz"
    text = Text(length=10, crop="random")
    assert text.decode(text.read(letters, None)) == letters[:8]
    drawn = {text.decode(text.read(letters, np.random.default_rng(i))) for i in range(20)}
    assert len(drawn) > 5 and all(len(d) == 8 and d in letters for d in drawn)
    bare = Text(length=10, cls_token=None, sep_token=None)
    assert bare.decode(bare.read(letters, None)) == letters[:10] and bare.special == (0,)


def test_one_of_several_captions_is_read():
    text = Text(length=8)
    captions = ("one", "two", "three")
    assert text.decode(text.read(captions, None)) == "one"
    drawn = {text.decode(text.read(captions, np.random.default_rng(i))) for i in range(20)}
    assert drawn == set(captions)


def test_bag_of_words():
    text = Text(length=8)
    raw = text.raw(text.batch(["aab", "b"]))
    assert raw.shape == (2, 261) and raw.dtype == np.float32
    a, b = (text.vocabulary.id(f"<{ord(c):X}>") for c in "ab")
    expected = np.zeros((2, 261))
    expected[0, a], expected[0, b], expected[1, b] = np.log([3, 2, 2])
    np.testing.assert_allclose(raw, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "options, sentence",
    [
        (dict(tokenizer="absent.json"), "There is no tokenizer 'absent.json'"),
        (dict(tokenizer=__file__), "is not a file of the library tokenizers"),
        (dict(length=2), "has to be more than 2"),
        (dict(crop="end"), "crop must be one of start, random"),
        (dict(cls_token="<s>"), "has no token '<s>'"),
    ],
)
def test_mistakes(options, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        Text(**options)
    assert str(error.value).count("\n") == 0


def test_arrays_of_users_are_checked():
    text = Text(length=8)
    text.accept(text.batch(["one"]))
    for wrong, sentence in [
        (np.zeros((2, 9), np.int32), "shape"),
        (np.zeros((2, 8)), "integers"),
        (np.full((2, 8), 261), "from 0 to 260"),
    ]:
        with pytest.raises(UserError, match=sentence):
            text.accept(wrong)


def test_a_vocabulary_is_read_once():
    assert load_vocabulary("bytes") is load_vocabulary("bytes")
