"""Text in plain files and tables."""

import dataclasses
import glob
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from maskjax.config import nearest
from maskjax.data.records import unknown_split
from maskjax.errors import UserError

UNITS = ("line", "document", "words")
_TABLES = (".tsv", ".tab")
_PACKAGE = "package:"
_HEADING = re.compile(r"\s*=.*=\s*")  # as WikiText marks them
_LETTER = re.compile(r"[^\W\d_]")


@dataclasses.dataclass(frozen=True)
class TextFiles:
    """Records of strings out of text files and tab-separated tables; all is held in memory.

    Plain files give records {"text": string}. Lines without a letter and headings (`= Title =`)
    are left out. Tables (`.tsv`) have a header line, no quoting, and give what `columns` names;
    rows in which one of these is empty are left out.

    Splits: if `path` contains {split}, a split is the file of that name. Else the splits are
    `all`, `test` (every `holdout`-th record) and `train` (the others).

    Attributes:
      path: a file or a pattern such as "corpus/*.txt"; several are separated by commas. In it,
        {split} stands for the split, and "package:NAME/..." for the folder of a Python package.
      unit: what is a record of a plain file: a "line", the whole "document", or so many "words".
      words: of a record, if the unit is "words"; records run over lines, not over files.
      columns: {input: column of the table}. Plain files have the column "text". "A|B" is the first
        of several that a table has: number="doc_id|query_id".
      label: column of integers from 0 or of class names; None: there are no labels.
      holdout: see above; at least 2.

    Raises:
      UserError: arguments that do not fit together.
    """

    path: str
    unit: str = "line"
    words: int = 128
    columns: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"text": "text"})
    label: str | None = None
    holdout: int = 10

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise UserError(f"unit must be one of {', '.join(UNITS)}, not '{self.unit}'.")
        if self.words < 1 or self.holdout < 2:
            raise UserError(
                f"data.TextFiles needs words of at least 1 and holdout of at least 2, not "
                f"{self.words} and {self.holdout}."
            )
        if not self.columns:
            raise UserError("data.TextFiles needs at least one column, e.g. text='text'.")

    def open(self, split: str) -> "TextRecords":
        """Opens a split.

        Raises:
          UserError: no such file, split or column, or no text in it.
        """
        by_name = "{split}" in self.path
        if not by_name and split not in ("all", "train", "test"):
            raise unknown_split(split, f"'{self.path}'", ("train", "test", "all"))
        rows = [row for file in self._files(split) for row in self._read(file)]
        if not rows:
            raise UserError(f"There is no text in '{self.path}', split {split}.")
        labels, names = self._labels([row.pop(None, "") for row in rows])
        is_test = np.arange(len(rows)) % self.holdout == self.holdout - 1
        chosen = range(len(rows))
        if not by_name and split != "all":
            chosen = np.flatnonzero(is_test == (split == "test")).tolist()
        return TextRecords(
            self,
            split,
            tuple(rows[i] for i in chosen),
            tuple(labels[i] for i in chosen) if labels else None,
            max(labels) + 1 if labels else None,
            names,
        )

    def _files(self, split: str) -> list[str]:
        patterns = self.path.replace("{split}", split).split(",")
        files = []
        for pattern in map(str.strip, patterns):
            found = sorted(glob.glob(_located(pattern), recursive=True))
            if not found:
                raise UserError(
                    f"There is no file '{pattern}': set data.source.path to text or .tsv files."
                )
            files += found
        return files

    def _read(self, file: str) -> Iterator[dict[Any, str]]:
        """Yields {input: string} for every record, with the label under None."""
        try:
            with open(file, encoding="utf-8") as opened:
                lines = opened.read().split("\n")
        except (UnicodeDecodeError, OSError) as error:
            raise UserError(f"'{file}' cannot be read as UTF-8 text: {error}.") from None
        if file.endswith(_TABLES):
            yield from self._rows(file, lines)
            return
        if {*self.columns.values(), self.label or "text"} != {"text"}:
            raise UserError(f"'{file}' is no table: it has only the column 'text', no other.")
        for text in self._units([line.strip() for line in lines if _is_text(line)]):
            yield dict.fromkeys(self.columns, text) | {None: ""}

    def _rows(self, file: str, lines: list[str]) -> Iterator[dict[Any, str]]:
        header = lines[0].rstrip("\r").split("\t")
        wanted = {**self.columns, **({None: self.label} if self.label else {})}
        places = {}
        for name, column in wanted.items():
            found = [header.index(each) for each in column.split("|") if each in header]
            if not found:
                raise UserError(f"'{file}' has no column '{column}'{nearest(column, header)}")
            places[name] = found[0]
        for number, line in enumerate(lines[1:], 2):
            if not line.strip():
                continue
            cells = line.rstrip("\r").split("\t")
            if len(cells) != len(header):
                raise UserError(
                    f"'{file}', line {number} has {len(cells)} cells where the header has "
                    f"{len(header)}: separate the columns by single tabs."
                )
            row = {name: cells[place].strip() for name, place in places.items()}
            if all(row.values()):
                yield row

    def _units(self, lines: list[str]) -> list[str]:
        if self.unit == "line":
            return lines
        if self.unit == "document":
            return ["\n".join(lines)] if lines else []
        words = " ".join(lines).split()
        return [" ".join(words[i : i + self.words]) for i in range(0, len(words), self.words)]

    def _labels(self, given: list[str]) -> tuple[list[int] | None, tuple[str, ...] | None]:
        if self.label is None:
            return None, None
        if all(value.isdecimal() for value in given):
            return [int(value) for value in given], None
        names = tuple(sorted(set(given)))
        number = {name: i for i, name in enumerate(names)}
        return [number[value] for value in given], names


@dataclasses.dataclass(frozen=True)
class TextRecords:
    """Records of `TextFiles`: a string for every input, and a label for each, or None."""

    source: TextFiles
    split: str
    rows: tuple[dict[str, str], ...]
    labels: tuple[int, ...] | None
    num_classes: int | None
    label_names: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        record: dict[str, Any] = dict(self.rows[i])
        if self.labels is not None:
            record["label"] = self.labels[i]
        return record

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process reads the files itself; sending the strings would take longer.
        return self.source.open, (self.split,)

    def describe(self, i: int) -> str:
        """Returns number, split and files of a record."""
        return f"record {i} of split {self.split} in {self.source.path}"


def _located(pattern: str) -> str:
    """Puts the folder of a package, which is not imported, or of the user in place."""
    if not pattern.startswith(_PACKAGE):
        return os.path.expanduser(pattern)
    name, _, rest = pattern.removeprefix(_PACKAGE).partition("/")
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise UserError(f"'{pattern}' needs the Python package {name}: install it.")
    return os.path.join(found.submodule_search_locations[0], rest)


def _is_text(line: str) -> bool:
    return bool(_LETTER.search(line)) and not _HEADING.fullmatch(line)
