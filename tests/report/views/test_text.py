import types

import numpy as np

from maskjax.data import Text
from maskjax.report.views.text import MASKED, RIGHT, WRONG, columns, draw_texts

TEXT = Text(length=24)
GREEN, RED, GREY = (222, 242, 228), (250, 226, 226), (224, 224, 228)


def pixels(picture, colour):
    return (picture == np.asarray(colour, np.uint8)).all(axis=-1).sum()


def test_marks_are_seen():
    ids = TEXT.batch(["a wing", "a longer text of words"])
    marks = np.zeros_like(ids)
    marks[0, 3:7] = RIGHT  # "wing"
    marks[1, 3:9] = WRONG  # "longer"
    hidden = np.where(marks > 0, TEXT.mask, ids)
    drawn = draw_texts(
        {
            "original": ids,
            "masked": np.stack([hidden, np.where(marks > 0, MASKED, 0)], axis=-1),
            "found": np.stack([ids, marks], axis=-1),
        },
        TEXT,
    )
    assert list(drawn) == ["original", "masked", "found"]
    assert len({picture.shape for picture in drawn.values()}) == 1
    assert drawn["found"].dtype == np.uint8 and drawn["found"].shape[3] == 3
    for colour in (GREEN, RED, GREY):
        assert not pixels(drawn["original"], colour)
    assert pixels(drawn["masked"][0], GREY) > 50 and pixels(drawn["masked"][1], GREY) > 50
    assert pixels(drawn["found"][0], GREEN) > 50 and not pixels(drawn["found"][0], RED)
    assert pixels(drawn["found"][1], RED) > 50 and not pixels(drawn["found"][1], GREEN)
    # Words are on paper, and another text looks otherwise.
    assert (drawn["original"][0] < 128).any()
    assert (drawn["original"][0] != drawn["original"][1]).any()


def test_long_texts_are_broken_into_lines_and_all_rows_are_equally_high():
    text = Text(length=160)
    system = types.SimpleNamespace(inputs={"text": text})
    drawn = columns({"text": text.batch(["word " * 30, "word"])}, system)["text"]
    lines = (drawn < 200).any(axis=(2, 3))  # rows of pixels with ink
    assert lines[0].sum() > 2 * lines[1].sum()
    assert drawn.shape[2] == 360


def test_a_text_of_nothing_is_an_empty_picture():
    drawn = draw_texts({"text": np.zeros((1, 24), np.int32)}, TEXT)["text"]
    assert (drawn == 255).all()


def test_a_predicted_blank_or_special_token_is_seen():
    ids = TEXT.batch(["a b"])  # the class token, a, a blank, b, ...
    guess = np.where(ids > 0, TEXT.special[1], ids)
    for shown in (ids, guess):
        marks = np.full_like(ids, WRONG) * (np.arange(24) == 2)[None, :]
        drawn = draw_texts({"found": np.stack([shown, marks], axis=-1)}, TEXT)["found"]
        assert pixels(drawn[0], RED) > 20
