"""Captions made of class names: pairs of image and text out of any labelled source."""

import dataclasses
from typing import Any, Protocol

from maskjax.data.records import Records
from maskjax.errors import UserError


class Source(Protocol):
    """What `config.data.source` is."""

    def open(self, split: str) -> Records:
        """Opens a split."""
        ...


@dataclasses.dataclass(frozen=True)
class Captioned:
    """A labelled source whose records also say in words what their class is.

    Attributes:
      source: with labels.
      input_name: under which name records give the captions.
      templates: sentences with {} for the name of the class; training takes one at random,
        evaluation the first.
      names: of the classes; empty: those of the source.
    """

    source: Source
    input_name: str = "text"
    templates: tuple[str, ...] = ("{}",)
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.templates or not all("{}" in template for template in self.templates):
            raise UserError(
                f"templates of data.Captioned are {self.templates}: give sentences with {{}} for "
                "the name of the class."
            )

    def open(self, split: str) -> "CaptionedRecords":
        """Opens a split of the source.

        Raises:
          UserError: as the source does; no labels, or too few names for them.
        """
        records = self.source.open(split)
        names = self.names or records.label_names or ()
        if records.num_classes is None or len(names) < records.num_classes:
            raise UserError(
                f"data.Captioned needs a name for each class, but there are {len(names)} names for "
                f"{records.num_classes or 'no'} classes: set names."
            )
        return CaptionedRecords(self, split, records, tuple(names))


@dataclasses.dataclass(frozen=True)
class CaptionedRecords:
    """Records of `Captioned`; text is a tuple of strings that say the same."""

    source: Captioned
    split: str
    records: Records
    label_names: tuple[str, ...]

    @property
    def num_classes(self) -> int | None:
        """As the source says."""
        return self.records.num_classes

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = dict(self.records[i])
        name = self.label_names[record["label"]]
        captions = tuple(template.format(name) for template in self.source.templates)
        return {**record, self.source.input_name: captions}

    def __reduce__(self) -> tuple[Any, ...]:
        return self.source.open, (self.split,)

    def describe(self, i: int) -> str:
        """Returns what the source says of the record."""
        return self.records.describe(i)
