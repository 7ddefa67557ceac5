"""When are two tables of numbers the same? Equal text, or numbers within a stated distance."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

EXACT = 1e-9
"""Relative; closed formulas and sums."""
ITERATIVE = 1e-5
"""Relative; root finding, noncentral distributions, mixed models."""
_FLOOR = 1e-12
_NUMBER = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?")
_FREE_TEXT = frozenset({"note", "notes"})
_ITERATIVE_COLUMNS = re.compile(
    r"(^|_)(mde|power|n_needed|seeds_needed|tau|tau2|icc|q_crit|p_tukey|p_adjusted)(_|$)"
)


@dataclass(frozen=True)
class Difference:
    """The first cell of a row in which two tables part."""

    row: str
    column: str
    expected: str
    got: str


@dataclass(frozen=True)
class Comparison:
    """Two tables, cell by cell."""

    rows: int
    cells: int
    bytes_equal: bool
    differences: list[Difference]
    largest: float
    """Largest relative distance between two numbers that count as equal."""


def close(a: float, b: float, tolerance: float) -> bool:
    """Whether two numbers are equal to a relative tolerance (and 1e-12 absolutely)."""
    return abs(a - b) <= tolerance * max(abs(a), abs(b)) + _FLOOR


def distance(a: float, b: float) -> float:
    """Relative distance; 0 for equal numbers."""
    return 0.0 if a == b else abs(a - b) / max(abs(a), abs(b))


def same_text(a: str, b: str, tolerance: float) -> bool:
    """Whether two texts are equal but for the last digits of numbers in them."""
    if a == b:
        return True
    if _NUMBER.sub("0", a) != _NUMBER.sub("0", b):
        return False
    pairs = zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=True)
    return all(x == y or ("." in x + y and close(float(x), float(y), tolerance)) for x, y in pairs)


def compare(expected: Path, got: Path) -> Comparison:
    """Compare two TSV files with a header, row by row in their order."""
    wanted, found = expected.read_bytes(), got.read_bytes()
    if wanted == found:
        lines = wanted.count(b"\n")
        columns = wanted.partition(b"\n")[0].count(b"\t") + 1
        return Comparison(lines - 1, (lines - 1) * columns, True, [], 0.0)
    left, right = (_lines(data) for data in (wanted, found))
    if not left or not right or left[0] != right[0]:
        first = Difference("header", "", *("\t".join(t[0]) if t else "" for t in (left, right)))
        return Comparison(0, 0, False, [first], 0.0)
    header = left[0]
    differences: list[Difference] = []
    if len(left) != len(right):
        differences.append(Difference("rows", "", str(len(left) - 1), str(len(right) - 1)))
    largest, cells = 0.0, 0
    for a, b in zip(left[1:], right[1:], strict=False):
        differing, far = _compare_row(header, a, b)
        largest, cells = max(largest, far), cells + len(header)
        if differing:
            differences.append(differing)
    return Comparison(len(left) - 1, cells, False, differences, largest)


def _lines(data: bytes) -> list[list[str]]:
    text = data.decode("utf-8", "replace")
    return [line.split("\t") for line in text.removesuffix("\n").split("\n")] if text else []


def _compare_row(header: list[str], a: list[str], b: list[str]) -> tuple[Difference | None, float]:
    name = "/".join(a[:3])
    if len(a) != len(header) or len(b) != len(header):
        return Difference(name, "", f"{len(a)} fields", f"{len(b)} fields"), 0.0
    largest = 0.0
    for column, x, y in zip(header, a, b, strict=True):
        if x == y:
            continue
        iterative = "hedges_g" in a or bool(_ITERATIVE_COLUMNS.search(column))
        tolerance = ITERATIVE if iterative else EXACT
        if column in _FREE_TEXT:
            if same_text(x, y, ITERATIVE):
                continue
            return Difference(name, column, x, y), largest
        values = _numbers(x, y)
        if values is None or not close(*values, tolerance):
            return Difference(name, column, x, y), largest
        largest = max(largest, distance(*values))
    return None, largest


def _numbers(x: str, y: str) -> tuple[float, float] | None:
    if not _NUMBER.fullmatch(x) or not _NUMBER.fullmatch(y):
        return None
    return float(x), float(y)


def rows(path: Path) -> Iterator[dict[str, str]]:
    """A TSV's rows as mappings; rows of another length are left out."""
    lines = _lines(path.read_bytes())
    for line in lines[1:]:
        if len(line) == len(lines[0]):
            yield dict(zip(lines[0], line, strict=True))
