"""Hostile programs: nothing gets out, no pass is faked, the pool goes on."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import zpdbench
from tests.sandbox.hostile import ESCAPE_TEST, HELD, HOSTILE, PASSED_REPORT, PROMPT, Hostile
from zpdbench.sandbox import Limits, Pool, Program, Verdict
from zpdbench.sandbox.pool import Server, conclude
from zpdbench.sandbox.root import DEVICES

MiB = 1 << 20
# Small, so that what runs into a limit does so soon.
LIMITS = Limits(
    cpu_seconds=0.6,
    wall_seconds=2.5,
    memory_bytes=256 * MiB,
    tmp_bytes=8 * MiB,
    file_bytes=4 * MiB,
    output_bytes=1 * MiB,
    message_bytes=16 * MiB,
)
GOOD = Program("good", PROMPT, "    return 'escaped'\n", ESCAPE_TEST, "f")
SECRET_VALUE = "b5f1c0ffee"


def descendants() -> set[int]:
    """The process ids of everything below this process."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found: set[int] = set()
    todo = [os.getpid()]
    while todo:
        for pid in children.get(todo.pop(), []):
            found.add(pid)
            todo.append(pid)
    return found


def settles_at(count: int) -> bool:
    """Whether there are soon `count` descendants: what is killed goes a little later."""
    deadline = time.monotonic() + 20.0
    while (found := len(descendants())) != count and time.monotonic() < deadline:
        time.sleep(0.02)
    return found == count


class Bait:
    """What the programs would like to reach, laid out on the host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o777)
        self.secret = folder / "secret"
        self.secret.write_text(SECRET_VALUE)
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.abstract = f"zpdbench-bait-{os.getpid()}"
        self.stream = socket.socket(socket.AF_UNIX)
        self.stream.bind("\0" + self.abstract)
        self.stream.listen()
        self.path = socket.socket(socket.AF_UNIX)
        self.path.bind(str(folder / "socket"))
        self.path.listen()
        self.datagrams = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
        for receiver, name in zip(
            self.datagrams, (f"\0{self.abstract}-datagram", str(folder / "datagram")), strict=True
        ):
            receiver.bind(name)
        for name in ("socket", "datagram"):
            (folder / name).chmod(0o777)
        for listener in (*self.listeners, *self.datagrams):
            listener.setblocking(False)
        self.before = self.state()

    @property
    def listeners(self) -> list[socket.socket]:
        return [self.tcp, self.stream, self.path]

    def state(self) -> dict[str, tuple[int, int]]:
        """Size and change time of every file laid out."""
        state = {
            p.name: (p.stat().st_size, p.stat().st_ctime_ns) for p in sorted(self.folder.iterdir())
        }
        for device in DEVICES:
            found = Path(device).stat()
            state[device] = (found.st_mode, found.st_uid)
        return state

    def values(self) -> dict[str, object]:
        return {
            "FOLDER": self.folder,
            "SECRET_FILE": self.secret,
            "SECRET_VALUE": SECRET_VALUE,
            # It stands between quotes.
            "PACKAGE": str(Path(zpdbench.__file__).parent).replace("'", "\\'"),
            "PORT": self.tcp.getsockname()[1],
            "ABSTRACT": self.abstract,
        }

    def settle(self) -> None:
        """Take what has been done to it so far as the state to compare with."""
        for path in self.folder.iterdir():
            if path.name not in ("secret", "socket", "datagram"):
                path.unlink()
        for listener in self.listeners:
            with contextlib.suppress(BlockingIOError):
                while True:
                    listener.accept()[0].close()
        self.before = self.state()

    def untouched(self) -> bool:
        """Whether nobody has connected and no file has changed."""
        for listener in self.listeners:
            try:
                listener.accept()
                return False
            except BlockingIOError:
                pass
        for receiver in self.datagrams:
            try:
                receiver.recv(1)
                return False
            except BlockingIOError:
                pass
        return self.state() == self.before


@pytest.fixture(scope="module")
def bait(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bait]:
    os.environ["ZPDBENCH_TEST_SECRET"] = SECRET_VALUE
    laid = Bait(tmp_path_factory.mktemp("bait"))
    yield laid
    for listener in (*laid.listeners, *laid.datagrams):
        listener.close()
    del os.environ["ZPDBENCH_TEST_SECRET"]


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    before = descendants()
    with Pool(workers=1, limits=LIMITS) as running:
        yield running
    assert descendants() <= before, "processes were left behind"


def patiently(hostile: Hostile, verdict: Verdict, bait: Bait) -> Verdict:
    """The verdict; on a busy machine, where time ran out before the attack, one with more time."""
    if verdict.status != "timeout" or "timeout" in hostile.expected:
        return verdict
    with Pool(limits=replace(LIMITS, cpu_seconds=10.0, wall_seconds=120.0)) as pool:
        return pool.judge([hostile.program(**bait.values())])[0]


def test_at_least_sixty_programs_with_names_of_their_own() -> None:
    assert len(HOSTILE) >= 60
    assert len({h.name for h in HOSTILE}) == len(HOSTILE)
    assert all(h.tries for h in HOSTILE)


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda h: h.name)
def test_hostile(hostile: Hostile, pool: Pool, bait: Bait) -> None:
    pool.judge([GOOD])
    before = len(descendants())
    verdict = pool.judge([hostile.program(**bait.values())])[0]
    after = pool.judge([GOOD])[0]
    assert settles_at(before), "something of it goes on in the living pool"
    verdict = patiently(hostile, verdict, bait)
    assert verdict.status in hostile.expected, (hostile.tries, verdict)
    if verdict.status == "failed" and hostile.test == ESCAPE_TEST:
        assert verdict.reason == HELD, ("it has not tried all that it says", verdict)
    assert after.passed, ("the pool does not go on", after)
    assert bait.untouched(), hostile.tries


def test_the_forged_report_is_what_a_server_says() -> None:
    """In the right place it would be believed: it must not come to be there."""
    server = Server.__new__(Server)
    server.socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with server.socket, other:
        other.send(PASSED_REPORT)
        report = server.report(0)
    assert report is not None
    assert conclude(report, report, LIMITS) == ("passed", "")


def test_the_programs_run_where_nothing_holds_them(bait: Bait) -> None:
    """The attacks are real: some of them, run without a sandbox, do what they say.

    Only those whose success does no harm to the machine that runs this test.
    """
    harmless = {"subprocess", "descriptor_passing", "read_secrets", "symlink", "tcp_to_host"}
    for hostile in HOSTILE:
        if hostile.name in harmless:
            own = replace(hostile, source=hostile.source.replace("/tmp/", "@FOLDER@/"))
            program = own.program(**bait.values())
            text = program.prompt + program.completion + "\nprint(f(0))\n"
            result = subprocess.run(
                [sys.executable, "-c", text],
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert result.stdout.strip().endswith("escaped"), (hostile.name, result)
    bait.settle()


@pytest.mark.skipif(os.geteuid() != 0, reason="for others this is the way they run anyway")
def test_root_without_another_identity(bait: Bait, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root where the change of identity is impossible (as inside a container): nothing gets out."""
    monkeypatch.setattr("zpdbench.sandbox.pool.modes", lambda: ["user", "bare"])
    quick = [h for h in HOSTILE if "timeout" not in h.expected]
    with Pool(limits=LIMITS) as pool:
        assert pool.mode == "user"
        verdicts = pool.judge([*(h.program(**bait.values()) for h in quick), GOOD])
    assert verdicts.pop().passed
    assert [v for v in verdicts if v.passed] == []
    assert bait.untouched()


# Without bubblewrap a file's name may be seen, and this attack asks for no more than that.
SEES_NAMES = {"chroot"}


def test_without_bubblewrap(bait: Bait, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the inner layers: no file is read or changed, no socket of the machine is reached."""
    monkeypatch.setattr("zpdbench.sandbox.pool.modes", lambda: ["bare"])
    quick = [h for h in HOSTILE if "timeout" not in h.expected and h.name not in SEES_NAMES]
    with Pool(limits=LIMITS, waive=["namespaces", "root"]) as pool:
        assert pool.mode == "bare"
        verdicts = pool.judge([*(h.program(**bait.values()) for h in quick), GOOD])
    assert verdicts.pop().passed
    assert [v for v in verdicts if v.passed] == []
    assert bait.untouched()


MODES = ["user", "bare", *(["switch"] if os.geteuid() == 0 else [])]


@pytest.mark.parametrize("mode", MODES)
def test_hostile_tests(mode: str, bait: Bait, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of a stranger's bundle: they decide their own verdict, but they get out no more.

    The attacks on the machine, run as the tests.
    """
    monkeypatch.setattr("zpdbench.sandbox.pool.modes", lambda: [mode])
    programs = []
    for hostile in HOSTILE:
        # The tests' process has one descriptor more: its report.
        if hostile.test != ESCAPE_TEST or hostile.name == "descriptors_inherited":
            continue
        if "timeout" in hostile.expected or (mode == "bare" and hostile.name in SEES_NAMES):
            continue
        text = hostile.program(**bait.values()).completion.partition("\n\n")[2]
        test = f"{text}\ndef check(candidate):\n    out = f(0)\n    assert out == 'escaped', out\n"
        programs.append(Program(hostile.name, PROMPT, "    return None\n", test, "f"))
    before = descendants()
    waive = ["namespaces", "root"] if mode == "bare" else []
    with Pool(limits=LIMITS, waive=waive) as pool:
        assert pool.mode == mode
        pool.judge([GOOD])
        inside = len(descendants())
        verdicts = [*pool.judge(programs), *pool.judge([GOOD])]
        assert settles_at(inside), "a process was left behind"
    assert verdicts.pop().passed
    assert len(verdicts) > 50
    assert [v for v in verdicts if v.passed] == []
    assert descendants() <= before
    assert bait.untouched()


@pytest.mark.slow
def test_all_at_once_leave_nothing(bait: Bait) -> None:
    """All of them, two at a time, in one pool: the same verdicts, and nothing left afterwards."""
    before, open_before = descendants(), len(list(Path("/proc/self/fd").iterdir()))
    programs = [h.program(**bait.values()) for h in HOSTILE]
    with Pool(workers=2, limits=LIMITS) as pool:
        verdicts = pool.judge([*programs, GOOD])
    assert verdicts[-1].passed
    for hostile, verdict in zip(HOSTILE, verdicts, strict=False):
        verdict = patiently(hostile, verdict, bait)
        assert verdict.status in hostile.expected, (hostile.name, verdict)
    assert descendants() <= before
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before
    assert bait.untouched()
