from __future__ import annotations

import re

import pytest

from zpdbench import grid


def test_evaluation_steps_end_with_the_last() -> None:
    assert grid.evaluation_steps(160, 40) == [40, 80, 120, 160]
    assert grid.evaluation_steps(100, 40) == [40, 80, 100]
    assert grid.evaluation_steps(12, 500) == [12]


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        (["model"], {"m": ["all"]}),
        (["model", "seed"], {"m": ["base-s0", "s0", "s1"]}),
        (["model", "condition", "seed"], {"m": ["base-s0", "random-s0", "random-s1"]}),
    ],
)
def test_chunks_hold_every_run_once(group_by: list[str], expected: dict[str, list[str]]) -> None:
    runs = [*grid.bases(["m"]), *grid.runs(["m"], ["random"], [0, 1])]
    chunks = grid.chunks(runs, group_by)
    assert [c for _, c in chunks] == expected["m"]
    assert sorted(r for members in chunks.values() for r in members) == sorted(runs)
    for _, chunk in chunks:
        assert re.fullmatch(grid.WILDCARDS["chunk"], chunk)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "-x", "a b"])
def test_names_cannot_leave_their_folder(name: str) -> None:
    assert not re.fullmatch(grid.NAME, name)
