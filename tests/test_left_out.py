from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import left_out

TESTS = """
import pytest
from tests.left_out import NO_DATA

@pytest.mark.parametrize("n", range(3))
def test_data(n): pytest.skip(NO_DATA)

@pytest.mark.skipif(True, reason="no root here")
def test_root(): pass

@pytest.mark.full
def test_long(): pass

def test_done(): pass
"""


@pytest.mark.parametrize("parallel", [(), ("-n", "2", "--dist", "loadfile")])
def test_it_stands_before_the_closing_line(
    root: Path, tmp_path: Path, parallel: tuple[str, ...]
) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "test_apart.py").write_text("def test_apart(): pass")
    apart = tmp_path / "test_apart.py"
    command = [sys.executable, "-m", "pytest", "-p", "tests.left_out", "-p", "no:cacheprovider"]
    command += ["-q", "-m", "not full", *parallel, f"--ignore={apart}", str(tmp_path)]
    # Nothing of this run's own reaches the other.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, "-c", str(root / "pyproject.toml"), f"--rootdir={tmp_path}"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *_, title, data, other, long, files, closing = done.stdout.splitlines()
    assert title.strip("= ") == "left out"
    assert data.startswith("3 skipped: no data sets here: ") and "ZPDBENCH_DATA" in data
    assert other == "1 skipped: no root here"
    assert long == '1 not asked for by -m "not full": make test-all'
    assert files.startswith("1 files not asked for: make test-all: ")
    assert files.endswith("test_apart.py")
    assert closing.startswith("1 passed, 4 skipped, 1 deselected" if not parallel else "1 passed")


def test_nothing_is_said_where_nothing_was_left_out() -> None:
    assert left_out.lines([], 0, "", []) == []


def test_data_are_found_beside_the_clone_and_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZPDBENCH_DATA", raising=False)
    data = tmp_path / "shared/data"
    for clone in ("any name", "worktrees/one"):
        monkeypatch.setattr(left_out, "ROOT", tmp_path / clone)
        data.mkdir(parents=True, exist_ok=True)
        # Not just any folder of that name.
        assert left_out.data_folder() != data
        (data / "gsm8k").mkdir()
        assert left_out.data_folder() == data
        (data / "gsm8k").rmdir()
    monkeypatch.setenv("ZPDBENCH_DATA", str(tmp_path))
    assert left_out.data_folder() == tmp_path
    monkeypatch.setenv("ZPDBENCH_DATA", str(tmp_path / "none"))
    assert left_out.data_folder() is None
