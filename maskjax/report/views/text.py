"""Pictures of texts: words on paper, those that were masked or predicted in colour."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maskjax.data import Text
from maskjax.report.pictures import line_height

PLAIN, MASKED, RIGHT, WRONG = range(4)

_COLOURS = {
    PLAIN: (30, 30, 34),
    MASKED: (110, 110, 118),
    RIGHT: (0, 120, 60),
    WRONG: (190, 30, 40),
}
_BACKGROUND = {MASKED: (224, 224, 228), RIGHT: (222, 242, 228), WRONG: (250, 226, 226)}
_PAPER = (255, 255, 255)
_WIDTH, _MARGIN, _SIZE = 360, 8, 13  # pixels
_MOST = 160  # tokens that are drawn of a text


def columns(arrays: Mapping[str, np.ndarray], system: Any) -> dict[str, np.ndarray]:
    """Draws texts.

    Args:
      arrays: {title: int [n, L] ids, or int [n, L, 2] ids and marks}. A mark is 0 for an ordinary
        token, 1 for a masked one, 2 for a right and 3 for a wrong prediction. Special tokens that
        have no mark are left out.
      system: whose first input of text has the tokenizer.

    Returns:
      {title: uint8 [n, H, W, 3]}, in the order given.
    """
    text = next(each for each in system.inputs.values() if each.view == "text")
    return draw_texts(arrays, text)


def draw_texts(arrays: Mapping[str, np.ndarray], text: Text) -> dict[str, np.ndarray]:
    """As `columns`, for the input that the texts are of."""
    drawn = {title: [_draw(row, text) for row in _marked(a)] for title, a in arrays.items()}
    height = max(picture.height for pictures in drawn.values() for picture in pictures)
    return {
        title: np.stack([_on_paper(picture, height) for picture in pictures])
        for title, pictures in drawn.items()
    }


def _marked(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array).astype(np.int64)
    return array if array.ndim == 3 else np.stack([array, np.zeros_like(array)], axis=-1)


def _draw(row: np.ndarray, text: Text) -> Image.Image:
    """Draws one text [L, 2] on paper as high as it needs."""
    font = ImageFont.load_default(_SIZE)
    height = line_height(font) - 2
    line, space = height + 4, font.getlength(" ")
    sheet = Image.new("RGB", (_WIDTH, line * (_MOST + 2)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    x, y = float(_MARGIN), _MARGIN
    for word in _words(row[:_MOST], text):
        width = sum(font.getlength(piece) for piece, _ in word)
        if x > _MARGIN and x + width > _WIDTH - _MARGIN:
            x, y = float(_MARGIN), y + line
        for piece, mark in word:
            end = x + font.getlength(piece)
            if mark in _BACKGROUND:
                draw.rectangle((x, y, end, y + height), _BACKGROUND[mark])
            draw.text((x, y), piece, _COLOURS[mark], font)
            x = end
        x += space
    return sheet.crop((0, 0, _WIDTH, y + line + _MARGIN))


def _words(row: np.ndarray, text: Text) -> list[list[tuple[str, int]]]:
    """Groups the tokens of a row [L, 2] into words of (piece, mark)."""
    table, words, before = text.vocabulary, [], None
    for number, mark in row.tolist():
        if number in text.special and mark == PLAIN:
            before = None
            continue
        shown = table.shown[number].strip() or ("_" if mark != PLAIN else "")
        if before is not None and table.joins_left[number] and table.joins_right[before]:
            words[-1].append((shown, mark))
        elif shown:
            words.append([(shown, mark)])
        before = number
    return words


def _on_paper(picture: Image.Image, height: int) -> np.ndarray:
    sheet = Image.new("RGB", (picture.width, height), _PAPER)
    sheet.paste(picture, (0, 0))
    return np.asarray(sheet)
