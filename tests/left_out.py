"""What a run of tests left out, in groups and with what is to be done about it, at its end."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
NO_DATA = "no data sets here"
_FIXES = {
    NO_DATA: "lay them at shared/data beside this folder or above it, or set ZPDBENCH_DATA "
    "(docs/benchmarks.md lists the files)",
}
_DESELECTED = "zpdbench_deselected"


def data_folder() -> Path | None:
    """Real benchmark and instruction data: ZPDBENCH_DATA, else shared/data beside the clone.

    Or beside one of the folders that it lies in, as with a worktree.
    """
    if given := os.environ.get("ZPDBENCH_DATA"):
        return Path(given) if Path(given).is_dir() else None
    found = (parent / "shared/data" for parent in ROOT.parents)
    return next((folder for folder in found if (folder / "gsm8k").is_dir()), None)


def lines(reasons: Iterable[str], deselected: int, by: str, ignored: Iterable[str]) -> list[str]:
    """A line a reason for which tests were left out, the most frequent first.

    Args:
        reasons: of each skipped test.
        deselected: how many were not asked for.
        by: the option that says so.
        ignored: files that were not collected.
    """
    said = []
    for reason, count in sorted(Counter(reasons).items(), key=lambda pair: (-pair[1], pair[0])):
        fix = _FIXES.get(reason)
        said.append(f"{count} skipped: {reason}" + (f": {fix}" if fix else ""))
    if deselected:
        said.append(f"{deselected} not asked for by {by}: make test-all")
    if files := sorted(ignored):
        said.append(f"{len(files)} files not asked for: make test-all: {' '.join(files)}")
    return said


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count in a process of pytest-xdist's, whose main process does not select."""
    if items and hasattr(items[0].config, "workeroutput"):
        output = items[0].config.workeroutput
        output[_DESELECTED] = output.get(_DESELECTED, 0) + len(items)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take over a process's count; all select from the same tests."""
    count = getattr(node, "workeroutput", {}).get(_DESELECTED, 0)
    node.config.stash[_COUNT] = max(count, node.config.stash.get(_COUNT, 0))


_COUNT = pytest.StashKey[int]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None]:
    """Behind everything but pytest's closing line."""
    yield
    stats = terminalreporter.stats
    reasons = [
        report.longrepr[2].removeprefix("Skipped: ")
        for report in stats.get("skipped", [])
        if isinstance(report.longrepr, tuple | list)
    ]
    deselected = len(stats.get("deselected", [])) or config.stash.get(_COUNT, 0)
    options = [("-m", config.option.markexpr), ("-k", config.option.keyword)]
    by = " ".join(f'{option} "{value}"' for option, value in options if value) or "--deselect"
    ignored = [os.path.relpath(path) for path in config.option.ignore or ()]
    if said := lines(reasons, deselected, by, ignored):
        terminalreporter.section("left out")
        for line in said:
            terminalreporter.line(line)
