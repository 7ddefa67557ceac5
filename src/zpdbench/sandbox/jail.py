"""What a process inside the sandbox gives up, by direct system calls (runs inside the sandbox)."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
from collections.abc import Callable
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
# Without this every argument would be passed as a 32-bit int.
_LIBC.syscall.restype = ctypes.c_long

_PR_SET_DUMPABLE, _PR_GET_SECCOMP, _PR_SET_SECCOMP = 4, 21, 22
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_GET_NO_NEW_PRIVS = 24, 38, 39
_CLONE_NEWUSER = 0x10000000
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_CAPABILITIES = {"x86_64": (125, 126), "aarch64": (90, 91)}  # capget, capset
_LAST_CAPABILITY = 63

# Landlock's rights to files, by bit; the first ABI has bits 0 to 12, later ones add from 13.
_EXECUTE, _WRITE, _READ, _LIST = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_FILE = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_MAKE_LINK, _REFER, _TRUNCATE = 1 << 12, 1 << 13, 1 << 14
_FILE_BITS = {1: 13, 2: 14, 3: 15, 4: 15}  # from ABI 5 on: 16


# PyDLL keeps the interpreter's lock: the child comes back into the interpreter holding it.
_FORK = ctypes.PyDLL(None).fork


def fork() -> int:
    """fork(2) for a process with one thread, without the interpreter's hooks.

    `os.fork` runs every imported module's after-fork hook in the child (random reads a new seed,
    threading renews its locks); they touch 150 pages, each copied, and take longer than the fork.
    With one thread and no lock held there is nothing for them to mend.

    Raises:
        OSError: no process could be made.
    """
    pid = int(_FORK())
    if pid < 0:
        raise OSError("fork failed")
    return pid


def give_back() -> None:
    """Give freed memory back to the kernel, where the C library can: fork would copy its pages."""
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(ctypes.c_size_t(0))


class LayerError(Exception):
    """A layer of the sandbox could not be put up; the text begins with the layer's name."""


def _call(layer: str, number: int, *arguments: Any) -> int:
    result = _LIBC.syscall(ctypes.c_long(number), *(ctypes.c_ulong(a) for a in arguments))
    if result < 0:
        raise LayerError(f"{layer}: {os.strerror(ctypes.get_errno())}")
    return int(result)


def _prctl(option: int, *arguments: int) -> int:
    padded = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    return int(_LIBC.prctl(ctypes.c_int(option), *padded))


def drop_root(uid: int, gid: int) -> None:
    """Become an ordinary user for good, in a user namespace of one's own, without capabilities.

    Used when the sandbox was started by the real root, whom RLIMIT_NPROC would not bind. The new
    user namespace has no mapping: nobody in it can have any other identity.
    """
    for capability in range(_LAST_CAPABILITY + 1):
        _prctl(_PR_CAPBSET_DROP, capability)  # EINVAL beyond the kernel's last one
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if _LIBC.unshare(ctypes.c_int(_CLONE_NEWUSER)) != 0:
        raise LayerError(f"namespaces: user: {os.strerror(ctypes.get_errno())}")


def drop_capabilities() -> None:
    """Empty the three capability sets, forbid gaining privileges by exec, forbid being traced."""
    for capability in range(_LAST_CAPABILITY + 1):
        _prctl(_PR_CAPBSET_DROP, capability)
    header = ctypes.create_string_buffer(struct.pack("<Ii", 0x20080522, 0))
    data = ctypes.create_string_buffer(24)
    capset = _CAPABILITIES[platform.machine()][1]
    _call("capabilities", capset, ctypes.addressof(header), ctypes.addressof(data))
    if _prctl(_PR_SET_NO_NEW_PRIVS, 1) != 0:
        raise LayerError(f"capabilities: no_new_privs: {os.strerror(ctypes.get_errno())}")
    _prctl(_PR_SET_DUMPABLE, 0)


def has_privileges() -> bool:
    """Whether any capability is left, or exec could still give some."""
    header = ctypes.create_string_buffer(struct.pack("<Ii", 0x20080522, 0))
    data = ctypes.create_string_buffer(24)
    capget = _CAPABILITIES[platform.machine()][0]
    _call("capabilities", capget, ctypes.addressof(header), ctypes.addressof(data))
    return any(data.raw[:24]) or _prctl(_PR_GET_NO_NEW_PRIVS) != 1


def landlock_version() -> int:
    """The kernel's Landlock ABI; 0 if it has none."""
    try:
        return _call("landlock", _LANDLOCK_CREATE, 0, 0, 1)
    except LayerError:
        return 0


def landlock_ruleset(readable: list[str], writable: list[str]) -> int:
    """A ruleset (its descriptor): files below `readable` are read, below `writable` also written.

    Device files in `writable` are opened as they are. No TCP from ABI 4; no abstract sockets and
    no signals to a process outside the domain from ABI 6.

    Raises:
        LayerError: the kernel has no Landlock.
    """
    version = landlock_version()
    if version == 0:
        raise LayerError("landlock: the kernel has none (Linux 5.13 with landlock in its lsm list)")
    handled = (1 << _FILE_BITS.get(version, 16)) - 1
    attributes = struct.pack("<QQQ", handled, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    buffer = ctypes.create_string_buffer(attributes)
    ruleset = _call("landlock", _LANDLOCK_CREATE, ctypes.addressof(buffer), size, 0)
    read = _READ | _LIST
    write = read | _WRITE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_FILE | _MAKE_LINK
    write |= (_REFER | _TRUNCATE) & handled
    on_files = _READ | _WRITE | (_TRUNCATE & handled)
    for paths, rights in ((readable, read), (writable, write)):
        for path in paths:
            parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                allowed = rights if os.path.isdir(path) else rights & on_files  # noqa: PTH112
                rule = ctypes.create_string_buffer(struct.pack("<Qi", allowed, parent))
                _call("landlock", _LANDLOCK_ADD, ruleset, 1, ctypes.addressof(rule), 0)
            finally:
                os.close(parent)
    return ruleset


def install_filter(program: bytes) -> None:
    """Install a seccomp filter (see `seccomp`) on this process."""
    code, install = _prepared_filter(program)
    if int(_LIBC.prctl(*install)) != 0:
        raise LayerError(f"seccomp: {os.strerror(ctypes.get_errno())}")
    del code  # the kernel has taken a copy


def _prepared_filter(program: bytes) -> tuple[ctypes.Array[ctypes.c_char], tuple[Any, ...]]:
    """The filter in memory, and prctl's arguments that install it (they point into it)."""
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: unsigned short, padding to the pointer's alignment, pointer.
    prog = ctypes.create_string_buffer(
        struct.pack("@HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    )
    code.prog = prog  # type: ignore[attr-defined]  # lives as long as the code
    numbers = (2, ctypes.addressof(prog), 0, 0)
    return code, (ctypes.c_int(_PR_SET_SECCOMP), *map(ctypes.c_ulong, numbers))


def confinement(
    ruleset: int, program: bytes, mark: bytes, processes: int
) -> Callable[[float], None]:
    """A function by which a child confines itself, given its CPU time; made once, before the fork.

    What is made here need not be made by each child: every page that a child writes is copied.

    Args:
        ruleset: Landlock's; -1 for none.
        program: the seccomp filter to add to the server's; empty for none.
        mark: what stands in it for the child's own process id.
        processes: the limit on processes, threads included.
    """
    code, install = _prepared_filter(program)
    places = [i for i in range(0, len(program), 4) if program[i : i + 4] == mark]
    restrict = tuple(map(ctypes.c_long, (_LANDLOCK_RESTRICT, ruleset, 0)))
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    if 0 <= most < processes:
        processes = most

    def confine(cpu_seconds: float) -> None:
        # One or two seconds above the limit that the server itself enforces to the millisecond.
        cpu = int(cpu_seconds) + 2
        if 0 <= hard < cpu:
            cpu = hard
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
        if ruleset >= 0 and _LIBC.syscall(*restrict) != 0:
            raise LayerError(f"landlock: {os.strerror(ctypes.get_errno())}")
        if program:
            pid = os.getpid()
            for place in places:
                struct.pack_into("<I", code, place, pid)
            if _LIBC.prctl(*install) != 0:
                raise LayerError(f"seccomp: {os.strerror(ctypes.get_errno())}")

    return confine


def filter_mode() -> int:
    """2 under a seccomp filter, 0 without."""
    return _prctl(_PR_GET_SECCOMP)


def limit_process(limits: dict[str, Any]) -> None:
    """Set this process's resource limits, hard and soft alike; children inherit them.

    All but those of CPU time and processes, which each child sets for itself (see `confinement`).
    """
    for name, value in (
        (resource.RLIMIT_AS, int(limits["memory_bytes"])),
        (resource.RLIMIT_DATA, int(limits["memory_bytes"])),
        (resource.RLIMIT_FSIZE, int(limits["file_bytes"])),
        (resource.RLIMIT_NOFILE, int(limits["open_files"])),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 64),
        (resource.RLIMIT_STACK, 8 << 20),
    ):
        _, hard = resource.getrlimit(name)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(name, (value, value))


def process_limit_binds() -> bool:
    """Whether RLIMIT_NPROC stops this user from forking (it never stops the real root)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
    try:
        pid = os.fork()
    except OSError:
        return True
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return False
