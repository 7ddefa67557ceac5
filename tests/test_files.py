from __future__ import annotations

import math
import os
import socket
import stat
import subprocess
import sys
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


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere/a.txt"
    target.parent.mkdir()
    target.write_text("old")
    link, second = tmp_path / "link", tmp_path / "second"
    link.symlink_to("elsewhere/a.txt")
    second.symlink_to(link)
    files.write_text(second, "new")
    assert link.is_symlink() and second.is_symlink()
    assert target.read_text() == "new" and not target.is_symlink()
    target.unlink()
    files.write_text(second, "again")
    assert target.read_text() == "again", "a link to what is not there yet"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "link", "second"]
    assert [p.name for p in target.parent.iterdir()] == ["a.txt"]


def test_a_link_to_a_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/old").write_text("")
    (tmp_path / "link").symlink_to("real")
    with files.atomic_directory(tmp_path / "link") as folder:
        (folder / "new").write_text("x")
    assert (tmp_path / "link").is_symlink()
    assert [p.name for p in (tmp_path / "real").iterdir()] == ["new"]


def test_a_pipe_is_written_through(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "link").symlink_to(fifo)
    for name in ("fifo", "link"):
        got: list[bytes] = []
        reader = threading.Thread(target=lambda got=got: got.append(fifo.read_bytes()))
        reader.start()
        files.write_tsv(tmp_path / name, ["a"], [[1]])
        reader.join(60)
        assert got == [b"a\n1\n"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fifo", "link"]


WRITE = "from zpdbench import files; print('before', flush=True); files.write_text({!r}, 'text\\n')"


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_gets_it_behind_what_is_there(tmp_path: Path, name: str) -> None:
    """As a pipe, as a file, as a file that is appended to, as a socket: never renamed over."""
    command = [sys.executable, "-c", WRITE.format(name)]
    assert subprocess.check_output(command) == b"before\ntext\n"
    target = tmp_path / "target"
    for mode, expected in (("wb", "before\ntext\n"), ("ab", "before\ntext\nbefore\ntext\n")):
        with target.open(mode) as out:
            inode = target.stat().st_ino
            subprocess.run(command, stdout=out, check=True)
        assert target.read_text() == expected and target.stat().st_ino == inode
    ours, theirs = socket.socketpair()
    with ours, theirs:
        subprocess.run(command, stdout=theirs, check=True)
        assert ours.recv(100) == b"before\ntext\n"
    assert [p.name for p in tmp_path.iterdir()] == ["target"]


def test_a_process_substitution_gets_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = f"files.write_text(sys.argv[1], 'text')\" >(cat > '{out}'); wait $!"
    script = f'{sys.executable!r} -c "import sys; from zpdbench import files; {command}'
    subprocess.run(["bash", "-c", script], check=True)
    assert out.read_text() == "text"


def test_devices_stay_devices(tmp_path: Path) -> None:
    files.write_text("/dev/null", "x")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(OSError) as error:
        files.write_text("/dev/full", "x")
    assert files.is_full(error.value)


def test_nothing_lies_beside_a_stream(tmp_path: Path) -> None:
    assert files.beside("/dev/stdout", ".timing.json") == Path(os.devnull)
    assert files.beside(tmp_path / "a.tsv", ".html") == tmp_path / "a.html"


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "to_folder").symlink_to("folder")
    before = sorted(p.name for p in tmp_path.rglob("*"))
    for name, what in (
        ("folder", "is a folder already"),
        ("to_folder", "is a folder already"),
        (".", "is a folder already"),
        ("file/below", "cannot be written"),
        ("loop", "cannot be written"),
        ("/proc/self/fd/987", "is not open"),
        ("/dev/stdin/x", "cannot be written"),
    ):
        with pytest.raises(UserError, match=what):
            files.write_text(tmp_path / name, "x")
    with (
        pytest.raises(UserError, match="is a file already"),
        files.atomic_directory(tmp_path / "file"),
    ):
        pass
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "kept"


def test_a_long_name_is_a_name(tmp_path: Path) -> None:
    files.write_text(tmp_path / ("가" * 84), "x")
    with pytest.raises(UserError, match="cannot be written"):
        files.write_text(tmp_path / ("x" * 256), "x")


def test_a_table_is_read_by_its_own_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    odd = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"
    files.write_tsv(path, ["k", "note"], [["1", odd], ["2", "x\ny"]])
    assert files.read_tsv(path) == (
        ["k", "note"],
        [{"k": "1", "note": odd}, {"k": "2", "note": "x\\ny"}],
    )
    path.write_bytes(b"\xef\xbb\xbfa\tb\r\n1\t2\r\n")
    assert files.read_tsv(path) == (["a", "b"], [{"a": "1", "b": "2"}])
    for text, what in (("", "is empty"), ("a\tb\n1\n", "a.tsv:2: 1 fields"), ("a\ta\n", "twice")):
        path.write_text(text)
        with pytest.raises(UserError, match=what):
            files.read_tsv(path)
