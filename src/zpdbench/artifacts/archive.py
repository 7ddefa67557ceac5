"""Writing a bundle with the same bytes every time, and unpacking a stranger's bundle safely."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zpdbench.artifacts import names

EPOCH = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1 << 20
# What is compressed already is stored: deflating it again costs time and gains nothing.
_COMPRESSED = (".parquet", ".safetensors", ".png", ".gz", ".zip")


@dataclass(frozen=True)
class Limits:
    """What an archive may cost before it is refused."""

    entries: int = 500_000
    total_bytes: int = 2 << 40
    ratio: int = 200
    """Unpacked to packed size of one entry, above `ratio_from` bytes."""
    ratio_from: int = 16 << 20
    total_ratio: int = 60
    """Of the whole archive, above `total_from` bytes: many entries that each stay below."""
    total_from: int = 256 << 20
    spare_bytes: int = 256 << 20
    """Left free on the disk that is unpacked to."""


@dataclass
class Contents:
    """A bundle as it lies on disk: its folder, the hash of each file, and why it was refused."""

    folder: Path
    hashes: dict[str, str] = field(default_factory=dict)
    refusals: list[tuple[str, str]] = field(default_factory=list)
    """(entry, reason); not empty means that nothing inside may be used."""


def write_zip(target: Path, members: Mapping[str, Path | bytes]) -> dict[str, str]:
    """Write `members` (name -> file or bytes) to `target`: sorted, no times, no owners.

    Returns:
        Name -> SHA-256 (hex) of what was written.
    """
    hashes: dict[str, str] = {}
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(members, key=lambda n: n.encode("utf-8")):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system = 3
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            stored = name.endswith(_COMPRESSED)
            entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            source = members[name]
            if isinstance(source, bytes):
                archive.writestr(entry, source, compresslevel=6)
                hashes[name] = hashlib.sha256(source).hexdigest()
                continue
            entry.file_size = source.stat().st_size
            hasher = hashlib.sha256()
            with source.open("rb") as handle, archive.open(entry, "w") as out:
                while block := handle.read(_CHUNK):
                    hasher.update(block)
                    out.write(block)
            hashes[name] = hasher.hexdigest()
    return hashes


def open_bundle(path: Path, scratch: Path, limits: Limits | None = None) -> Contents:
    """Hash every file of a bundle, unpacking a zip below `scratch` first.

    Args:
        path: a zip file or a folder.
        scratch: an empty folder of the caller's.
        limits: against zip bombs.

    Returns:
        What is there. A zip with any refusal is not unpacked at all.
    """
    limits = limits or Limits()
    contents = _read_folder(path) if path.is_dir() else _unpack(path, scratch, limits)
    return _without_top(contents)


def _without_top(contents: Contents) -> Contents:
    """Step into the one folder that all files lie in, as those who pack a folder again make it."""
    tops = {name.partition("/")[0] for name in contents.hashes}
    if len(tops) != 1 or any("/" not in name for name in contents.hashes):
        return contents
    top = tops.pop()
    hashes = {name.partition("/")[2]: digest for name, digest in contents.hashes.items()}
    return Contents(contents.folder / top, hashes, contents.refusals)


def _read_folder(folder: Path) -> Contents:
    contents = Contents(folder)
    found: list[str] = []
    for root, directories, filenames in os.walk(folder):
        for name in sorted([*directories, *filenames]):
            path = Path(root) / name
            relative = path.relative_to(folder).as_posix()
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                contents.refusals.append((relative, "symbolic link"))
            elif not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                contents.refusals.append((relative, "neither file nor folder"))
            reason = names.problem(relative)
            if reason:
                contents.refusals.append((_shown(relative), reason))
            if stat.S_ISREG(mode):
                found.append(relative)
        directories[:] = [d for d in sorted(directories) if not (Path(root) / d).is_symlink()]
    contents.refusals += [
        (_shown(b), f"differs from {_shown(a)} in case only") for a, b in names.collisions(found)
    ]
    if not contents.refusals:
        for relative in sorted(found):
            with (folder / relative).open("rb") as handle:
                contents.hashes[relative] = hashlib.file_digest(handle, "sha256").hexdigest()
    return contents


def _unpack(path: Path, scratch: Path, limits: Limits) -> Contents:
    contents = Contents(scratch)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            contents.refusals = _inspect(entries, path.stat().st_size, scratch, limits)
            if contents.refusals:
                return contents
            for entry in entries:
                if entry.is_dir():
                    (scratch / entry.filename).mkdir(parents=True, exist_ok=True)
                    continue
                target = scratch / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                contents.hashes[entry.filename] = _copy(archive, entry, target)
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        zlib.error,
        struct.error,
    ) as error:
        contents.refusals.append((path.name, f"no sound zip file: {str(error)[:200]}"))
    return contents


def _copy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> str:
    """Unpack one entry and hash it; zipfile checks its CRC and never gives more than it said."""
    hasher = hashlib.sha256()
    written = 0
    with archive.open(entry) as source, target.open("xb") as out:
        while block := source.read(_CHUNK):
            written += len(block)
            if written > entry.file_size:
                raise zipfile.BadZipFile(f"{entry.filename} is larger than it says")
            hasher.update(block)
            out.write(block)
    if written != entry.file_size:
        raise zipfile.BadZipFile(f"{entry.filename} is smaller than it says")
    return hasher.hexdigest()


def _inspect(
    entries: list[zipfile.ZipInfo], packed: int, scratch: Path, limits: Limits
) -> list[tuple[str, str]]:
    if len(entries) > limits.entries:
        return [("", f"{len(entries)} entries, more than {limits.entries}")]
    found: list[tuple[str, str]] = []
    total = sum(e.file_size for e in entries)
    free = shutil.disk_usage(scratch).free - limits.spare_bytes
    if total > limits.total_bytes:
        found.append(("", f"zip bomb? {total} bytes unpacked"))
    elif total > limits.total_from and total > limits.total_ratio * max(packed, 1):
        found.append(("", f"zip bomb? {total} bytes out of {packed}"))
    elif total > free:
        found.append(("", f"{total} bytes unpacked, {max(free, 0)} free here"))
    for entry in entries:
        name = _shown(entry.filename)
        reason = names.problem(entry.filename.removesuffix("/"))
        if reason or entry.filename != entry.orig_filename:
            found.append((name, reason or "name with a forbidden character"))
        mode = stat.S_IFMT(entry.external_attr >> 16)
        if mode == stat.S_IFLNK:
            found.append((name, "symbolic link"))
        elif mode not in (0, stat.S_IFREG, stat.S_IFDIR):
            found.append((name, "neither file nor folder"))
        if entry.is_dir() and entry.file_size:
            found.append((name, "folder with content"))
        if entry.flag_bits & 0x1:
            found.append((name, "encrypted"))
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            found.append((name, "packed by a method that bundles do not use"))
        if entry.file_size > limits.ratio_from and entry.file_size > limits.ratio * max(
            entry.compress_size, 1
        ):
            found.append((name, "zip bomb? unpacks to far more than its size"))
    found += _overlaps(entries, packed)
    files = [e.filename for e in entries if not e.is_dir()]
    for first, second in names.collisions(files):
        twice = first == second
        found.append(
            (_shown(second), "is there twice" if twice else f"differs from {_shown(first)} in case")
        )
    return found


def _overlaps(entries: list[zipfile.ZipInfo], packed: int) -> list[tuple[str, str]]:
    """Entries that share bytes (Fifield 2019): small archives that unpack to anything."""
    ordered = sorted(entries, key=lambda e: e.header_offset)
    found = []
    for entry, following in zip(ordered, [*ordered[1:], None], strict=True):
        name = entry.orig_filename.encode("utf-8", "surrogatepass")
        end = entry.header_offset + 30 + len(name) + entry.compress_size
        if end > (following.header_offset if following else packed):
            found.append((_shown(entry.filename), "zip bomb? shares its bytes with another entry"))
    return found


def _shown(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode("utf-8")[:200]
