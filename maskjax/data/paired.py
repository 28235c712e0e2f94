"""Several sources as one: records of the same thing, seen by different sensors or described."""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from maskjax.config import nearest
from maskjax.data.audio_folder import COMPRESSED, WAVE, AudioRecords
from maskjax.data.folder import EXTENSIONS, FolderRecords
from maskjax.data.records import Records
from maskjax.data.text_files import TextRecords
from maskjax.errors import UserError

_NAME = "name"  # the value of a text record that says what it belongs to
_ENDINGS = (*EXTENSIONS, *WAVE, *COMPRESSED, ".txt")
_ENDING = re.compile("(" + "|".join(map(re.escape, _ENDINGS)) + ")$", re.IGNORECASE)


class Source(Protocol):
    """What `config.data.source` is."""

    def open(self, split: str) -> Records:
        """Opens a split."""
        ...


@dataclasses.dataclass(frozen=True)
class Paired:
    """Aligns sources, each of which gives one modality of the same things.

    Records are aligned by their names: in `data.ImageFolder` and `data.AudioFolder` the path below
    the split, in `data.TextFiles` the column that is given as the input `name`, in `data.Arrays`
    the array `id_key`, each without an ending such as .jpg; if no source has names, by their
    number. A source may lack some: such a record has no value for that modality, and a batch says
    so in `_has_NAME` (the input has to be `optional`). Labels come from the first source that has
    any; a record that it lacks has the label -1.

    Attributes:
      sources: {input: source}. A source gives the value of the input under the input's name; if it
        gives but one value, that is taken whatever its name.
      complete: whether to leave out records that some source lacks.
    """

    sources: Mapping[str, Source]
    complete: bool = False

    def __post_init__(self) -> None:
        if len(self.sources) < 2:
            raise UserError("data.Paired needs two sources or more, one for each input.")

    def open(self, split: str) -> "PairedRecords":
        """Opens a split of every source.

        Raises:
          UserError: as the sources do; sources that cannot be aligned, or have nothing in common.
        """
        opened = {name: source.open(split) for name, source in self.sources.items()}
        found = {name: _names(records, split) for name, records in opened.items()}
        names = {name: given for name, given in found.items() if given is not None}
        without = [name for name in found if name not in names]
        if names and without:
            raise UserError(
                f"The records of {', '.join(without)} have no names, those of the other sources "
                "do: give all of them names (e.g. id_key of data.Arrays), or none."
            )
        if without:
            lengths = {name: len(records) for name, records in opened.items()}
            if len(set(lengths.values())) > 1:
                shown = ", ".join(f"{name} {n}" for name, n in lengths.items())
                raise UserError(
                    f"Sources without names are aligned by number, but differ in it: {shown}."
                )
            places = np.tile(np.arange(len(opened[without[0]]))[:, None], (1, len(opened)))
            return PairedRecords(self, split, opened, places)
        return PairedRecords(self, split, opened, self._aligned(names, split))

    def _aligned(self, names: Mapping[str, list[str]], split: str) -> np.ndarray:
        """Returns int [records, sources]: the number of each record in each source, -1: none."""
        numbers = []
        for source, given in names.items():
            numbers.append({name: i for i, name in enumerate(given)})
            if len(numbers[-1]) < len(given):
                raise UserError(f"The names of the source '{source}' are not unique.")
        everything = list(dict.fromkeys(name for given in names.values() for name in given))
        places = np.array(
            [[number.get(name, -1) for number in numbers] for name in everything], np.int64
        ).reshape(-1, len(numbers))
        whole = (places >= 0).all(axis=1)
        if not whole.any():
            examples = ", ".join(f"'{given[0]}' ({n})" for n, given in names.items() if given)
            raise UserError(
                f"No name is in all sources of split '{split}', for example {examples}: they have "
                "to be equal to be aligned."
            )
        return places[whole] if self.complete else places


def _names(records: Any, split: str) -> list[str] | None:
    """Returns the name of every record, if they have any."""
    if hasattr(records, "names"):
        names = records.names()
    elif isinstance(records, FolderRecords | AudioRecords):
        names = [file.removeprefix(split + os.sep) for file in records.files]
    elif isinstance(records, TextRecords) and len(records) and _NAME in records[0]:
        names = [records[i][_NAME] for i in range(len(records))]
    else:
        names = None
    # A caption may name the file of its picture, with or without its ending.
    return names and [re.sub(_ENDING, "", name.replace(os.sep, "/")) for name in names]


@dataclasses.dataclass(frozen=True)
class PairedRecords:
    """Records of `Paired`.

    Attributes:
      source: what was opened.
      split: which split of it.
      records: {input: records}.
      places: int [N, inputs]: where each record is in each source; -1: it is not.
    """

    source: Paired
    split: str
    records: Mapping[str, Records]
    places: np.ndarray

    @property
    def num_classes(self) -> int | None:
        """Of the first source that has labels."""
        return None if self._labelled is None else self._labelled.num_classes

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """Of the first source that has labels."""
        return None if self._labelled is None else self._labelled.label_names

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        label = -1
        for (name, records), place in zip(self.records.items(), self.places[i], strict=True):
            if place < 0:
                continue
            record = records[int(place)]
            if records is self._labelled:
                label = record["label"]
            values = {k: value for k, value in record.items() if k not in ("label", _NAME)}
            if name in values:
                merged[name] = values[name]
            elif len(values) == 1:
                merged[name] = next(iter(values.values()))
            elif values:
                raise UserError(f"The source '{name}' gives no '{name}'{nearest(name, values)}")
        if self._labelled is not None:
            merged["label"] = label
        return merged

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process opens the sources itself.
        return self.source.open, (self.split,)

    def describe(self, i: int) -> str:
        """Returns what the sources say of the record."""
        return "; ".join(
            records.describe(int(place))
            for records, place in zip(self.records.values(), self.places[i], strict=True)
            if place >= 0
        )

    @property
    def _labelled(self) -> Records | None:
        labelled = (r for r in self.records.values() if r.num_classes is not None)
        return next(labelled, None)


@dataclasses.dataclass(frozen=True)
class Incomplete:
    """A source some of whose records lack an input, to train on pairs and single modalities.

    Record i lacks NAME if (i mod 100) < 100 share, as in the unpaired study of M3AE (Geng et al.,
    2022): the same records in every epoch. Where several inputs have a share, the second is lacking
    where the first ends, and so on: shares that sum to at most 1 never take two from one record.

    Attributes:
      source: of whole records.
      share: {input: share of the records that lack it, in [0, 1)}.
      split: of which split; others are left whole. None: of all.
    """

    source: Source
    share: Mapping[str, float]
    split: str | None = "train"

    def __post_init__(self) -> None:
        if not self.share or not all(0 <= s < 1 for s in self.share.values()):
            raise UserError(
                f"share of data.Incomplete is {dict(self.share)}: give {{input: share}} in [0, 1)."
            )

    def open(self, split: str) -> Records:
        """Opens a split of the source."""
        records = self.source.open(split)
        return (
            records if self.split not in (None, split) else IncompleteRecords(self, split, records)
        )


@dataclasses.dataclass(frozen=True)
class IncompleteRecords:
    """Records of `Incomplete`."""

    source: Incomplete
    split: str
    records: Records

    @property
    def num_classes(self) -> int | None:
        """As the source says."""
        return self.records.num_classes

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """As the source says."""
        return self.records.label_names

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = dict(self.records[i])
        for name in self.source.share:
            if name not in record:
                raise UserError(
                    f"share of data.Incomplete: no input '{name}'{nearest(name, record)}"
                )
        return {name: v for name, v in record.items() if not self._lacks(name, i)}

    def __reduce__(self) -> tuple[Any, ...]:
        return self.source.open, (self.split,)

    def describe(self, i: int) -> str:
        """Returns what the source says of the record."""
        return self.records.describe(i)

    def _lacks(self, name: str, i: int) -> bool:
        share = self.source.share
        if name not in share:
            return False
        # The second input begins to be taken away where the first has ended.
        first = sum(s for other, s in share.items() if other < name)
        return (i % 100 - round(100 * first)) % 100 < round(100 * share[name])
