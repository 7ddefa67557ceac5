"""What all tests share: the repository's root, real data, Slurm and images; slow tests last."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zpdbench import arithmetic

# Before anything loads torch or numpy: the tests' numbers are those of any processor.
if arithmetic.processor().has_avx2 and os.environ.get("ZPDBENCH_TEST_ARITHMETIC") != "native":
    arithmetic.choose("portable")
else:
    arithmetic.choose("native")

from tests import left_out
from tests.installed import apptainer, images, slurm
from tests.left_out import (
    ROOT,
    pytest_deselected,
    pytest_terminal_summary,
    pytest_testnodedown,
)
from tests.micro import micro

__all__ = [
    "apptainer",
    "images",
    "micro",
    "pytest_deselected",
    "pytest_terminal_summary",
    "pytest_testnodedown",
    "slurm",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first, so that a mistake shows early."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real benchmark and instruction data; without it the test is skipped."""
    folder = left_out.data_folder()
    if folder is None:
        pytest.skip(left_out.NO_DATA)
    return folder
