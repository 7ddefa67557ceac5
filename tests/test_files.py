from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest

from zpdbench import files
from zpdbench.errors import UserError
from zpdbench.scores import programs


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    files.write_text(target, "old")
    with pytest.raises(RuntimeError), files.atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), files.atomic_directory(tmp_path / "d") as temporary:
        (temporary / "x").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    path, order, waiting = tmp_path / "new" / "lock", [], threading.Event()

    def other() -> None:
        waiting.set()
        with files.locked(path):
            order.append("other")

    thread = threading.Thread(target=other)
    with files.locked(path):
        thread.start()
        waiting.wait()
        # Time enough to get past a lock that does not hold.
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "NA"),
        (math.nan, "NA"),
        (0.1 + 0.2, "0.3"),
        (-0.0, "0"),
        (1 / 3, "0.333333333333"),
        (True, "true"),
        (7, "7"),
        ("a\tb\n", "a\\tb\\n"),
    ],
)
def test_cells(value: object, text: str) -> None:
    assert files.format_number(value) == text


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"0123456789")
    (tmp_path / "train.timing.json").write_text("1")
    manifest = files.write_manifest(tmp_path, {"parameters": 3})
    assert list(manifest["files"]) == ["model.safetensors"]
    files.check_manifest(tmp_path)
    (tmp_path / "train.timing.json").write_text("2")
    files.check_manifest(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"01234")
    with pytest.raises(UserError, match=r"model\.safetensors"):
        files.check_manifest(tmp_path)


def test_of_two_equal_folders_the_first_stays(tmp_path: Path) -> None:
    target = tmp_path / "cache/entry"
    with files.shared_directory(target) as first:
        (first / "a").write_text("first")
        with files.shared_directory(target) as second:
            (second / "a").write_text("second")
    assert (target / "a").read_text() == "second", "whoever is ready first"
    assert [p.name for p in target.parent.iterdir()] == ["entry"]


def test_an_empty_cache_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv("ZPDBENCH_CACHE", raising=False)
        else:
            monkeypatch.setenv("ZPDBENCH_CACHE", value)
        assert files.cache_folder() == Path(".cache/zpdbench")
        assert programs.cache_folder() == Path(".cache/zpdbench/verdicts")
    monkeypatch.setenv("ZPDBENCH_CACHE", "/elsewhere")
    assert files.cache_folder() == Path("/elsewhere")
