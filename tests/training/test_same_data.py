"""A run is not continued on another data set."""

import pytest

from maskjax.errors import UserError
from maskjax.training.same_data import DATA_FILE, check_data, describe_data, write_data


class Records:
    """Files of a folder, whose content nobody reads."""

    def __init__(self, n=1000, folder="/data", prefix="a", classes=("cat", "dog")):
        self.n, self.folder, self.prefix = n, folder, prefix
        self.label_names, self.num_classes = classes, None if classes is None else len(classes)

    def __len__(self):
        return self.n

    def describe(self, i):
        return f"{self.folder}/{self.prefix}{i}.png"


def test_changed(tmp_path):
    check_data(tmp_path, Records())  # nothing is known yet
    write_data(tmp_path, Records())
    check_data(tmp_path, Records())
    check_data(tmp_path, Records(folder="/moved"))
    for other, what in (
        (Records(n=999), "records: 1000 then, 999 now"),
        (Records(prefix="b"), "names"),
        (Records(classes=("dog", "cat")), "names"),
        (Records(classes=None), "classes: 2 then, None now"),
    ):
        with pytest.raises(UserError, match=what):
            check_data(tmp_path, other)
    (tmp_path / DATA_FILE).write_text("{")  # cut off
    check_data(tmp_path, Records(n=999))
    assert describe_data(Records(n=1, classes=None))["records"] == 1


def test_run(tiny, launch, one_device, tmp_path):
    run = one_device(tiny(train__duration="2 steps"))
    assert launch(run, tmp_path)
    before = (tmp_path / DATA_FILE).read_text()
    other = one_device(tiny(train__duration="4 steps", data__train_split="test"))
    with pytest.raises(UserError, match="records: 1442 then, 355 now"):
        launch(other, tmp_path)
    assert (tmp_path / DATA_FILE).read_text() == before
