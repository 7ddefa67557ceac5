"""The exit code says whether what matters was checked; a difference stands with its context."""

from __future__ import annotations

import pytest

from zpdbench.artifacts import agreement
from zpdbench.artifacts.findings import DIFFERS, NOT_CHECKED, REPRODUCED, Table


def test_an_open_core_row_is_no_success() -> None:
    table = Table(1)
    for level in (0, 1):
        table.add(level, "x", "", REPRODUCED)
    assert table.exit_code() == 0
    table.add(1, "beside the point", "", NOT_CHECKED)
    assert table.exit_code() == 0
    table.add(1, "the point", "", NOT_CHECKED, core=True)
    assert table.exit_code() == 3 and [r.claim for r in table.open_core()] == ["the point"]
    table.add(1, "other", "", DIFFERS)
    assert table.exit_code() == 1


def test_a_level_without_any_check_is_no_success() -> None:
    table = Table(1)
    table.add(0, "x", "", REPRODUCED)
    assert table.exit_code() == 3


def test_what_the_machines_differ_in_stands_beside_a_difference() -> None:
    table = Table(1, context={0: "made by another version", 1: "machines: numpy 1 there, 2 here"})
    table.add(0, "x", "", DIFFERS, why="so")
    table.add(1, "x", "", DIFFERS)
    table.add(1, "x", "", REPRODUCED, why="so")
    assert [row.why for row in table.rows] == [
        "so; made by another version",
        "made by another version; machines: numpy 1 there, 2 here",
        "so",
    ]


@pytest.mark.parametrize(
    ("drawn", "n", "hidden"), [(0, 10, 10), (10, 10, 0), (1, 40, 38), (1, 2, 1), (20, 40, 4)]
)
def test_what_a_clean_sample_may_hide(drawn: int, n: int, hidden: int) -> None:
    """By enumeration: the chance that `hidden` bad ones of n all stay undrawn is at least 5 %."""
    from math import comb

    assert agreement.most_hidden(drawn, n) == hidden
    assert comb(n - hidden, drawn) / comb(n, drawn) >= 0.05 - 1e-12
    if hidden < n - drawn:
        assert comb(n - hidden - 1, drawn) / comb(n, drawn) < 0.05
