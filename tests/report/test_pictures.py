import numpy as np
import pytest
from PIL import Image

from maskjax import files
from maskjax.errors import UserError
from maskjax.report import reconstruction_sheet, save_sheet

COLUMNS = ("original", "masked", "prediction", "paste-back")


def images(shape=(3, 8, 8, 1), columns=COLUMNS):
    rng = np.random.default_rng(0)
    return {title: rng.integers(0, 256, shape, dtype=np.uint8) for title in columns}


def contains(sheet, picture):
    """Whether a picture [h, w, 3] stands in the sheet, pixel by pixel."""
    windows = np.lib.stride_tricks.sliding_window_view(
        np.asarray(sheet)[..., 0], picture.shape[:2]
    )[:, :, ::7, ::7]
    hits = np.argwhere((windows == picture[None, None, ::7, ::7, 0]).all(axis=(2, 3)))
    h, w = picture.shape[:2]
    return any((np.asarray(sheet)[y : y + h, x : x + w] == picture).all() for y, x in hits)


def test_every_picture_is_there_enlarged_by_a_whole_factor():
    batch = images()
    sheet = reconstruction_sheet(batch, "note")
    assert sheet.mode == "RGB"
    for pictures in batch.values():
        for picture in pictures:
            large = np.repeat(np.repeat(picture, 12, axis=0), 12, axis=1)  # 96 pixels
            assert contains(sheet, np.repeat(large, 3, axis=2))


def test_large_pictures_are_not_scaled():
    batch = images((1, 100, 120, 3), ("original",))
    sheet = reconstruction_sheet(batch)
    assert contains(sheet, batch["original"][0])
    assert sheet.width < 200 and sheet.height < 200


def test_rows_and_columns_are_in_order():
    levels = {title: np.full((2, 96, 96, 3), 40 * (i + 1), np.uint8) for i, title in
              enumerate(COLUMNS)}  # fmt: skip
    for batch in levels.values():
        batch[1] += 5
    sheet = np.asarray(reconstruction_sheet(levels))[..., 0]
    for row, extra in ((0, 0), (1, 5)):
        ys, xs = zip(
            *(np.argwhere(sheet == 40 * (i + 1) + extra).mean(axis=0) for i in range(4)),
            strict=True,
        )
        assert np.all(np.diff(xs) > 90)
        assert max(ys) - min(ys) < 10, row


def test_margins_are_white_and_text_fits():
    note = "A long note, " * 20
    sheet = np.asarray(reconstruction_sheet(images((1, 8, 8, 1), ("a very long title",)), note))
    assert (sheet[:15] == 255).all() and (sheet[-15:] == 255).all()
    assert (sheet[:, :15] == 255).all() and (sheet[:, -15:] == 255).all()


def test_heading_and_note_are_drawn():
    batch = images((1, 8, 8, 1), ("original",))
    with_note, without = reconstruction_sheet(batch, "a note"), reconstruction_sheet(batch)
    assert with_note.height > without.height
    assert (np.asarray(without)[15:40] < 128).any()
    below = np.asarray(with_note)[without.height - 15 :]
    assert (below < 160).any()


def test_more_channels_than_colours():
    batch = images((1, 96, 96, 5), ("original",))
    sheet = reconstruction_sheet(batch)
    assert contains(sheet, batch["original"][0, ..., :3])
    # It is said on the sheet, which is higher for it.
    assert sheet.height > reconstruction_sheet(images((1, 96, 96, 3), ("original",))).height


@pytest.mark.parametrize(
    "batch,message",
    [
        ({}, "no pictures"),
        ({"a": np.zeros((2, 8, 8), np.uint8)}, r"\[n, H, W, C\]"),
        ({"a": np.zeros((0, 8, 8, 1), np.uint8)}, r"\[n, H, W, C\]"),
        ({"a": np.zeros((2, 8, 8, 1)), "b": np.zeros((1, 8, 8, 1))}, "one n, H and W"),
        ({"a": np.zeros((2, 8, 8, 1), np.float32)}, "float32"),
    ],
)
def test_bad_pictures_are_one_sentence(batch, message):
    with pytest.raises(UserError, match=message):
        reconstruction_sheet(batch)


def test_saved_as_png_in_one_step(tmp_path):
    path = save_sheet(tmp_path / "pictures" / "step_5.png", images(), "note")
    with Image.open(path) as saved:
        np.testing.assert_array_equal(
            np.asarray(saved), np.asarray(reconstruction_sheet(images(), "note"))
        )
    assert [p.name for p in path.parent.iterdir()] == ["step_5.png"]


def test_a_failure_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = files.replace_file(tmp_path / "file", b"old")

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        files.replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
