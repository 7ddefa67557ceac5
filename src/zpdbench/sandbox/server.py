"""The process that forks one child per program; it runs inside the sandbox.

There are two of it, each in a sandbox of its own: one whose children run candidates, one whose
children run tests. It never sees a program: the child reads it from its own descriptor. So nothing
of one program is in the memory that the next one is forked from.

Its orders come over a socket, one packet each, and so do its answers. A child has fds 0 (a pipe at
its end), 1 and 2 (counted and thrown away), 3 (requests in), 4 (answers out), no others; a tests'
child also 6 (its report).

Speed is a matter of memory pages here: after a fork each page that either side writes is copied,
and a Python object is written by being looked at. So what can be made before the fork is made
there, once if possible, and the two sides do little after it.
"""

from __future__ import annotations

import _socket
import builtins
import contextlib
import gc
import os
import random
import re
import select
import signal
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

from zpdbench.sandbox import codec, jail

# Fixed numbers. Those of a child are free between two programs, so that what is opened for one gets
# the lowest of them, in this order.
REQUESTS, ANSWERS, PROGRAM, REPORT = 3, 4, 5, 6
CONTROL, RULESET, OUTPUT = 7, 8, 9
PACKET = 65536
MAX_PROGRAM = 64 << 20
MAX_REASON = 300
MAX_TEXT = 10_000  # of an exception that is raised again in the tests
# An order: job, CPU and wall seconds, bytes of output and of a message, the sizes of the program's
# four texts. A report: job, exit code, how it was ended (see ENDS), CPU and wall seconds, bytes of
# output, whether the writable folder has changed; what the tests said follows.
ORDER = struct.Struct("<qddqq4q")
DONE = struct.Struct("<qqBddqB")
ENDS = ("", "cpu", "wall", "output", "stop")
_ANCILLARY = _socket.CMSG_SPACE(3 * 4)
_DESCRIPTORS = struct.Struct("@3i")
_FRAME = struct.Struct("<I")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")
# Imported once, here, and so at hand in every child: what programs often use. What they seldom use
# is not here: each fork copies its pages.
PRELOAD = """
bisect collections collections.abc copy functools heapq itertools math operator os random re string
struct sys time types typing
"""


# The server ------------------------------------------------------------------------------------


def serve(settings: dict[str, Any]) -> None:
    """Put up the sandbox's inner layers, say hello, then obey until the socket closes."""
    os.closerange(RULESET, 4096)
    control = _socket.socket(fileno=CONTROL)
    facts: dict[str, Any] = {"kind": "hello"}
    try:
        # First: the user that a root becomes may not be able to read root's own interpreter.
        for name in PRELOAD.split():
            __import__(name)
        confine, facts["layers"] = _enter(settings)
        facts["layers"].update(_probe(settings, confine))
    except Exception as error:
        facts["error"] = f"{type(error).__name__}: {error}"
    control.send(codec.encode(facts, PACKET))
    if "error" in facts:
        return
    random.seed(0)
    tmp, contained, tests = settings["tmp"], settings["contained"], settings["role"] == "tests"
    clean = _state_of(tmp)
    for name in [n for n in sys.modules if n.partition(".")[0] == "zpdbench"]:
        del sys.modules[name]
    os.closerange(0, CONTROL)
    _warm_up()
    gc.collect()
    jail.give_back()
    gc.disable()
    gc.freeze()
    poll = select.poll()
    while True:
        report = _run(control, poll, confine, contained, tests)
        if report is None:
            return
        control.send(report[0] + bytes((_state_of(tmp) != clean,)) + report[1])


def _warm_up() -> None:
    """Do once what the interpreter otherwise prepares in every child: the compiler's own types."""
    compile("def f(x: int) -> int:\n    return x\n", "<nothing>", "exec", dont_inherit=True)


def _enter(settings: dict[str, Any]) -> tuple[Callable[[float], None], dict[str, str]]:
    """Give up what can be given up for all children alike.

    Returns:
        How a child confines itself further, and the missing layers with the reasons.
    """
    missing: dict[str, str] = {}
    ruleset = -1
    try:
        ruleset = jail.landlock_ruleset(settings["readable"], settings["writable"])
        if ruleset != RULESET:
            os.dup2(ruleset, RULESET)
            os.close(ruleset)
            ruleset = RULESET
    except (OSError, jail.LayerError) as error:
        missing["landlock"] = str(error)
    if settings["drop_root"] and os.getuid() == 0:
        try:
            jail.drop_root(settings["uid"], settings["gid"])
        except (OSError, jail.LayerError) as error:
            missing["namespaces"] = str(error)
    settings["landlock"] = ruleset >= 0
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
    template = settings["thread_filter" if settings["threads"] else "program_filter"]
    if "seccomp" in missing:
        template = b""
    jail.limit_process(settings["limits"])
    # The sandbox holds its init, this server and the child besides the child's threads.
    processes = int(settings["limits"]["threads"]) + 3
    mark = struct.pack("<I", settings["pid_mark"])
    return jail.confinement(ruleset, template, mark, processes), missing


def _alone() -> bool:
    """Whether this is process 2 under the sandbox's own init: so kill(-1) ends only ours."""
    return os.getpid() == 2 and os.getppid() == 1


def _probe(settings: dict[str, Any], confine: Callable[[float], None]) -> dict[str, str]:
    """Try, in a child under all layers, what they forbid; the layers that did not hold."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            confine(settings["limits"]["cpu_seconds"])
            failed = _trespass(settings)
        except BaseException as error:
            failed = {str(error).partition(":")[0]: str(error)}
        os.write(writer, codec.encode(failed, PACKET))
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as handle:  # noqa: PTH123
        data = handle.read()
    os.waitpid(pid, 0)
    return dict(codec.decode(data, PACKET)) if data else {"seccomp": "the probe died"}


def _trespass(settings: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    if jail.filter_mode() == 2:
        for family in (_socket.AF_UNIX, _socket.AF_INET, _socket.AF_INET6, _socket.AF_NETLINK):
            try:
                _socket.socket(family, _socket.SOCK_DGRAM).close()
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
    if settings["landlock"]:
        try:
            os.listdir("/")  # noqa: PTH208
            found["landlock"] = "a folder outside the rules can be read"
        except OSError:
            pass
    if jail.has_privileges():
        found["capabilities"] = "some are left"
    return found


def _state_of(folder: str) -> tuple[int, ...]:
    """What any change in the writable folder shows in: nobody can set a ctime back."""
    state = os.stat(folder)  # noqa: PTH116
    return (state.st_ino, state.st_mode, state.st_ctime_ns, state.st_mtime_ns, state.st_atime_ns)


def _arrange() -> None:
    """Open the next child's descriptors 0, 1 and 2, and the other end of its output."""
    # Not the server's own fd 0: it was the host's /dev/null, whose mode its owner could change. Not
    # one pipe for all either: its mode and its flags would reach the next program.
    _, writer = os.pipe()
    os.close(writer)
    output, output_in = os.pipe()
    os.dup2(output, OUTPUT)
    os.dup2(output_in, 1)


def _run(
    control: _socket.socket,
    poll: select.poll,
    confine: Callable[[float], None],
    contained: bool,
    tests: bool,
) -> tuple[bytes, bytes] | None:
    """Fork a child for the next program and watch it to its end; None if the socket closed.

    Returns:
        The report but for its last field, and what the tests said.
    """
    _arrange()
    while True:
        data, ancillary, _, _ = control.recvmsg(PACKET, _ANCILLARY)
        if not data:
            return None
        if len(data) == ORDER.size:
            break
        # Else an order to stop that came too late.
    if _DESCRIPTORS.unpack(ancillary[0][2]) != (REQUESTS, ANSWERS, PROGRAM):
        return None
    report = -1
    if tests:
        reader, report_in = os.pipe()
        report = os.dup(reader)
        os.dup2(report_in, REPORT)
        os.close(report_in)
    job, cpu_limit, wall_limit, enough, message_bytes, *sizes = ORDER.unpack(data)
    pid = jail.fork()
    if pid == 0:
        _child(tests, confine, cpu_limit, message_bytes, sizes)
    started = time.monotonic()
    os.closerange(0, CONTROL)
    handle = os.pidfd_open(pid)
    for descriptor in (handle, OUTPUT, CONTROL):
        poll.register(descriptor, select.POLLIN)
    check_at, written, killed, obey, open_ = started + cpu_limit, 0, "", True, True
    while True:
        ready = [d for d, _ in poll.poll(max(0.0, check_at - time.monotonic()) * 1000 + 1)]
        if OUTPUT in ready:
            chunk = len(os.read(OUTPUT, PACKET))
            written += chunk
            if chunk == 0:
                open_ = False
                poll.unregister(OUTPUT)
            elif written > enough and not killed:
                killed = "output"
        if CONTROL in ready:
            obey = bool(control.recv(PACKET))
            killed = killed or "stop"
        if handle in ready:
            break
        now = time.monotonic()
        if now >= check_at and not killed:
            # CLOCK_PROCESS_CPUTIME_ID of another process
            cpu = time.clock_gettime((~pid << 3) | 2)
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
    if contained:
        # Whatever else lives in this process namespace besides its init and this server.
        try:
            os.kill(-1, signal.SIGKILL)
            while True:
                os.waitpid(-1, 0)
        except OSError:
            pass
    if open_:
        os.set_blocking(OUTPUT, False)
        written += _drain(OUTPUT, enough)
    os.close(OUTPUT)
    said = b""
    if tests:
        os.set_blocking(report, False)
        with contextlib.suppress(BlockingIOError):
            said = os.read(report, PACKET // 2)
        os.close(report)
    if not obey:
        return None
    code = os.waitstatus_to_exitcode(status)
    used = usage.ru_utime + usage.ru_stime
    return DONE.pack(job, code, ENDS.index(killed), used, wall, written, 0)[:-1], said


def _drain(descriptor: int, enough: int) -> int:
    count = 0
    while count <= enough:
        try:
            chunk = os.read(descriptor, PACKET)
        except BlockingIOError:
            break
        if not chunk:
            break
        count += len(chunk)
    return count


# The child ---------------------------------------------------------------------------------------


def _child(
    tests: bool,
    confine: Callable[[float], None],
    cpu_seconds: float,
    message_bytes: int,
    sizes: list[int],
) -> None:
    """Read the program, confine this process, run the program. Never returns."""
    try:
        if sum(sizes) > MAX_PROGRAM:
            raise MemoryError(f"the program is larger than {MAX_PROGRAM} bytes")
        data, at, texts = os.pread(PROGRAM, sum(sizes), 0), 0, []
        for size in sizes:
            texts.append(data[at : at + size].decode("utf-8", "surrogatepass"))
            at += size
        confine(cpu_seconds)
        if tests:
            os.close(PROGRAM)
            os.closerange(CONTROL, 4096)
            gc.enable()
            _tests(message_bytes, *texts)
        else:
            os.closerange(PROGRAM, 4096)
            gc.enable()
            _candidate(message_bytes, *texts)
    except BaseException as error:
        try:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(71)


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


_BUILTINS = dict(vars(builtins))


def _exceptions() -> dict[str, type[Exception]]:
    """The built-in exceptions that take one text, by name: the ones a test could expect."""
    found = {}
    for name, kind in _BUILTINS.items():
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


# The candidate's side. All of it may be subverted by the candidate; nothing here is relied upon.

_MEMORY = codec.encode(("raised", "MemoryError", "", ()), PACKET)


def _candidate(limit: int, prompt: str, completion: str, entry_point: str, tail: str) -> None:
    names: dict[str, Any] = {}
    try:
        source = prompt + completion + tail
        try:
            code = compile(source, "<candidate>", "exec", dont_inherit=True)
        except MemoryError:
            # How the parser says that brackets or operators nest too deeply for it.
            raise SyntaxError("too deeply nested for the compiler") from None
        exec(code, names)
        if entry_point not in names:
            raise NameError(f"name '{entry_point}' is not defined")
        function = names[entry_point]
        message = codec.encode(("ready",), PACKET)
    except MemoryError:
        message = _MEMORY
    except BaseException as error:
        message = _raised(error)
    _send(ANSWERS, message)
    while True:
        data = _receive(REQUESTS, limit)
        if data is None:
            os._exit(0)
        try:
            positional, named = codec.decode(data, limit)
            del data
            value = function(*positional, **named)
            message = _returned(value, limit)
            del value
        except MemoryError:
            message = _MEMORY
        except BaseException as error:
            message = _raised(error)
        _send(ANSWERS, message)


def _returned(value: Any, limit: int) -> bytes:
    """The message of a result, or why it cannot be sent."""
    try:
        try:
            return codec.encode(("returned", value), limit)
        except codec.NotPlainError:
            return codec.encode(("returned", plain(value)), limit)
    except codec.NotPlainError as error:
        return codec.encode(("unsendable", f"no plain value: {error}"), PACKET)
    except codec.TooLargeError as error:
        return codec.encode(("unsendable", f"too large a value: {error}"), PACKET)


def _raised(error: BaseException) -> bytes:
    """The message of an exception: the nearest built-in class a test can be given, its arguments.

    It comes also with its own name and text in one line, to be shown. Arguments that are not plain,
    and those of a class that makes its text otherwise, become the one text.
    """
    shown, known, arguments = describe(error), "Exception", ("",)
    try:
        kind = type(error)
        bases = [k for k in kind.__mro__ if _BUILTINS.get(k.__name__) is k]
        if issubclass(kind, Exception):
            bases = [k for k in bases if k.__name__ in _EXCEPTIONS]
        known = bases[0].__name__
        arguments = (str(error)[:MAX_TEXT],)
        if kind.__str__ is bases[0].__str__:
            return codec.encode(("raised", known, shown, error.args), PACKET)
    except BaseException:
        pass  # then without
    try:
        return codec.encode(("raised", known, shown, arguments), PACKET)
    except BaseException:
        return codec.encode(("raised", "Exception", shown, ("",)), PACKET)


_PLAIN_BASES: tuple[type, ...] = (dict, list, tuple, set, frozenset, str, int, float)
_PLAIN_DICTS = ("Counter", "OrderedDict")  # their own equality is among themselves only


def plain(value: Any, depth: int = 0) -> Any:
    """The plain value that `value` equals: of a subclass that compares as its built-in base does.

    Such are defaultdict, Counter, OrderedDict, named tuples, IntEnum, at any level. Everything else
    stays as it is.

    Raises:
        codec.NotPlainError: too many levels (a cycle).
    """
    if depth > codec.MAX_DEPTH:
        raise codec.NotPlainError(f"nested more than {codec.MAX_DEPTH} deep")
    kind = type(value)
    base = next((b for b in _PLAIN_BASES if issubclass(kind, b)), None)
    if base is None or kind is bool:
        return value
    if kind.__eq__ is not base.__eq__ and not (
        kind.__module__ == "collections" and kind.__name__ in _PLAIN_DICTS
    ):
        return value
    if base is dict:
        items = dict.items(value)
        return {plain(k, depth + 1): plain(v, depth + 1) for k, v in items}
    if base in (list, tuple, set, frozenset):
        return base(plain(item, depth + 1) for item in base.__iter__(value))
    return {str: str.__str__, int: int.__int__, float: float.__float__}[base](value)


# The tests' side: trusted code and trusted source, fed with decoded plain values only.


class _Abandon(BaseException):
    """Ends the tests at once, whatever they catch."""

    def __init__(self, status: str, reason: str) -> None:
        self.status, self.reason = status, reason
        super().__init__(reason)


class _Candidate:
    """The function under test: a call sends the arguments and returns the decoded result."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.end: _Abandon | None = None
        self.raised: BaseException | None = None
        self.shown = ""

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
                _send(REQUESTS, codec.encode(message, self.limit))
            data = _receive(ANSWERS, self.limit)
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
            case ("raised", str(name), str(shown), tuple(arguments)):
                if name == "MemoryError":
                    raise _Abandon("memory", "MemoryError")
                kind = _EXCEPTIONS.get(name)
                if greeting or kind is None or issubclass(kind, _ENDS_ITERATION):
                    raise _Abandon("failed", clip(shown))
                try:
                    self.raised = kind(*arguments)
                except (TypeError, ValueError):
                    self.raised = kind(clip(shown))
                self.shown = clip(shown)
                raise self.raised
        raise _Abandon("failed", "not an answer")


def clip(text: str) -> str:
    """The candidate's own words, as one short printable line."""
    line = "".join(c if c.isprintable() else " " for c in text[: 2 * MAX_REASON])
    return _ADDRESS.sub("0x...", " ".join(line.split()))[:MAX_REASON]


def _tests(limit: int, prompt: str, test: str, entry_point: str, seed: str) -> None:
    channel = _Candidate(limit)
    try:
        status, reason = _check(channel, prompt, test, entry_point, seed)
    except _Abandon as end:
        status, reason = end.status, end.reason
    except MemoryError:
        status, reason = "memory", "the tests ran out of memory on what the candidate returned"
    except BaseException as error:
        # The candidate's own exception by the candidate's own name for it.
        status, reason = "failed", channel.shown if error is channel.raised else describe(error)
    # Once the channel has failed nothing that the tests did afterwards counts.
    if channel.end is not None:
        status, reason = channel.end.status, channel.end.reason
    os.write(REPORT, codec.encode((status, reason), PACKET // 2))
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
    exec(helpers(prompt, entry_point), names)
    names[entry_point] = candidate
    exec(compile(test, "<tests>", "exec", dont_inherit=True), names)
    names["check"](candidate)
    return "passed", ""


def helpers(prompt: str, entry_point: str = "") -> Any:
    """The prompt compiled by itself, for the helper functions that it defines.

    A function `entry_point` at its end is left out: the tests have their own by that name. A prompt
    that breaks off in the middle of a function is tried with `pass` for the body, then without its
    last lines.
    """
    head, found, rest = ("\n" + prompt).rpartition(f"\ndef {entry_point}(")
    if found and not any(line[:1].strip() for line in rest.splitlines()[1:]):
        prompt = head
    lines = prompt.splitlines()
    for count in range(len(lines), 0, -1):
        text = "\n".join(lines[:count]) + "\n"
        for body in ("", "    pass\n"):
            try:
                return compile(text + body, "<prompt>", "exec", dont_inherit=True)
            except (SyntaxError, ValueError):
                continue
    return compile("", "<prompt>", "exec")
