import numpy as np
import pytest
from PIL import Image

from maskjax.data import Given, find_images
from maskjax.errors import UserError


@pytest.fixture
def photos(tmp_path):
    for name in ("b.png", "deep/a.jpg", "notes.txt", ".hidden.png", "c.bmp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".txt":
            path.write_text("no picture")
        else:
            Image.new("RGB", (5, 3), (len(name), 0, 0)).save(path)
    return tmp_path


def test_a_file_a_folder_and_patterns(photos):
    def names(where):
        return [path[len(str(photos)) + 1 :] for path in find_images(where).files]

    assert names(photos / "c.bmp") == ["c.bmp"]  # whatever can be decoded, if it is named
    assert names(photos) == ["b.png", "deep/a.jpg"]
    assert names(f"{photos}/*.png") == ["b.png"]
    assert names(f"{photos}/**/*.[jp]*g") == ["b.png", "deep/a.jpg"]
    assert find_images(photos)[1].shape == (3, 5, 3)


def test_nothing_found_is_one_sentence(photos):
    (photos / "empty").mkdir()
    with pytest.raises(UserError, match=r"matches '.*\*\.gif'"):
        find_images(photos / "*.gif")
    with pytest.raises(UserError, match="No file is called"):
        find_images(photos / "x.png")
    with pytest.raises(UserError, match=r"holds no \.jpg"):
        find_images(photos / "empty")


def test_records_name_themselves(photos):
    files = find_images(photos)
    assert Given({"image": files}).describe(1) == f"'{photos}/deep/a.jpg'"
    records = Given({"a": [1, 2], "b": np.ones((2, 3))})
    assert len(records) == 2 and records.describe(1) == "example 1"
    assert records[1]["a"] == 2
    with pytest.raises(UserError, match="a 2, b 1"):
        Given({"a": [1, 2], "b": [1]})
