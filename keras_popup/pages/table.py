"""A table of a page, which its reader can sort and filter."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: str, what a filter calls it; without blanks.
        title: str, its heading.
        number: whether it holds numbers.
    """

    name: str
    title: str
    number: bool = True


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows for the template `table.html`.

    Attributes:
        columns: the columns.
        rows: for each row, a dict from names of columns to (text, value to sort by). A row has a key "trial" where the
            figures of the page have marks for it.
        links: for each row, pairs of an address and a text.
        best: the trial of the row that stands out.
    """

    columns: Sequence[Column]
    rows: Sequence[Mapping[str, tuple[str, Any]]]
    links: Sequence[Sequence[tuple[str, str]]] = ()
    best: int | None = None
