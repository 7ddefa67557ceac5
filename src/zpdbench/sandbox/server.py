"""The process that forks one child per program; it runs inside the sandbox.

There are two of it, each in a sandbox of its own: one whose children run candidates, one whose
children run tests. It never sees a program: the child reads it from its own descriptor. So nothing
of one program is in the memory that the next one is forked from.

Its orders come over a socket (fd `CONTROL`), one packet each, and so do its answers. A child has
fds 0 (a pipe at its end), 1 and 2 (counted and thrown away), 3 (requests in), 4 (answers out),
no others; a tests' child also 5 (its report).
"""

from __future__ import annotations

import gc
import os
import random
import re
import select
import signal
import socket
import struct
import sys
import time
from typing import Any

from zpdbench.sandbox import codec, jail

CONTROL = 3
PACKET = 65536
MAX_PROGRAM = 64 << 20
MAX_REASON = 300
_FRAME = struct.Struct("<I")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")
# Imported once, here, and so at hand in every child: what programs often use. What they seldom use
# is not here: each fork copies its pages.
PRELOAD = """
bisect cmath collections collections.abc contextlib copy datetime enum functools heapq io itertools
math numbers operator os random re string struct sys textwrap threading time types typing
"""


# The server ------------------------------------------------------------------------------------


def serve(settings: dict[str, Any]) -> None:
    """Put up the sandbox's inner layers, say hello, then obey until the socket closes."""
    control = socket.socket(fileno=CONTROL)
    facts: dict[str, Any] = {"kind": "hello"}
    try:
        # First: the user that a root becomes may not be able to read root's own interpreter.
        for name in PRELOAD.split():
            __import__(name)
        ruleset, facts["layers"] = _enter(settings)
        facts["layers"].update(_probe(settings, ruleset))
    except Exception as error:
        facts["error"] = f"{type(error).__name__}: {error}"
    control.send(codec.encode(facts, PACKET))
    if "error" in facts:
        return
    random.seed(0)
    clean = _state_of_tmp(settings)
    for name in [n for n in sys.modules if n.partition(".")[0] == "zpdbench"]:
        del sys.modules[name]
    gc.collect()
    jail.give_back()
    gc.disable()
    gc.freeze()
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, PACKET, 4)
        if not data:
            return
        order = codec.decode(data, PACKET)
        if order["kind"] == "run":
            report = _run(control, settings, order, ruleset, list(descriptors))
            if report is None:
                return
            report["dirty"] = _state_of_tmp(settings) != clean
            control.send(codec.encode(report, PACKET))


def _enter(settings: dict[str, Any]) -> tuple[int, dict[str, str]]:
    """Give up what can be given up for all children alike; the missing layers with the reasons."""
    missing: dict[str, str] = {}
    ruleset = -1
    try:
        ruleset = jail.landlock_ruleset(settings["readable"], settings["writable"])
    except (OSError, jail.LayerError) as error:
        missing["landlock"] = str(error)
    if settings["drop_root"] and os.getuid() == 0:
        try:
            jail.drop_root(settings["uid"], settings["gid"])
        except (OSError, jail.LayerError) as error:
            missing["namespaces"] = str(error)
    jail.drop_capabilities()
    if jail.has_privileges():
        missing["capabilities"] = "some are left"
    if settings["server_filter"]:
        try:
            jail.install_filter(settings["server_filter"])
        except jail.LayerError as error:
            missing["seccomp"] = str(error)
    else:
        missing["seccomp"] = "no system call table for this architecture"
    if settings["contained"] and not _alone():
        missing["namespaces"] = "the process numbers are not the sandbox's own"
    # Threads are allowed only where their number can be bounded.
    settings["threads"] = jail.process_limit_binds()
    if not settings["threads"] and "seccomp" in missing:
        missing["processes"] = "RLIMIT_NPROC does not bind this user and there is no seccomp filter"
    return ruleset, missing


def _alone() -> bool:
    """Whether this is process 2 under the sandbox's own init: so kill(-1) ends only ours."""
    return os.getpid() == 2 and os.getppid() == 1


def _probe(settings: dict[str, Any], ruleset: int) -> dict[str, str]:
    """Try, in a child under all layers, what they forbid; the layers that did not hold."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            confine(settings, settings["limits"], ruleset)
            failed = _trespass(settings, ruleset)
        except BaseException as error:
            failed = {str(error).partition(":")[0]: str(error)}
        os.write(writer, codec.encode(failed, PACKET))
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as handle:  # noqa: PTH123
        data = handle.read()
    os.waitpid(pid, 0)
    return dict(codec.decode(data, PACKET)) if data else {"seccomp": "the probe died"}


def _trespass(settings: dict[str, Any], ruleset: int) -> dict[str, str]:
    found: dict[str, str] = {}
    if jail.filter_mode() == 2:
        for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK):
            try:
                socket.socket(family).close()
                found["seccomp"] = "a socket could be opened"
            except OSError:
                pass
        try:
            if os.fork() == 0:
                os._exit(0)
            found["processes"] = "a process could be forked"
        except OSError:
            pass
    else:
        found["seccomp"] = "no filter is active"
    if settings["contained"]:
        for path in ("/etc", "/home", "/proc", "/sys", "/var", "/usr/bin"):
            if os.path.lexists(path):
                found["root"] = f"{path} is visible"
        try:
            os.mkdir("/written")  # noqa: PTH102
            found["root"] = "the root can be written"
        except OSError:
            pass
    if ruleset >= 0:
        try:
            os.listdir("/")  # noqa: PTH208
            found["landlock"] = "a folder outside the rules can be read"
        except OSError:
            pass
    if jail.has_privileges():
        found["capabilities"] = "some are left"
    return found


def confine(settings: dict[str, Any], limits: dict[str, Any], ruleset: int) -> None:
    """Put this child under its own limits, Landlock domain and seccomp filter."""
    # The sandbox holds its init, this server and the child besides the child's threads.
    jail.limit_process(limits, int(limits["threads"]) + 3)
    if ruleset >= 0:
        jail.landlock_restrict(ruleset)
        os.close(ruleset)
    template = settings["thread_filter" if settings["threads"] else "program_filter"]
    if template:
        mark = struct.pack("<I", settings["pid_mark"])
        jail.install_filter(template.replace(mark, struct.pack("<I", os.getpid())))


def _state_of_tmp(settings: dict[str, Any]) -> tuple[int, ...]:
    """What any change in the writable folder shows in: nobody can set a ctime back."""
    state = os.stat(settings["tmp"])  # noqa: PTH116
    return (state.st_ino, state.st_mode, state.st_ctime_ns, state.st_mtime_ns, state.st_atime_ns)


def _run(
    control: socket.socket,
    settings: dict[str, Any],
    order: dict[str, Any],
    ruleset: int,
    descriptors: list[int],
) -> dict[str, Any] | None:
    """Fork a child for one program and watch it to its end; None if the socket closed."""
    limits = order["limits"]
    output, output_in = os.pipe()
    report, report_in = os.pipe()
    pid = jail.fork()
    if pid == 0:
        _child(settings, limits, ruleset, descriptors, output_in, report_in)
        os._exit(70)  # not reached
    started = time.monotonic()
    for descriptor in (*descriptors, output_in, report_in):
        os.close(descriptor)
    clock = (~pid << 3) | 2  # CLOCK_PROCESS_CPUTIME_ID of another process
    handle = os.pidfd_open(pid)
    poll = select.poll()
    for descriptor in (handle, output, CONTROL):
        poll.register(descriptor, select.POLLIN)
    cpu_limit, wall_limit = limits["cpu_seconds"], limits["wall_seconds"]
    check_at, written, killed, obey = started + cpu_limit, 0, "", True
    while True:
        events = poll.poll(max(0.0, check_at - time.monotonic()) * 1000 + 1)
        ready = [descriptor for descriptor, _ in events]
        if output in ready:
            chunk = len(os.read(output, 1 << 16))
            written += chunk
            if chunk == 0:
                poll.unregister(output)
            elif written > limits["output_bytes"] and not killed:
                killed = "output"
        if CONTROL in ready:
            data = control.recv(PACKET)
            if not data:
                obey = False
            killed = killed or "stop"
        if handle in ready:
            break
        now = time.monotonic()
        if now >= check_at and not killed:
            cpu = time.clock_gettime(clock)
            if cpu >= cpu_limit:
                killed = "cpu"
            elif now - started >= wall_limit:
                killed = "wall"
            check_at = now + max(min(cpu_limit - cpu, started + wall_limit - now), 0.001)
        if killed:
            os.kill(pid, signal.SIGKILL)
            check_at = now + 3600.0
    _, status, usage = os.wait4(pid, 0)
    wall = time.monotonic() - started
    os.close(handle)
    if settings["contained"]:
        # Whatever else lives in this process namespace besides its init and this server.
        try:
            os.kill(-1, signal.SIGKILL)
            while True:
                os.waitpid(-1, 0)
        except OSError:
            pass
    os.set_blocking(output, False)
    written += _drain(output, limits["output_bytes"])
    os.close(output)
    os.set_blocking(report, False)
    try:
        said = os.read(report, PACKET // 2)
    except BlockingIOError:
        said = b""
    os.close(report)
    if not obey:
        return None
    return {
        "kind": "done",
        "job": order["job"],
        "exit": os.waitstatus_to_exitcode(status),
        "killed": killed,
        "cpu": usage.ru_utime + usage.ru_stime,
        "wall": wall,
        "written": written,
        "said": said,
    }


def _drain(descriptor: int, enough: int) -> int:
    count = 0
    while count <= enough:
        try:
            chunk = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            break
        if not chunk:
            break
        count += len(chunk)
    return count


# The child ---------------------------------------------------------------------------------------


def _child(
    settings: dict[str, Any],
    limits: dict[str, Any],
    ruleset: int,
    descriptors: list[int],
    output: int,
    report: int,
) -> None:
    """Arrange the descriptors, confine this process, read the program, run it. Never returns."""
    try:
        program, requests, answers = descriptors
        # Not the server's fd 0: it is the host's /dev/null, whose mode its owner could change. Not
        # one pipe for all either: its mode and its flags would reach the next program.
        nothing, writer = os.pipe()
        os.close(writer)
        # First all to high numbers, so that no dup2 below overwrites one that is still needed.
        wanted = [nothing, output, output, requests, answers, report, program, ruleset]
        high = [os.dup2(d, 100 + i) if d >= 0 else -1 for i, d in enumerate(wanted)]
        for target, source in enumerate(high):
            if source >= 0:
                os.dup2(source, target)
        keep_ruleset = 7 if ruleset >= 0 else -1
        os.closerange(7 if ruleset < 0 else 8, 4096)
        data = _read_program(6)
        os.close(6)
        if settings["role"] == "candidate":
            os.close(5)
        confine(settings, limits, keep_ruleset)
        gc.enable()
        if settings["role"] == "candidate":
            _candidate(limits["message_bytes"], *data)
        else:
            _tests(limits["message_bytes"], *data)
    except BaseException as error:
        try:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(71)


def _read_program(descriptor: int) -> list[str]:
    size = os.fstat(descriptor).st_size
    return list(codec.decode(os.pread(descriptor, size, 0), MAX_PROGRAM))


def _send(descriptor: int, data: bytes) -> None:
    view = memoryview(_FRAME.pack(len(data)) + data)
    while view:
        view = view[os.write(descriptor, view) :]


def _receive(descriptor: int, limit: int) -> bytes | None:
    """One frame; None at the end of the stream (also one inside a frame).

    Raises:
        codec.MalformedError: the frame says that it is longer than `limit`.
    """
    head = _exactly(descriptor, _FRAME.size)
    if head is None:
        return None
    length = _FRAME.unpack(head)[0]
    if length > limit:
        raise codec.MalformedError(f"more than {limit} bytes")
    return _exactly(descriptor, length)


def _exactly(descriptor: int, length: int) -> bytes | None:
    parts = []
    while length:
        part = os.read(descriptor, min(length, 1 << 20))
        if not part:
            return None
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def describe(error: BaseException) -> str:
    """An exception in one short line that is the same in every run."""
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException:
        text = "(its text cannot be had)"
    line = _ADDRESS.sub("0x...", " ".join(text.split()))
    whole = f"{name}: {line}" if line else name
    return whole.encode("utf-8", "replace").decode()[:MAX_REASON]


# The candidate's side. All of it may be subverted by the candidate; nothing here is relied upon.

_MEMORY = codec.encode(("raised", "MemoryError", ""), PACKET)


def _candidate(limit: int, prompt: str, completion: str, entry_point: str, tail: str) -> None:
    requests, answers = 3, 4
    random.seed(0)
    names: dict[str, Any] = {}
    try:
        exec(compile(prompt + completion + tail, "<candidate>", "exec", dont_inherit=True), names)
        if entry_point not in names:
            raise NameError(f"name '{entry_point}' is not defined")
        function = names[entry_point]
        message = codec.encode(("ready",), PACKET)
    except MemoryError:
        message = _MEMORY
    except BaseException as error:
        message = codec.encode(_raised(error), PACKET)
    _send(answers, message)
    while True:
        data = _receive(requests, limit)
        if data is None:
            os._exit(0)
        try:
            positional, named = codec.decode(data, limit)
            del data
            value = function(*positional, **named)
            try:
                message = codec.encode(("returned", _plain(value)), limit)
            except codec.NotPlainError as error:
                message = codec.encode(("unsendable", f"no plain value: {error}"), PACKET)
            except codec.TooLargeError as error:
                message = codec.encode(("unsendable", f"too large a value: {error}"), PACKET)
            del value
        except MemoryError:
            message = _MEMORY
        except BaseException as error:
            message = codec.encode(_raised(error), PACKET)
        _send(answers, message)


def _raised(error: BaseException) -> tuple[str, str, str]:
    """What is told of an exception: its nearest built-in class, and its text.

    An exception of the candidate's own class comes with its name in the text.
    """
    kind = type(error)
    if kind.__module__ == "builtins":
        return (
            "raised",
            kind.__name__,
            describe(error).removeprefix(kind.__name__).removeprefix(": "),
        )
    known = (k.__name__ for k in kind.__mro__ if k.__module__ == "builtins")
    return "raised", next(known, "Exception"), describe(error)


def _plain(value: Any) -> Any:
    """The standard library's dictionaries, at the top level, as the dictionaries they equal."""
    import collections

    kinds = (collections.Counter, collections.defaultdict, collections.OrderedDict)
    return dict(value) if type(value) in kinds else value


# The tests' side: trusted code and trusted source, fed with decoded plain values only.


class _Abandon(BaseException):
    """Ends the tests at once, whatever they catch."""

    def __init__(self, status: str, reason: str) -> None:
        self.status, self.reason = status, reason
        super().__init__(reason)


class _Candidate:
    """The function under test: a call sends the arguments and returns the decoded result."""

    def __init__(self, requests: int, answers: int, limit: int) -> None:
        self.requests, self.answers, self.limit = requests, answers, limit
        self.end: _Abandon | None = None

    def ask(self, message: tuple[Any, ...] | None) -> Any:
        """Send a call (None: only wait for the greeting) and take the answer apart."""
        if self.end is None:
            try:
                return self.read(self.exchange(message), greeting=message is None)
            except _Abandon as end:
                self.end = end
        raise self.end

    def exchange(self, message: tuple[Any, ...] | None) -> Any:
        """The decoded answer to `message`."""
        try:
            if message is not None:
                _send(self.requests, codec.encode(message, self.limit))
            data = _receive(self.answers, self.limit)
            if data is not None:
                return codec.decode(data, self.limit)
        except (codec.NotPlainError, codec.TooLargeError) as error:
            raise _Abandon("failed", f"the tests' argument cannot be sent: {error}") from None
        except codec.MalformedError as error:
            raise _Abandon("failed", f"not an answer: {error}") from None
        except BrokenPipeError:
            pass
        raise _Abandon("lost", "the candidate's process ended before it answered")

    def read(self, answer: Any, greeting: bool) -> Any:
        """The value of an answer; an exception of the candidate's is raised here."""
        match answer:
            case ("ready",) if greeting:
                return None
            case ("returned", value) if not greeting:
                return value
            case ("unsendable", str(reason)) if not greeting:
                raise _Abandon("failed", clip(reason))
            case ("raised", str(name), str(reason)):
                if name == "MemoryError":
                    raise _Abandon("memory", "MemoryError")
                kind = _EXCEPTIONS.get(name)
                if greeting or kind is None or issubclass(kind, _ENDS_ITERATION):
                    whole = f"{name}: {reason}" if reason else name
                    raise _Abandon("failed", clip(whole))
                raise kind(clip(reason))
        raise _Abandon("failed", "not an answer")


def clip(text: str) -> str:
    """The candidate's own words, as one short printable line."""
    line = "".join(c if c.isprintable() else " " for c in text[: 2 * MAX_REASON])
    return _ADDRESS.sub("0x...", " ".join(line.split()))[:MAX_REASON]


def _exceptions() -> dict[str, type[Exception]]:
    """The built-in exceptions that take one text, by name: the ones a test could expect."""
    import builtins

    found = {}
    for name, kind in vars(builtins).items():
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                kind("text")
            except TypeError:
                continue
            found[name] = kind
    return found


_EXCEPTIONS = _exceptions()
# These end a loop in silence: `all(map(candidate, ...))` in a test would be true of no answer.
_ENDS_ITERATION = (StopIteration, StopAsyncIteration)


def _tests(limit: int, prompt: str, test: str, entry_point: str, seed: str) -> None:
    channel = _Candidate(3, 4, limit)
    try:
        status, reason = _check(channel, prompt, test, entry_point, seed)
    except _Abandon as end:
        status, reason = end.status, end.reason
    except MemoryError:
        status, reason = "memory", "the tests ran out of memory on what the candidate returned"
    except BaseException as error:
        status, reason = "failed", describe(error)
    # Once the channel has failed nothing that the tests did afterwards counts.
    if channel.end is not None:
        status, reason = channel.end.status, channel.end.reason
    os.write(5, codec.encode((status, reason), PACKET // 2))
    os._exit(0)


def _check(
    channel: _Candidate, prompt: str, test: str, entry_point: str, seed: str
) -> tuple[str, str]:
    channel.ask(None)
    random.seed(seed)

    def candidate(*positional: Any, **named: Any) -> Any:
        return channel.ask((positional, named))

    candidate.__name__ = candidate.__qualname__ = entry_point
    names: dict[str, Any] = {}
    exec(helpers(prompt), names)
    names[entry_point] = candidate
    exec(compile(test, "<tests>", "exec", dont_inherit=True), names)
    names["check"](candidate)
    return "passed", ""


def helpers(prompt: str) -> Any:
    """The prompt compiled by itself, for the helper functions that it defines.

    A prompt that breaks off in the middle of a function is tried with `pass` for the body, then
    without its last lines.
    """
    lines = prompt.splitlines()
    for count in range(len(lines), 0, -1):
        text = "\n".join(lines[:count]) + "\n"
        for body in ("", "    pass\n"):
            try:
                return compile(text + body, "<prompt>", "exec", dont_inherit=True)
            except (SyntaxError, ValueError):
                continue
    return compile("", "<prompt>", "exec")
