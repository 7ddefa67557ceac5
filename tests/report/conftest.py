"""One results folder and one page that the report's tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report import material


@pytest.fixture(scope="session")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """study.lock.yaml of a results folder with hostile answers; not to be changed."""
    folder = tmp_path_factory.mktemp("report")
    old = os.environ.get("ZPDBENCH_CACHE")
    os.environ["ZPDBENCH_CACHE"] = str(folder / "cache")
    yield material.make(folder)
    if old is None:
        del os.environ["ZPDBENCH_CACHE"]
    else:
        os.environ["ZPDBENCH_CACHE"] = old


@pytest.fixture(scope="session")
def page(lock: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of that folder."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    material.write(lock, out)
    return out
