"""Five hundred ways to tamper with a bundle: each is found at the level that can see it."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.artifacts import tampering
from tests.artifacts.conftest import RememberingWorkshop
from tests.artifacts.tampering import FORGE, MUTATIONS
from zpdbench.artifacts import verify
from zpdbench.artifacts.findings import DIFFERS
from zpdbench.artifacts.level0 import Outside
from zpdbench.study import Study

TIMES = {0: 12, 1: 12, 2: 6}
"""Repetitions of a mutation by the level that must find it."""


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("memory")


def lowest(folder: Path, scratch: Path, level: int, memory: Path) -> int | None:
    """The lowest level that finds something, asked for `level`."""

    def workshop(path: Path, study: Study) -> RememberingWorkshop:
        return RememberingWorkshop(path, study, memory)

    effort = verify.Effort(level)
    _, table = verify.check(folder, scratch, Outside(), effort, workshop)
    return min((r.level for r in table.rows if r.verdict == DIFFERS), default=None)


def test_there_are_five_hundred() -> None:
    assert sum(TIMES[m.level] for m in MUTATIONS) >= 500


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.effort}-{m.name}")
def test_found_at_the_level_that_can_see_it(
    mutation: tampering.Mutation, unpacked: Path, tmp_path: Path, memory: Path
) -> None:
    found: Counter[int | None] = Counter()
    for seed in range(TIMES[mutation.level]):
        folder, scratch = tmp_path / "b", tmp_path / "s"
        assert tampering.apply(mutation, unpacked, folder, seed), "nothing was changed"
        scratch.mkdir()
        level = lowest(folder, scratch, mutation.level, memory)
        found[level] += 1
        assert level is not None, f"seed {seed} was not found"
        shutil.rmtree(folder)
        shutil.rmtree(scratch)
    # A forgery is one because the levels below see nothing wrong.
    if mutation.effort == FORGE:
        assert min(k for k in found if k is not None) >= 1


@pytest.mark.slow
def test_what_no_recomputation_can_see(unpacked: Path, tmp_path: Path, memory: Path) -> None:
    """Honesty about the limits: settings and weights, forged all through, need levels 3 and 4."""
    for number, change in enumerate((tampering.edit_config, tampering.edit_record)):
        folder, scratch = tmp_path / f"b{number}", tmp_path / f"s{number}"
        mutation = tampering.Mutation("", FORGE, 4, change)
        assert tampering.apply(mutation, unpacked, folder, 0)
        scratch.mkdir()
        assert lowest(folder, scratch, 2, memory) is None
