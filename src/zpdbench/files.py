"""Files as every stage writes them: whole or not at all, and named by what is in them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# What is about time or about one machine is never part of a digest, a manifest or a bundle.
UNHASHED_NAMES = frozenset({".snakemake_timestamp", "MANIFEST.json"})

_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_hashed(name: str) -> bool:
    """Whether a file of this name counts as content (timings and Snakemake's marks do not)."""
    return name not in UNHASHED_NAMES and ".timing." not in name


def is_full(error: BaseException) -> bool:
    """Whether a write failed for lack of space, on the disk or in the user's quota.

    polars and safetensors raise errors of their own, which carry the system's only as text.
    """
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(f"(os error {code})" in str(error) for code in _FULL)


def place_of(path: str | Path, *, folder: bool = False) -> Path:
    """Where what is written to `path` lies: at the end of its links, so that they stay.

    Args:
        folder: whether a folder is to be written, and not a file.

    Raises:
        UserError: there is something else already, a loop of links, or a file for a parent.
    """
    from zpdbench.errors import UserError

    path = Path(path)
    fix = "give another name to write to"
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        place = Path(os.path.realpath(path))
        if _DESCRIPTORS.fullmatch(str(place.parent)):
            raise UserError("is not open", where=str(path), fix=fix) from None
        return place
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise UserError(f"cannot be written ({reason})", where=str(path), fix=fix) from error
    if stat.S_ISDIR(mode) != folder:
        is_one = "is a folder" if stat.S_ISDIR(mode) else "is a file"
        raise UserError(f"{is_one} already", where=str(path), fix=fix)
    # A pipe's or a deleted file's name, as realpath gives it, is none that could be opened.
    return Path(os.path.realpath(path)) if folder or stat.S_ISREG(mode) else path


def is_stream(path: str | Path) -> bool:
    """Whether what is written to `path` goes on at once, and nothing can be renamed to it.

    So it is with pipes, devices and whatever stands at an open descriptor: /dev/stdout, /dev/fd/63.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        return _descriptor(path) is not None or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    except OSError:
        return False


_DESCRIPTORS = re.compile(r"/proc/\d+(/task/\d+)?/fd")


def _descriptor(path: Path) -> Path | None:
    """The entry of /proc/PID/fd that a path leads to, if it does."""
    for _ in range(40):  # as many links as Linux follows
        folder = Path(os.path.realpath(path.parent))
        path = folder / path.name
        if not path.is_symlink():
            return None
        if _DESCRIPTORS.fullmatch(str(folder)):
            return path
        path = folder / path.readlink()
    return None


def _pour(finished: Path, path: Path) -> None:
    """Write a finished file into a stream, behind what was written there before."""
    from zpdbench.errors import UserError

    entry = _descriptor(path)
    try:
        with finished.open("rb") as source:
            if entry is None or entry.parts[2] != str(os.getpid()):
                out = path.open("wb")
            else:
                # Our own. Opened by its name, a file would be cut and a socket refused.
                sys.stdout.flush()
                out = os.fdopen(os.dup(int(entry.name)), "wb")
            with out:
                shutil.copyfileobj(source, out)
    except BrokenPipeError:
        raise
    except OSError as error:
        if is_full(error):
            raise
        raise UserError(
            f"cannot be written ({error.strerror})",
            where=str(path),
            fix="give another name to write to",
        ) from error


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is renamed to `path`, else removed.

    A link stays, and what it leads to is replaced. Into a pipe or a device the finished file is
    written.

    Raises:
        UserError: `path` cannot be a file (see `place_of`).
    """
    if is_stream(path):
        with tempfile.TemporaryDirectory() as scratch:
            finished = Path(scratch) / "finished"
            yield finished
            _pour(finished, Path(path))
        return
    path = place_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".tmp", dir=path.parent)
    os.close(fd)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; results are for everyone the umask allows.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def beside(path: str | Path, suffix: str) -> Path:
    """The file of another suffix beside `path`; nothing can lie beside a stream, and is kept."""
    return Path(os.devnull) if is_stream(path) else Path(path).with_suffix(suffix)


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield a fresh temporary folder beside `path` that replaces `path` on success.

    Raises:
        UserError: `path` cannot be a folder (see `place_of`).
    """
    path = place_of(path, folder=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", suffix=".tmp", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        # Libraries write some files for their owner alone.
        for file in temporary.rglob("*"):
            if file.is_file() and not file.is_symlink():
                file.chmod(0o666 & ~_umask())
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_replaceable(folder: Path) -> bool:
    """Whether a folder is empty, but for Snakemake's mark, or was made by `atomic_directory`."""
    names = {entry.name for entry in folder.iterdir()}
    return "MANIFEST.json" in names or names <= UNHASHED_NAMES


@contextmanager
def shared_directory(path: str | Path) -> Iterator[Path]:
    """Yield a fresh temporary folder that becomes `path`, unless somebody else was first.

    For caches, where equal names mean equal content: what is there is never touched, as other
    processes read it, and what came second is thrown away.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", suffix=".tmp", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        try:
            temporary.rename(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Hold a lock for the block: whoever else wants that file's waits, on this machine at least.

    The kernel lets it go with its holder. Where a file system has no locks there is none.
    """
    import fcntl

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as handle:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def cache_folder() -> Path:
    """The content-addressed cache: ZPDBENCH_CACHE, else .cache/zpdbench in the working folder."""
    return Path(os.environ.get("ZPDBENCH_CACHE") or ".cache/zpdbench")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` by way of a temporary name."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 with `\\n` line ends, by way of a temporary name."""
    write_bytes(path, text.encode("utf-8"))


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN: equal values give equal text."""
    return json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )


def digest(value: Any) -> str:
    """SHA-256 (hex) of a JSON-able value's canonical text."""
    return hashlib.sha256(canonical_json(value).encode("utf-8")).hexdigest()


def sha256_file(path: str | Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hash_tree(folder: str | Path) -> dict[str, str]:
    """Relative POSIX path -> SHA-256 of every content file below `folder`, sorted by path."""
    folder = Path(folder)
    files = (p for p in folder.rglob("*") if p.is_file() and is_hashed(p.name))
    return {p.relative_to(folder).as_posix(): sha256_file(p) for p in sorted(files)}


def write_manifest(folder: str | Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write `folder`/MANIFEST.json: the hashes of the files, their joint digest, and `facts`.

    Returns the manifest: `{"digest": hex, "files": {path: hex}, **facts}`.
    """
    files = hash_tree(folder)
    manifest = {**facts, "files": files, "digest": digest(files)}
    write_text(
        Path(folder) / "MANIFEST.json",
        json.dumps(manifest, sort_keys=True, indent=1, ensure_ascii=False) + "\n",
    )
    return manifest


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The MANIFEST.json of a checkpoint or adapter folder.

    Raises:
        UserError: the manifest is missing or is no JSON object.
    """
    from zpdbench.errors import UserError

    path = Path(folder) / "MANIFEST.json"
    try:
        manifest = json.loads(path.read_text("utf-8"))
        if not isinstance(manifest["digest"], str):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            "no readable manifest", where=str(path), fix="delete the folder; it is made again"
        ) from error
    return manifest


def check_manifest(folder: str | Path) -> dict[str, Any]:
    """Read a folder's manifest and check every file's hash against it.

    Raises:
        UserError: a file is missing, extra or has other bytes (truncated, say).
    """
    from zpdbench.errors import UserError

    manifest = read_manifest(folder)
    found = hash_tree(folder)
    for name in sorted(set(found) | set(manifest["files"])):
        if found.get(name) != manifest["files"].get(name):
            state = "missing" if name not in found else "unexpected or changed"
            raise UserError(
                f"{state} against its manifest (truncated or edited?)",
                where=str(Path(folder) / name),
                fix=f"delete {folder} and run again",
            )
    return manifest


def format_number(value: Any) -> str:
    """A TSV cell: %.12g for numbers, NA for None and NaN, true/false for booleans."""
    if value is None:
        return "NA"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if value != value:
            return "NA"
        return f"{value + 0.0:.12g}"
    text = str(value)
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def read_tsv(path: str | Path) -> tuple[list[str], list[dict[str, str]]]:
    """A TSV's columns and rows, as text; what `format_number` escaped stays escaped.

    Only `\\n`, or `\\r\\n`, ends a line: a field may hold any other separator of lines.

    Raises:
        UserError: unreadable, empty, a column twice, or a line with another number of fields.
    """
    from zpdbench.errors import UserError

    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot be read ({error.__class__.__name__})",
            where=str(path),
            fix="give a results table, such as h3a.tsv",
        ) from error
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    if not lines[0].strip():
        raise UserError("is empty", where=str(path), fix="run the workflow again")
    columns = lines[0].split("\t")
    if len(set(columns)) != len(columns):
        raise UserError("names a column twice", where=f"{path}:1", fix="keep one")
    rows = []
    for number, line in enumerate(lines[1:], 2):
        fields = line.split("\t")
        if len(fields) != len(columns):
            raise UserError(
                f"{len(fields)} fields where the header has {len(columns)}",
                where=f"{path}:{number}",
                fix="give a tab-separated results table",
            )
        rows.append(dict(zip(columns, fields, strict=True)))
    return columns, rows


def write_tsv(path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as tab-separated UTF-8, numbers as %.12g and undefined ones as NA."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as out:
        out.write("\t".join(columns) + "\n")
        for row in rows:
            out.write("\t".join(format_number(v) for v in row) + "\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
