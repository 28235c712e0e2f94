"""Sets of classes as arrays, and tables of them beside files."""

import wave

import numpy as np
import pytest

from maskjax.data import AudioFolder, ClassSet, LogMel, Paired, TextFiles, eval_batches
from maskjax.errors import UserError


@pytest.mark.parametrize(
    "value",
    [[4, 0], np.array([0, 4]), "4,0", " 0; 4 ", "4\t0", np.array([1, 0, 0, 0, 1, 0], bool)],
)
def test_every_way_to_write_it(value):
    found = ClassSet(6).read(value, None)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, [1, 0, 0, 0, 1, 0])


@pytest.mark.parametrize("value", [[], "", np.zeros(0, np.int64), np.zeros(6, bool)])
def test_none_at_all(value):
    np.testing.assert_array_equal(ClassSet(6).read(value, None), np.zeros(6))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([0, 6], "classes 0, 6, but .* from 0 to 5"),
        ([-1], "from 0 to 5"),
        # Zeros and ones as integers: a map that is not boolean.
        ([1, 0, 0, 0, 1, 0], "names a class twice"),
        (np.zeros(5, bool), "told 6 classes"),
    ],
)
def test_what_is_refused(value, words):
    with pytest.raises(UserError, match=words):
        ClassSet(6).read(value, None)


def test_a_table_beside_sounds(tmp_path):
    (tmp_path / "train").mkdir()
    for name, level in (("b.wav", 2), ("a.1.wav", 1), ("unknown.wav", 9)):
        with wave.open(str(tmp_path / "train" / name), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(np.full(500, level, "<i2").tobytes())
    table = "file\tlabels\nb.wav\t0,2\nmissing.wav\t1\na.1\t1\n"
    (tmp_path / "train.tsv").write_text(table)
    source = Paired(
        dict(
            audio=AudioFolder(str(tmp_path)),
            labels=TextFiles(
                str(tmp_path / "{split}.tsv"), columns=dict(name="file", labels="labels")
            ),
        ),
        complete=True,
    )
    records = source.open("train")
    assert records.num_classes is None
    inputs = dict(audio=LogMel(samples=500), labels=ClassSet(3))
    with eval_batches(records, inputs, batch_size=2, threads=0) as batches:
        batch = next(batches)
    np.testing.assert_array_equal(batch["audio"][:, 0], [1, 2])
    np.testing.assert_array_equal(batch["labels"], [[0, 1, 0], [1, 0, 1]])
    assert batch["_mask"].all()
