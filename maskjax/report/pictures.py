"""Sheets of pictures: one row per example, one column per kind of picture."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maskjax.errors import UserError
from maskjax.files import replace_file

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont  # the latter where Pillow has no FreeType
_CELL = 96  # pixels that a cell has at least
_MARGIN, _GAP = 20, 8
_TEXT, _MUTED, _PAPER, _FRAME = (30, 30, 34), (110, 110, 118), (255, 255, 255), (208, 208, 214)


def reconstruction_sheet(images: Mapping[str, np.ndarray], note: str = "") -> Image.Image:
    """Draws columns of pictures side by side, with headings above and a note below.

    Small pictures are enlarged by a whole factor without smoothing, so that each of their pixels
    is seen as it is.

    Args:
      images: {column title: uint8 [n, H, W, C]} in the order of the columns, all of one n, H, W.
        One channel is grey, three are colour; of two, the first is shown, and of more than three
        the first three; a line below the pictures says so.
      note: text below the pictures, broken into lines where it is too long.

    Returns:
      An RGB image on white.

    Raises:
      UserError: no pictures, or arrays of another shape or type.
    """
    _check(images)
    columns = {title: _as_colour(batch) for title, batch in images.items()}
    n, height, width = next(iter(columns.values())).shape[:3]
    factor = max(1, -(-_CELL // min(height, width)))
    height, width = height * factor, width * factor

    size = 15 if width < 200 else 18
    font, small = ImageFont.load_default(size), ImageFont.load_default(size - 2)
    titles = {title: _wrap(title, font, width) for title in columns}
    title_height = max(map(len, titles.values())) * line_height(font)
    inner = len(columns) * (width + _GAP) - _GAP
    notes = _wrap(" ".join(filter(None, [note, _channel_note(images)])), small, inner)

    top = _MARGIN + title_height + _GAP
    bottom = top + n * (height + _GAP) - _GAP
    total = bottom + (_GAP + len(notes) * line_height(small) if notes else 0) + _MARGIN
    sheet = Image.new("RGB", (inner + 2 * _MARGIN, total), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, (title, batch) in enumerate(columns.items()):
        left = _MARGIN + column * (width + _GAP)
        # Headings stand on the pictures: the last lines of all are level.
        y = top - _GAP // 2 - len(titles[title]) * line_height(font)
        for line in titles[title]:
            draw.text((left + width / 2, y), line, _TEXT, font, anchor="ma")
            y += line_height(font)
        for row, picture in enumerate(batch):
            y = top + row * (height + _GAP)
            cell = Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(cell, (left, y))
            # A white picture on white paper has no edge of its own.
            draw.rectangle((left - 1, y - 1, left + width, y + height), outline=_FRAME)
    for i, line in enumerate(notes):
        draw.text((_MARGIN, bottom + _GAP + i * line_height(small)), line, _MUTED, small)
    return sheet


def save_sheet(path: str | Path, images: Mapping[str, np.ndarray], note: str = "") -> Path:
    """Writes `reconstruction_sheet(images, note)` as a PNG file; nobody ever sees half of it."""
    buffer = io.BytesIO()
    reconstruction_sheet(images, note).save(buffer, format="PNG", optimize=True)
    return replace_file(Path(path), buffer.getvalue())


def _check(images: Mapping[str, np.ndarray]) -> None:
    if not images:
        raise UserError("There are no pictures to draw: give at least one column.")
    shapes = {title: np.shape(batch) for title, batch in images.items()}
    if any(len(shape) != 4 or 0 in shape for shape in shapes.values()) or (
        len({shape[:3] for shape in shapes.values()}) > 1
    ):
        raise UserError(f"Pictures must be [n, H, W, C] with one n, H and W, not {shapes}.")
    for title, batch in images.items():
        if batch.dtype != np.uint8:
            raise UserError(f"The pictures of '{title}' are {batch.dtype}: give uint8 in [0, 255].")


def _as_colour(batch: np.ndarray) -> np.ndarray:
    """[n, H, W, C] -> [n, H, W, 3]."""
    channels = [0, 1, 2] if batch.shape[-1] >= 3 else [0, 0, 0]
    return np.ascontiguousarray(batch[..., channels])


def _channel_note(images: Mapping[str, np.ndarray]) -> str:
    count = max(batch.shape[-1] for batch in images.values())
    if count == 2:
        return "Shown: the first of 2 channels."
    return f"Shown: the first three of {count} channels, as red, green, blue." if count > 3 else ""


def _wrap(text: str, font: _Font, width: int) -> list[str]:
    """Breaks text at spaces into lines of at most `width` pixels; a longer word stays whole."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines


def line_height(font: _Font) -> int:
    """Returns the distance of lines of text, in pixels."""
    if isinstance(font, ImageFont.ImageFont):
        return round(font.getbbox("A")[3]) + 2
    ascent, descent = font.getmetrics()
    return ascent + descent + 2
