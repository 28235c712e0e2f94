import pickle

import pytest

from maskjax.data import TextFiles
from maskjax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a_train.txt").write_text(
        "\n = Heading = \n\n The first paragraph .\n----\nSecond one\n"
    )
    (tmp_path / "a_test.txt").write_text("Tested\n")
    (tmp_path / "pairs.tsv").write_text(
        "score\tone\ttwo\tkind\n5.0\ta b\tc\tx\n2.5\td\t\ty\n1.5\te\tf\ty\n", "utf-8"
    )
    return tmp_path


def texts(records):
    return [records[i]["text"] for i in range(len(records))]


def test_splits_by_name_of_file(folder):
    source = TextFiles(f"{folder}/a_{{split}}.txt")
    assert texts(source.open("train")) == ["The first paragraph .", "Second one"]
    assert texts(source.open("test")) == ["Tested"]
    with pytest.raises(UserError, match="There is no file"):
        source.open("valid")


@pytest.mark.parametrize(
    "unit, expected",
    [
        ("document", ["The first paragraph .\nSecond one"]),
        ("words", ["The first paragraph . Second", "one"]),
    ],
)
def test_units(folder, unit, expected):
    source = TextFiles(f"{folder}/a_train.txt", unit=unit, words=5)
    assert texts(source.open("all")) == expected


def test_tables(folder):
    source = TextFiles(
        f"{folder}/*.tsv", columns=dict(text="one", other="two", score="score"), label="kind"
    )
    records = source.open("all")
    assert len(records) == 2  # one row has an empty cell
    assert records[0] == {"text": "a b", "other": "c", "score": "5.0", "label": 0}
    assert records[1] == {"text": "e", "other": "f", "score": "1.5", "label": 1}
    assert records.num_classes == 2 and records.label_names == ("x", "y")
    assert pickle.loads(pickle.dumps(records)) == records
    either = TextFiles(f"{folder}/*.tsv", columns=dict(text="absent|one"))
    assert texts(either.open("all")) == ["a b", "d", "e"]


def test_every_tenth_record_is_held_out(tmp_path):
    (tmp_path / "t.txt").write_text("\n".join(f"line number {i}" for i in range(25)))
    source = TextFiles(f"{tmp_path}/t.txt")
    train, test = (texts(source.open(split)) for split in ("train", "test"))
    assert test == ["line number 9", "line number 19"] and len(train) == 23
    assert not {*train} & {*test}
    with pytest.raises(UserError, match="did you mean 'test'"):
        source.open("tests")


def test_several_patterns_and_packages(folder):
    found = texts(TextFiles(f"{folder}/a_test.txt, {folder}/a_train.txt").open("all"))
    assert found == ["Tested", "The first paragraph .", "Second one"]
    packaged = TextFiles("package:sklearn/datasets/descr/*.rst", unit="words", words=16)
    assert len(packaged.open("train")) > 200
    with pytest.raises(UserError, match="package absent_package"):
        TextFiles("package:absent_package/*.txt").open("all")


def test_mistakes(folder):
    for options, sentence in [
        (dict(path="a", unit="page"), "unit must be one of"),
        (dict(path="a", holdout=1), "holdout of at least 2"),
        (dict(path="a", columns={}), "at least one column"),
    ]:
        with pytest.raises(UserError, match=sentence):
            TextFiles(**options)
    with pytest.raises(UserError, match="did you mean 'score'"):
        TextFiles(f"{folder}/pairs.tsv", columns=dict(text="scores")).open("all")
    with pytest.raises(UserError, match="is no table"):
        TextFiles(f"{folder}/a_test.txt", columns=dict(text="one")).open("all")
    (folder / "bad.tsv").write_text("text\tlabel\nonly one cell\n")
    with pytest.raises(UserError, match=r"line 2 has 1 cells"):
        TextFiles(f"{folder}/bad.tsv").open("all")
