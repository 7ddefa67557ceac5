"""Results tables as the report reads them: rows that know their line, numbers that link to it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from zpdbench import files
from zpdbench.report.show import Row

SHOWN_ROWS = 2000
"""Rows of a table that the page itself holds; the file has all."""


@dataclass(frozen=True)
class Cell:
    """A row of a results table and where it stands."""

    table: str
    line: int
    values: Row

    def __getitem__(self, column: str) -> str:
        return self.values.get(column, "NA")

    def number(self, column: str) -> float:
        """The value as a number; NaN where it is none."""
        try:
            value = float(self[column])
        except ValueError:
            return math.nan
        return value if math.isfinite(value) else math.nan

    @property
    def anchor(self) -> str:
        """Identifier of the row in the page."""
        return f"{self.table}.{self.line}" if self.line <= SHOWN_ROWS + 1 else f"table-{self.table}"

    def link(self, text: str) -> Markup:
        """`text`, linked to the row."""
        return Markup('<a class="n" href="#{}">{}</a>').format(self.anchor, text)

    def show(self, column: str, digits: int = 1, *, sign: bool = False, scale: float = 1) -> Markup:
        """A number of the row, linked to it."""
        return self.link(number(scale * self.number(column), digits, sign=sign))

    def interval(self, name: str = "", digits: int = 1, *, scale: float = 1) -> Markup:
        """`low to high` of the columns NAME_low and NAME_high, or low and high."""
        low, high = (
            number(scale * self.number(f"{name}_{end}" if name else end), digits, sign=True)
            for end in ("low", "high")
        )
        return self.link(between(low, high))

    @property
    def level(self) -> str:
        """The interval's level, such as `95 %`."""
        value = self.number("level")
        return "95 %" if math.isnan(value) else f"{100 * value:g} %"


@dataclass(frozen=True)
class Table:
    """A results table by its name without `.tsv`."""

    name: str
    columns: list[str]
    rows: list[Cell]

    def where(self, **equal: str) -> list[Cell]:
        """Rows whose columns have these values."""
        return [r for r in self.rows if all(r[c] == v for c, v in equal.items())]

    def first(self, **equal: str) -> Cell | None:
        """The first such row, or None."""
        return next(iter(self.where(**equal)), None)

    def distinct(self, column: str) -> list[str]:
        """A column's values in order of appearance."""
        return list(dict.fromkeys(r[column] for r in self.rows))

    def __bool__(self) -> bool:
        return bool(self.rows)

    def __iter__(self) -> Iterator[Cell]:
        return iter(self.rows)


def read(paths: Sequence[str | Path]) -> dict[str, Table]:
    """Tables by name.

    Raises:
        UserError: as `files.read_tsv`.
    """
    found = {}
    for path in map(Path, paths):
        columns, rows = files.read_tsv(path)
        name = path.name.removesuffix(".tsv")
        cells = [Cell(name, line, row) for line, row in enumerate(rows, 2)]
        found[name] = Table(name, columns, cells)
    return found


def number(value: float, digits: int = 1, *, sign: bool = False) -> str:
    """A number with a fixed number of decimals and a true minus sign; NA if undefined."""
    if not math.isfinite(value):
        return "NA"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")


def between(low: str, high: str) -> str:
    """An interval in brackets; NA if undefined."""
    return "NA" if "NA" in (low, high) else f"[{low}, {high}]"


def p_value(value: float) -> str:
    """A p value for reading, such as `0.016`, `< 0.0001`."""
    if math.isnan(value):
        return "NA"
    if value < 1e-4:
        return "< 0.0001"
    if value > 0.9995:
        return "> 0.999"
    return f"{value:.4f}" if value < 0.001 else f"{value:.3f}"


def p_said(value: float) -> str:
    """A p value in a sentence: `= 0.016`, `< 0.0001`."""
    text = p_value(value)
    return text if text[0] in "<>" else f"= {text}"


def large(value: float) -> str:
    """A count with thousands separated, or in powers of ten from 10^7."""
    if not math.isfinite(value):
        return "NA"
    if abs(value) < 1e7:
        return f"{value:,.0f}"
    power = math.floor(math.log10(abs(value)))
    superscript = str(power).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{value / 10**power:.2f} × 10{superscript}"
