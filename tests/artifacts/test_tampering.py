"""Five hundred ways to tamper with a bundle: each is found at the level that can see it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.artifacts import tampering
from tests.artifacts.conftest import RememberingWorkshop
from tests.artifacts.tampering import FORGE, MUTATIONS
from zpdbench import files
from zpdbench.artifacts import manifest, verify
from zpdbench.artifacts.findings import DIFFERS
from zpdbench.artifacts.level0 import Outside
from zpdbench.study import Study

TIMES = {0: 12, 1: 12, 2: 6}
"""Repetitions of a mutation by the level that must find it."""
KINDS = Counter(m.name for m in MUTATIONS)
"""How many efforts each kind of change is made with."""


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


def name(mutation: tampering.Mutation) -> str:
    return f"{mutation.effort}-{mutation.name}"


# A forgery is found by computing all statistics again, which takes most of a minute.
FORGED = ("forge-edit_statistic", "forge-edit_score")
SAMPLE = [m for m in MUTATIONS if m.level == 0 or name(m) in FORGED]


@pytest.mark.slow
@pytest.mark.parametrize("mutation", SAMPLE, ids=name)
def test_a_sample_is_found(
    mutation: tampering.Mutation, unpacked: Path, tmp_path: Path, memory: Path
) -> None:
    """What `make test` has the time for: whatever level 0 sees, and a forgery for either level."""
    times = 2 if KINDS[mutation.name] == 1 else 1
    check_found(mutation, times, unpacked, tmp_path, memory)


@pytest.mark.full
@pytest.mark.parametrize("mutation", MUTATIONS, ids=name)
def test_found_at_the_level_that_can_see_it(
    mutation: tampering.Mutation, unpacked: Path, tmp_path: Path, memory: Path
) -> None:
    check_found(mutation, TIMES[mutation.level], unpacked, tmp_path, memory)


def check_found(
    mutation: tampering.Mutation, times: int, unpacked: Path, tmp_path: Path, memory: Path
) -> None:
    """Apply a mutation with seeds 0, 1 and so on, each to a copy; all must be found."""
    found: Counter[int | None] = Counter()
    for seed in range(times):
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
        assert min(k for k in found if k is not None) >= min(mutation.level, 1)


@pytest.mark.full
def test_what_no_recomputation_can_see(unpacked: Path, tmp_path: Path, memory: Path) -> None:
    """Honesty about the limits: settings and weights, forged all through, need levels 3 and 4."""
    changes = (
        tampering.edit_config,
        tampering.edit_record,
        tampering.edit_trace,
        tampering.edit_manifest_fact,
    )
    for number, change in enumerate(changes):
        folder, scratch = tmp_path / f"b{number}", tmp_path / f"s{number}"
        mutation = tampering.Mutation("", FORGE, 4, change)
        assert tampering.apply(mutation, unpacked, folder, 0)
        scratch.mkdir()
        assert lowest(folder, scratch, 2, memory) is None


@pytest.mark.full
@pytest.mark.parametrize(
    ("change", "level"),
    [
        (tampering.edit_score, 2),
        # The answers are forged too: only asking the models again can tell.
        (tampering.edit_answer_and_score, None),
        # A seed that was run and left out: nothing in the bundle knows of it, only its digest.
        (tampering.drop_seed, None),
    ],
    ids=lambda v: getattr(v, "__name__", str(v)),
)
def test_tables_recomputed_from_forged_verdicts(
    change: Callable[[Path, tampering.Draw], None],
    level: int | None,
    unpacked: Path,
    tmp_path: Path,
    memory: Path,
) -> None:
    before = files.sha256_file(unpacked / manifest.NAME)
    mutation = tampering.Mutation(change.__name__, tampering.RECOMPUTE, level or 3, change)
    folder, scratch = tmp_path / "b", tmp_path / "s"
    assert tampering.apply(mutation, unpacked, folder, 1)
    scratch.mkdir()
    assert lowest(folder, scratch, 2, memory) == level
    assert files.sha256_file(folder / manifest.NAME) != before
