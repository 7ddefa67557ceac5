"""Which system calls a sandboxed program may make: a seccomp filter, as bytes.

The server's filter lists what is allowed; everything else returns EPERM (clone3: ENOSYS, so that
the C library falls back to clone, whose flags can be looked at). A program adds a second one, of
what is refused to it beyond that. A call by another architecture's
numbers (32-bit, x32) kills the process. It is written here by hand, so no library is needed, and
made by the trusted side; the sandbox only installs it.

What the program's filter refuses, among the rest: new processes, exec, other processes' signals
and limits, sockets (but for an unnamed pair, and no address to send to), ptrace and its relatives,
namespaces, mounts, keyrings, bpf, userfaultfd, io_uring, memfd, System V and POSIX queues and
memory, changes of identity, and asking the kernel to signal another process for it (F_SETOWN,
F_SETSIG).
"""

from __future__ import annotations

import errno
import platform
import struct

PID_MARK = 0x5A504442  # stands for the program's own process id, which the program puts in

_PLAIN = """
    read write close fstat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask
    rt_sigreturn pread64 pwrite64 readv writev sched_yield mremap msync mincore madvise dup dup2
    dup3 nanosleep getitimer setitimer alarm getpid getppid gettid exit exit_group uname flock
    fsync fdatasync truncate ftruncate getdents64 getcwd chdir fchdir umask gettimeofday
    getrlimit getrusage sysinfo times getuid getgid geteuid getegid getresuid getresgid
    getgroups getpgid getpgrp getsid sigaltstack statfs fstatfs arch_prctl futex futex_waitv
    sched_getaffinity sched_getparam sched_getscheduler sched_get_priority_max
    sched_get_priority_min getcpu set_tid_address restart_syscall clock_gettime clock_getres
    clock_nanosleep time timer_create timer_settime timer_gettime timer_getoverrun timer_delete
    open openat stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat
    creat mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink
    symlinkat chmod fchmod fchmodat utime utimes utimensat futimesat poll ppoll select pselect6
    epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2
    pipe pipe2 sendfile copy_file_range fadvise64 fallocate readahead set_robust_list
    get_robust_list getrandom rseq close_range pause rt_sigpending rt_sigsuspend rt_sigtimedwait
    wait4 waitid getpriority recvfrom shutdown getsockopt sched_rr_get_interval capget
"""
_METADATA = {"chmod", "fchmod", "fchmodat", "utime", "utimes", "utimensat", "futimesat"}
_SERVER = """
    fork vfork sendmsg recvmsg setrlimit pidfd_open landlock_restrict_self
"""
_X86_64 = """
    read=0 write=1 open=2 close=3 stat=4 fstat=5 lstat=6 poll=7 lseek=8 mmap=9 mprotect=10
    munmap=11 brk=12 rt_sigaction=13 rt_sigprocmask=14 rt_sigreturn=15 ioctl=16 pread64=17
    pwrite64=18 readv=19 writev=20 access=21 pipe=22 select=23 sched_yield=24 mremap=25 msync=26
    mincore=27 madvise=28 dup=32 dup2=33 pause=34 nanosleep=35 getitimer=36 alarm=37
    setitimer=38 getpid=39 sendfile=40 sendto=44 recvfrom=45 sendmsg=46 recvmsg=47 shutdown=48
    socketpair=53 getsockopt=55 clone=56 fork=57 vfork=58 exit=60 wait4=61 kill=62 uname=63
    fcntl=72 flock=73 fsync=74 fdatasync=75 truncate=76 ftruncate=77 getcwd=79 chdir=80
    fchdir=81 rename=82 mkdir=83 rmdir=84 creat=85 link=86 unlink=87 symlink=88 readlink=89
    chmod=90 fchmod=91 umask=95 gettimeofday=96 getrlimit=97 getrusage=98 sysinfo=99 times=100
    getuid=102 getgid=104 geteuid=107 getegid=108 getppid=110 getpgrp=111 getgroups=115
    getresuid=118 getresgid=120 getpgid=121 getsid=124 rt_sigpending=127 rt_sigtimedwait=128
    rt_sigsuspend=130 sigaltstack=131 utime=132 statfs=137 fstatfs=138 getpriority=140
    sched_getparam=143 sched_getscheduler=145 sched_get_priority_max=146
    sched_get_priority_min=147 sched_rr_get_interval=148 prctl=157 arch_prctl=158 setrlimit=160
    gettid=186 readahead=187 tkill=200 time=201 futex=202 sched_getaffinity=204 epoll_create=213
    getdents64=217 set_tid_address=218 restart_syscall=219 fadvise64=221 timer_create=222
    timer_settime=223 timer_gettime=224 timer_getoverrun=225 timer_delete=226 clock_gettime=228
    clock_getres=229 clock_nanosleep=230 exit_group=231 epoll_wait=232 epoll_ctl=233 tgkill=234
    utimes=235 waitid=247 openat=257 mkdirat=258 futimesat=261 newfstatat=262 unlinkat=263
    renameat=264 linkat=265 symlinkat=266 readlinkat=267 fchmodat=268 faccessat=269 pselect6=270
    ppoll=271 set_robust_list=273 get_robust_list=274 utimensat=280 epoll_pwait=281 eventfd=284
    fallocate=285 eventfd2=290 epoll_create1=291 dup3=292 pipe2=293 prlimit64=302 getcpu=309
    renameat2=316 getrandom=318 copy_file_range=326 statx=332 rseq=334 pidfd_open=434 clone3=435
    close_range=436 faccessat2=439 epoll_pwait2=441 landlock_restrict_self=446 futex_waitv=449
    capget=125
"""
_AARCH64 = """
    getcwd=17 eventfd2=19 epoll_create1=20 epoll_ctl=21 epoll_pwait=22 dup=23 dup3=24 fcntl=25
    ioctl=29 flock=32 mkdirat=34 unlinkat=35 symlinkat=36 linkat=37 renameat=38 statfs=43
    fstatfs=44 truncate=45 ftruncate=46 fallocate=47 faccessat=48 chdir=49 fchdir=50 fchmod=52
    fchmodat=53 openat=56 close=57 pipe2=59 getdents64=61 lseek=62 read=63 write=64 readv=65
    writev=66 pread64=67 pwrite64=68 sendfile=71 pselect6=72 ppoll=73 readlinkat=78
    newfstatat=79 fstat=80 fsync=82 fdatasync=83 utimensat=88 exit=93 exit_group=94 waitid=95
    set_tid_address=96 futex=98 set_robust_list=99 get_robust_list=100 nanosleep=101
    getitimer=102 setitimer=103 timer_create=107 timer_gettime=108 timer_getoverrun=109
    timer_settime=110 timer_delete=111 clock_gettime=113 clock_getres=114 clock_nanosleep=115
    sched_getscheduler=120 sched_getparam=121 sched_getaffinity=123 sched_yield=124
    sched_get_priority_max=125 sched_get_priority_min=126 sched_rr_get_interval=127
    restart_syscall=128 kill=129 tkill=130 tgkill=131 sigaltstack=132 rt_sigsuspend=133
    rt_sigaction=134 rt_sigprocmask=135 rt_sigpending=136 rt_sigtimedwait=137 rt_sigreturn=139
    getpriority=141 getresuid=148 getresgid=150 times=153 getpgid=155 getsid=156 getgroups=158
    uname=160 getrlimit=163 setrlimit=164 getrusage=165 umask=166 prctl=167 getcpu=168
    gettimeofday=169 getpid=172 getppid=173 getuid=174 geteuid=175 getgid=176 getegid=177
    gettid=178 sysinfo=179 socketpair=199 sendto=206 recvfrom=207 getsockopt=209 shutdown=210
    sendmsg=211 recvmsg=212 readahead=213 brk=214 munmap=215 mremap=216 clone=220 mmap=222
    fadvise64=223 mprotect=226 msync=227 mincore=232 madvise=233 wait4=260 prlimit64=261
    renameat2=276 getrandom=278 copy_file_range=285 statx=291 rseq=293 pidfd_open=434 clone3=435
    close_range=436 faccessat2=439 epoll_pwait2=441 landlock_restrict_self=446 futex_waitv=449
    capget=90
"""
_ARCHITECTURES = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}

_LOAD, _JEQ, _JGE, _JGT, _JSET, _RET = 0x20, 0x15, 0x35, 0x25, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCH = 0, 4  # offsets in struct seccomp_data; arguments follow at 16 + 8 i
_INSTRUCTION = struct.Struct("<HBBI")

# The argument values that are allowed, by call and argument.
_FCNTL = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    36,
    37,
    38,
    1030,
    1032,
)  # F_DUPFD .. F_SETLKW, F_OFD_*, DUPFD_CLOEXEC, GETPIPE_SZ
_IOCTL = (
    0x5401,
    0x5413,
    0x541B,
    0x5421,
    0x5450,
    0x5451,
)  # TCGETS TIOCGWINSZ FIONREAD FIONBIO FIONCLEX FIOCLEX
_PRCTL = (
    15,
    16,
    21,
    39,
    0x53564D41,
)  # PR_SET_NAME PR_GET_NAME PR_GET_SECCOMP PR_GET_NO_NEW_PRIVS PR_SET_VMA
_AF_UNIX = 1
_CLONE_THREAD = 0x00010000
# NEWTIME NEWNS NEWCGROUP NEWUTS NEWIPC NEWUSER NEWPID NEWNET
_CLONE_NAMESPACES = 0x80 | 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x70000000


def supported() -> bool:
    """Whether this machine's architecture has a table here."""
    return platform.machine() in _ARCHITECTURES


def numbers() -> dict[str, int]:
    """Name -> number of the system calls known here, on this architecture."""
    table = _ARCHITECTURES[platform.machine()][1]
    return {name: int(number) for name, _, number in (w.partition("=") for w in table.split())}


def program_filter(threads: bool, contained: bool = True) -> bytes:
    """What a program's process adds to the filter of its server, under which it already is.

    The kernel takes the strictest answer of the two, so what the server may not do the program may
    not either; here stands what is refused beyond that. (A list of all that is allowed would say
    the same, but the kernel compiles this one for every program, and it is a fifth as long.)

    `threads` False refuses threads as well as processes; `contained` False, for a program that can
    name the machine's files, refuses to change any file's mode and times (Landlock has no rule
    about those).
    """
    call = numbers()
    checks = [
        _only_own_process(call, "kill"),
        _only_own_process(call, "tgkill"),
        _one_of(call["prlimit64"], 0, (0, PID_MARK)),
        _one_of(call["fcntl"], 1, _FCNTL),
        _one_of(call["ioctl"], 1, _IOCTL, errno.ENOTTY),
        _one_of(call["prctl"], 0, _PRCTL),
    ]
    refused = {*_SERVER.split(), "tkill"} | (set() if contained else _METADATA)
    if threads:
        checks.append(_clone(call["clone"], thread=True))
    else:
        refused.add("clone")
    return _assemble(checks, [call[n] for n in refused if n in call], _ERRNO | errno.EPERM, _ALLOW)


def server_filter() -> bytes:
    """The filter of the process that forks the programs; each program adds its own to it."""
    call = numbers()
    free = ("kill", "tgkill", "tkill", "prlimit64", "fcntl", "ioctl", "prctl")
    checks = [
        _one_of(call["socketpair"], 0, (_AF_UNIX,)),
        _without_address(call["sendto"]),
        _block(call["clone3"], [_ret(_ERRNO | errno.ENOSYS)]),
        _clone(call["clone"], thread=False),
    ]
    names = (*_PLAIN.split(), *_SERVER.split(), *free)
    allowed = [call[n] for n in names if n in call]
    return _assemble(checks, allowed, _ALLOW, _ERRNO | errno.EPERM)


def _assemble(checks: list[bytes], listed: list[int], then: int, otherwise: int) -> bytes:
    """The checks, then one action for the calls that are listed and one for all others."""
    program = _op(_LOAD, _ARCH)
    program += _op(_JEQ, _ARCHITECTURES[platform.machine()][0], 1, 0) + _ret(_KILL)
    program += _op(_LOAD, _NUMBER)
    # x32 numbers carry bit 30; no real number comes near.
    program += _op(_JGE, 0x40000000, 0, 1) + _ret(_KILL)
    program += b"".join(checks)
    for low, high in _ranges(listed):
        program += _op(_JGE, low, 0, 2) + _op(_JGT, high, 1, 0) + _ret(then)
    return program + _ret(otherwise)


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """Runs of consecutive numbers as (first, last)."""
    runs: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, if_true, if_false, value)


def _ret(action: int) -> bytes:
    return _op(_RET, action)


def _low(argument: int) -> bytes:
    """Load the low half of an argument: these are all ints (or flags) of 32 bits in the kernel."""
    return _op(_LOAD, 16 + 8 * argument)


def _block(number: int, body: list[bytes]) -> bytes:
    """`body`, which returns on every path, run for this call only."""
    return _op(_JEQ, number, 0, len(body)) + b"".join(body)


def _one_of(number: int, argument: int, values: tuple[int, ...], error: int = errno.EPERM) -> bytes:
    tests = [_op(_JEQ, v, len(values) - i, 0) for i, v in enumerate(values)]
    return _block(number, [_low(argument), *tests, _ret(_ERRNO | error), _ret(_ALLOW)])


def _only_own_process(call: dict[str, int], name: str) -> bytes:
    return _one_of(call[name], 0, (PID_MARK,))


def _without_address(number: int) -> bytes:
    """Allow sendto to the other end only: with an address it reaches any socket it can name."""
    halves = [_op(_LOAD, 16 + 8 * 4), _op(_JEQ, 0, 1, 0), _ret(_ERRNO | errno.EPERM)]
    halves += [_op(_LOAD, 20 + 8 * 4), _op(_JEQ, 0, 1, 0), _ret(_ERRNO | errno.EPERM)]
    return _block(number, [*halves, _ret(_ALLOW)])


def _clone(number: int, thread: bool) -> bytes:
    """Allow clone without new namespaces; with `thread`, only into the same thread group."""
    body = [_low(0), _op(_JSET, _CLONE_NAMESPACES, 0, 1), _ret(_ERRNO | errno.EPERM)]
    if thread:
        body += [_op(_JSET, _CLONE_THREAD, 1, 0), _ret(_ERRNO | errno.EPERM)]
    return _block(number, [*body, _ret(_ALLOW)])
