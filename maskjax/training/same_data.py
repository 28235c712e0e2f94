"""Recognising the data set of a run, so that it is not continued on another one."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from maskjax.data.records import Records
from maskjax.errors import UserError
from maskjax.files import replace_file
from maskjax.parallel import processes

DATA_FILE = "data.json"  # in the directory of a run
_SAMPLE = 64  # records whose names are compared


def describe_data(records: Records) -> dict[str, Any]:
    """Returns what tells a data set from others, without reading a record.

    The number of records and classes, and a digest of the names of the classes and of some records
    (not of the folders they lie in, so that a data set may be moved).
    """
    spread = np.unique(np.linspace(0, len(records) - 1, _SAMPLE).astype(int))
    names = [Path(records.describe(int(i))).name for i in spread]
    text = json.dumps([list(map(str, records.label_names or ())), names])
    return {
        "records": len(records),
        "classes": None if records.num_classes is None else int(records.num_classes),
        "names": hashlib.sha256(text.encode()).hexdigest()[:16],
    }


def check_data(workdir: Path, records: Records) -> None:
    """Checks that a run goes on with the data that it began with, the same in all processes.

    Raises:
      UserError: the data set is another one.
    """
    here = describe_data(records)
    processes.agree({f"data.{name}": value for name, value in here.items()})
    try:
        before = json.loads((workdir / DATA_FILE).read_text())
        changed = {name: value for name, value in before.items() if here.get(name) != value}
    except (OSError, ValueError, AttributeError):
        return  # a run that begins, or was begun before there was such a file
    if changed:
        name, value = next(iter(changed.items()))
        raise UserError(
            f"The data set has changed since the run in {workdir} began ({name}: {value} then, "
            f"{here.get(name)} now), and its examples would come in another order: restore the "
            f"data set, choose another --workdir, or delete {DATA_FILE} there to go on so."
        )


def write_data(workdir: Path, records: Records) -> None:
    """Notes the data set of a run in its directory, by the first process alone."""
    if processes.is_first():
        replace_file(workdir / DATA_FILE, (json.dumps(describe_data(records)) + "\n").encode())
