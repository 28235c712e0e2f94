"""Tests of sources that are put together of others: paired, incomplete, captioned."""

import pickle

import jax
import numpy as np
import PIL.Image
import pytest

from maskjax import config
from maskjax.data import (
    Arrays,
    Captioned,
    Digits,
    Image,
    ImageFolder,
    Incomplete,
    Paired,
    Text,
    TextFiles,
    eval_batches,
)
from maskjax.errors import UserError

IMAGES = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3)


@pytest.fixture
def sources(tmp_path):
    def write(name, **arrays):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        return str(tmp_path / f"{name}.npz")

    photos = write("photos", image=IMAGES, key=np.array(list("abcd")), label=np.array([0, 1, 1, 2]))
    texts = write("texts", captions=np.array(["dee", "bee", "eee"]), key=np.array(list("dbe")))
    return dict(
        image=Arrays(photos, id_key="key"),
        text=Arrays(texts, fields={"sentence": "captions"}, id_key="key"),
    )


def test_records_are_aligned_by_name(sources):
    records = pickle.loads(pickle.dumps(Paired(sources).open("all")))
    assert (len(records), records.num_classes) == (5, 3)
    np.testing.assert_array_equal(records[1]["image"], IMAGES[1])
    # The text's source calls it a sentence; it gives nothing else, so that is what is meant.
    assert records[1]["text"] == "bee" and records[3]["text"] == "dee"
    assert set(records[0]) == {"image", "label"}
    assert set(records[4]) == {"text", "label"} and records[4]["label"] == -1
    assert records.describe(3).count("; ") == 1 and "record 2 of" in records.describe(4)


def test_only_complete_records(sources):
    records = Paired(sources, complete=True).open("all")
    assert [r["text"] for r in (records[0], records[1])] == ["bee", "dee"] and len(records) == 2


def test_a_batch_says_what_is_missing(sources):
    inputs = dict(image=Image((2, 2), optional=True), text=Text(8, cls_token=None, optional=True))
    with eval_batches(Paired(sources).open("all"), inputs, batch_size=5, threads=0) as batches:
        batch = next(batches)
    np.testing.assert_array_equal(batch["_has_image"], [True] * 4 + [False])
    np.testing.assert_array_equal(batch["_has_text"], [False, True, False, True, True])
    assert not batch["text"][0].any() and batch["text"][1].any() and not batch["image"][4].any()
    assert batch["_mask"].all()


def test_sources_without_names_are_aligned_by_number(sources, tmp_path):
    image = dict(image=dict(sources, image=Arrays(sources["image"].path)))["image"]["image"]
    pair = Paired(dict(image=image, copy=image))
    np.testing.assert_array_equal(pair.open("all")[2]["copy"], IMAGES[2])
    with pytest.raises(UserError, match="have no names"):
        Paired(dict(sources, image=image)).open("all")
    np.savez(tmp_path / "few.npz", image=IMAGES[:3])
    few = Arrays(str(tmp_path / "few.npz"))
    with pytest.raises(UserError, match="aligned by number, but differ in it: image 4, copy 3"):
        Paired(dict(image=image, copy=few)).open("all")


def test_a_folder_of_pictures_and_a_table_of_captions(tmp_path):
    for name in ("b.png", "sub/a.png"):
        path = tmp_path / "photos" / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(IMAGES[0]).save(path)
    table = tmp_path / "captions.tsv"
    table.write_text("file\tcaption\nsub/a.png\tan a\nc.jpg\ta c\n")
    columns = dict(text="caption", name="file")
    sources = dict(
        image=ImageFolder(str(tmp_path / "photos")),
        text=TextFiles(str(table), columns=columns, holdout=9),
    )
    records = Paired(sources).open("train")
    assert [sorted({*records[i]} - {"label"}) for i in range(3)] == [
        ["image"],
        ["image", "text"],
        ["text"],
    ]
    assert records[1]["text"] == "an a" and records[2]["text"] == "a c"
    np.testing.assert_array_equal(records[1]["image"], IMAGES[0])


def test_sources_that_do_not_fit(sources, tmp_path):
    with pytest.raises(UserError, match="two sources or more"):
        Paired(dict(image=sources["image"]))
    np.savez(tmp_path / "other.npz", captions=np.array(["x"]), key=np.array(["x.jpg"]))
    other = Arrays(str(tmp_path / "other.npz"), fields={"text": "captions"}, id_key="key")
    with pytest.raises(UserError, match="No name is in all sources"):
        Paired(dict(sources, text=other)).open("all")
    np.savez(tmp_path / "twice.npz", captions=np.array(["x", "y"]), key=np.array(["a", "a"]))
    twice = Arrays(str(tmp_path / "twice.npz"), fields={"text": "captions"}, id_key="key")
    with pytest.raises(UserError, match="'text' are not unique"):
        Paired(dict(sources, text=twice)).open("all")
    many = Arrays(sources["image"].path, fields={"a": "image", "b": "image"}, id_key="key")
    with pytest.raises(UserError, match="gives no 'depth'"):
        Paired(dict(sources, depth=many)).open("all")[0]


def test_captions_of_class_names():
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    source = Captioned(Digits(), templates=("the digit {}", "a {}"), names=names)
    record = pickle.loads(pickle.dumps(source.open("test")))[7]
    assert record["text"] == (f"the digit {names[record['label']]}", f"a {names[record['label']]}")
    with pytest.raises(UserError, match="9 names for 10 classes"):
        Captioned(Digits(), names=names[:9]).open("test")
    with pytest.raises(UserError, match="with {} for"):
        Captioned(Digits(), templates=("a digit",))


def test_incomplete_records():
    share = dict(text=0.3, image=0.2)
    source = Incomplete(Captioned(Digits()), share)
    records = pickle.loads(pickle.dumps(source.open("train")))
    lacks = {n: np.array([n not in records[i] for i in range(200)]) for n in share}
    assert {n: int(x.sum()) for n, x in lacks.items()} == {"text": 60, "image": 40}
    assert not (lacks["text"] & lacks["image"]).any()
    assert all("label" in records[i] for i in range(100))
    assert all(set(source.open("test")[i]) == {"image", "text", "label"} for i in range(100))
    with pytest.raises(UserError, match=r"no input 'txt'; did you mean 'text'"):
        Incomplete(Captioned(Digits()), dict(txt=0.3)).open("train")[0]
    with pytest.raises(UserError, match=r"in \[0, 1\)"):
        Incomplete(Digits(), dict(image=1.0))


def test_are_parts(sources):
    section = config.part(
        "data.Paired",
        sources={n: config.part("data.Arrays", path=s.path) for n, s in sources.items()},
    )
    assert set(config.build(section).sources) == {"image", "text"}
    digits = config.part("data.Captioned", source=config.part("data.Digits"))
    section = config.part("data.Incomplete", source=digits, share=dict(text=0.5))
    assert len(config.build(section).open("train")) == 1442
    assert jax.tree.leaves(config.to_json(section))
