"""The filters, run by a small interpreter of their own: which calls come through."""

from __future__ import annotations

import errno
import struct

import pytest

from zpdbench.sandbox import seccomp

pytestmark = pytest.mark.skipif(not seccomp.supported(), reason="no table for this architecture")
ALLOW, KILL, EPERM = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
PID = 4711


def answer(program: bytes, number: int, *arguments: int, arch: int | None = None) -> int:
    """What a filter returns on a call: classic BPF, the instructions used here."""
    if arch is None:
        arch = seccomp._ARCHITECTURES[seccomp.platform.machine()][0]
    given = [a & (2**64 - 1) for a in (*arguments, *(0,) * (6 - len(arguments)))]
    data = struct.pack("<IIQ6Q", number, arch, 0, *given)
    at, value = 0, 0
    while True:
        code, if_true, if_false, k = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        if code == 0x20:
            value = struct.unpack_from("<I", data, k)[0]
        elif code == 0x06:
            return k
        else:
            held = {0x15: value == k, 0x35: value >= k, 0x25: value > k, 0x45: bool(value & k)}
            at += if_true if held[code] else if_false


def both(number: int, *arguments: int, threads: bool = True, contained: bool = True) -> int:
    """The stricter of the server's and the program's answers, as the kernel takes it."""
    program = seccomp.program_filter(threads, contained)
    program = program.replace(struct.pack("<I", seccomp.PID_MARK), struct.pack("<I", PID))
    answers = (
        answer(program, number, *arguments),
        answer(seccomp.server_filter(), number, *arguments),
    )
    order = {KILL & 0xFFFF0000: 0, 0x00050000: 1, ALLOW: 2}
    return min(answers, key=lambda a: order[a & 0xFFFF0000])


@pytest.mark.parametrize("threads", [True, False])
@pytest.mark.parametrize("contained", [True, False])
def test_a_program_may_make_the_listed_calls_and_no_others(threads: bool, contained: bool) -> None:
    call = seccomp.numbers()
    names = {number: name for name, number in call.items()}
    plain = set(seccomp._PLAIN.split()) - (set() if contained else seccomp._METADATA)
    # With zeroes for arguments: F_DUPFD, a null address and prlimit64 on oneself come through.
    allowed = plain | {"sendto", "fcntl", "prlimit64"}
    for number in range(0, 1000):
        want = ALLOW if names.get(number) in allowed else EPERM
        if names.get(number) == "clone3":
            want = 0x00050000 | errno.ENOSYS
        if names.get(number) == "ioctl":
            want = 0x00050000 | errno.ENOTTY
        got = both(number, threads=threads, contained=contained)
        assert got == want, (number, names.get(number), hex(got))


def test_arguments_decide_where_they_must() -> None:
    call = seccomp.numbers()
    for name in ("kill", "tgkill"):
        assert both(call[name], PID, 9) == ALLOW
        for pid in (0, 1, PID + 1, -1, -PID):
            assert both(call[name], pid, 9) == EPERM
    assert both(call["prlimit64"], PID) == both(call["prlimit64"], 0) == ALLOW
    assert both(call["prlimit64"], PID + 1) == EPERM
    assert both(call["socketpair"], 1) == ALLOW
    assert both(call["socketpair"], 2) == EPERM
    assert both(call["sendto"], 3, 4096, 1, 0, 0, 16) == ALLOW
    for address in (1, 1 << 32, 1 << 63, 2**64 - 1):
        assert both(call["sendto"], 3, 4096, 1, 0, address, 16) == EPERM
    assert both(call["fcntl"], 0, 8) == EPERM  # F_SETOWN
    assert both(call["prctl"], 15) == ALLOW
    assert both(call["prctl"], 22) == EPERM  # PR_SET_SECCOMP
    thread = 0x10000
    assert both(call["clone"], thread) == ALLOW
    assert both(call["clone"], 17) == both(call["clone"], thread | 0x10000000) == EPERM
    assert both(call["clone"], thread, threads=False) == EPERM


def test_numbers_of_another_table_kill() -> None:
    assert both(0x40000000 + 1) == KILL
    assert answer(seccomp.server_filter(), 1, arch=0x40000003) == KILL


def test_the_program_s_filter_is_short() -> None:
    """The kernel compiles it anew for every program."""
    assert len(seccomp.program_filter(True)) <= 8 * 110
