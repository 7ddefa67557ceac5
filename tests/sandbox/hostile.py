"""Hostile programs: each defines `f`, and says what it tries.

Two kinds. An ESCAPE returns 'escaped' only if what it tried has worked, and its test passes on just
that. A FAKE has a test that no honest function could pass (it asks for a number that is nowhere in
the candidate's process). So for both, `passed` would be a breach.
"""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import dedent

from zpdbench.sandbox import Program, codec
from zpdbench.sandbox.server import DONE

PROMPT = 'def f(x):\n    """Return what the tests ask for."""\n'
SECRET = 8273645918273645
ESCAPE_TEST = "def check(candidate):\n    out = candidate(0)\n    assert out == 'escaped', out\n"
HELD = "AssertionError: held"  # the reason then: it has tried everything, to the end
FAKE_TEST = f"def check(candidate):\n    assert candidate(41) == {SECRET}, 'wrong'\n"
# What a tests' server says of a program that has passed: the first job of a pool's call.
PASSED_REPORT = DONE.pack(0, 0, 0, 0.0, 0.0, 0, 0) + codec.encode(("passed", ""), 1 << 15)
ANY = ("failed", "timeout", "memory", "crashed", "killed", "output_limit")


@dataclass(frozen=True)
class Hostile:
    """One attack; `expected` are the verdicts that may come of it."""

    name: str
    tries: str
    source: str
    test: str
    expected: tuple[str, ...]

    def program(self, **values: object) -> Program:
        """The program; `@NAME@` in its text is replaced by the value of that name."""
        source = dedent(self.source)
        for name, value in values.items():
            source = source.replace(f"@{name}@", str(value))
        return Program(self.name, PROMPT, "    return None\n\n" + source, self.test, "f")


HOSTILE: list[Hostile] = []


def escape(name: str, tries: str, source: str, *expected: str) -> None:
    """Register an attack on the machine."""
    HOSTILE.append(Hostile(name, tries, source, ESCAPE_TEST, expected or ("failed",)))


def fake(name: str, tries: str, source: str, *expected: str, test: str = FAKE_TEST) -> None:
    """Register an attack on the verdict."""
    HOSTILE.append(Hostile(name, tries, source, test, expected or ("failed",)))


# Raw system calls, as several attacks use them. `call` returns the result or minus errno.
RAW = """
import ctypes, os, platform
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
X86 = platform.machine() == "x86_64"
def call(x86, arm, *args):
    number = x86 if X86 else arm
    if number is None:
        return -38
    fixed = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    r = _libc.syscall(ctypes.c_long(number), *fixed)
    return r if r >= 0 else -ctypes.get_errno()
"""

# Processes and threads -----------------------------------------------------------------------

escape(
    "fork_bomb",
    "fork without end",
    """
    import os
    def f(x):
        n = 0
        for _ in range(10000):
            try:
                if os.fork() == 0:
                    while True:
                        os.fork()
                n += 1
            except OSError:
                break
        return 'escaped' if n else 'held'
    """,
)
escape(
    "fork_raw",
    "fork by fork, vfork, clone and clone3 themselves, past the C library",
    RAW
    + """
def f(x):
    results = [call(57, None), call(56, 220, 17, 0, 0, 0, 0), call(435, 435, 0, 88)]
    if 0 in results:
        os._exit(0)
    return 'escaped' if any(r > 0 for r in results) else 'held'
""",
)
escape(
    "clone_thread_with_namespace",
    "clone flags that ask for a thread and a user namespace at once",
    RAW
    + """
def f(x):
    flags = 0x10000 | 0x800 | 0x100 | 0x10000000
    return 'escaped' if call(56, 220, flags, 0, 0, 0, 0) >= 0 else 'held'
""",
)
escape(
    "subprocess",
    "start a shell, another Python, the dynamic loader",
    """
    import os, subprocess, sys
    def f(x):
        for command in (['/bin/sh', '-c', 'true'], [sys.executable, '-c', ''],
                        ['/python/bin/python3.11', '-c', ''], ['/lib64/ld-linux-x86-64.so.2']):
            try:
                subprocess.run(command, timeout=5)
                return 'escaped'
            except (OSError, ValueError, TypeError):
                pass
            try:
                os.posix_spawn(command[0], command, {})
                return 'escaped'
            except OSError:
                pass
        return 'held'
    """,
)
escape(
    "multiprocessing",
    "a process by multiprocessing, each start method",
    """
    import multiprocessing
    def g():
        pass
    def f(x):
        for method in ('fork', 'spawn', 'forkserver'):
            try:
                p = multiprocessing.get_context(method).Process(target=g)
                p.start()
                return 'escaped'
            except Exception:
                pass
        return 'held'
    """,
    *ANY,
)
escape(
    "exec_in_place",
    "become another program by execve and execveat",
    RAW
    + """
import sys
def f(x):
    for path in ('/python/bin/python3.11', '/bin/sh', '/lib64/ld-linux-x86-64.so.2'):
        try:
            os.execv(path, [path, '-c', 'print(1)'])
        except OSError:
            pass
    fd = os.open('/python/lib/python3.11/os.py', os.O_RDONLY)
    if call(322, 281, fd, ctypes.c_char_p(b''), None, None, 0x1000) >= 0:
        return 'escaped'
    return 'held'
""",
)
escape(
    "thread_bomb",
    "threads without end",
    """
    import threading, time
    def f(x):
        n = 0
        try:
            for _ in range(5000):
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
                n += 1
        except RuntimeError:
            pass
        return 'escaped' if n > 64 else 'held'
    """,
)
escape(
    "daemon",
    "double fork and a new session, to outlive the program",
    """
    import os
    def f(x):
        worked = []
        def session():
            os.setsid()
            worked.append('setsid')
        def group():
            os.setpgid(0, 0)
            worked.append('setpgid')
        def child():
            if os.fork() == 0:
                try:
                    os.setsid()
                finally:
                    if os.fork() == 0:
                        while True:
                            pass
                    os._exit(0)
            worked.append('fork')
        def terminal():
            import pty
            if pty.fork()[0] == 0:
                os.fork()
                while True:
                    pass
            worked.append('pty')
        for attempt in (child, session, group, terminal, child):
            try:
                attempt()
            except OSError:
                pass
        return 'escaped' if worked else 'held'
    """,
)
escape(
    "thread_outlives",
    "a thread that goes on when the function has returned",
    """
    import threading
    def f(x):
        def spin():
            while True:
                pass
        threading.Thread(target=spin).start()
        return 'held'
    """,
)

# Memory, disk, output, time ----------------------------------------------------------------------

escape(
    "memory_list",
    "a list without end",
    """
    def f(x):
        a = []
        while True:
            a.append(bytearray(1 << 20))
    """,
    "memory",
)
escape(
    "memory_caught",
    "fill the memory, catch the error, go on",
    """
    def f(x):
        a, n = [], 0
        while True:
            try:
                a.append(b'x' * (1 << 20))
                n += 1
                if n > 4096:
                    return 'escaped'
            except MemoryError:
                return 'held'
    """,
    "failed",
    "memory",
)
escape(
    "memory_at_once",
    "one terabyte in one piece",
    """
    def f(x):
        bytearray(1 << 40)
        return 'escaped'
    """,
    "memory",
)
escape(
    "memory_mmap",
    "anonymous maps, shared and private",
    """
    import mmap
    def f(x):
        keep = []
        try:
            for _ in range(4096):
                m = mmap.mmap(-1, 1 << 22)
                m[::4096] = b'x' * (1 << 10)
                keep.append(m)
        except (OSError, MemoryError, ValueError):
            return 'held'
        return 'escaped'
    """,
    "failed",
    "memory",
)
escape(
    "memory_memfd",
    "files in memory, which no address space limit counts",
    """
    import os
    def f(x):
        try:
            for _ in range(40):
                fd = os.memfd_create('m')
                for _ in range(64):
                    os.write(fd, bytes(1 << 20))
        except OSError:
            return 'held'
        return 'escaped'
    """,
)
escape(
    "memory_at_import",
    "fill the memory before the function is there",
    """
    a = [bytearray(1 << 20) for _ in range(1 << 20)]
    def f(x):
        return 'escaped'
    """,
    "memory",
)
escape(
    "memory_shm",
    "System V and POSIX shared memory, message queues, semaphores",
    RAW
    + """
def f(x):
    shm = call(29, 194, 0x1234, 1 << 26, 0o1600)
    msg = call(68, 186, 0x1234, 0o1600)
    sem = call(64, 190, 0x1234, 1, 0o1600)
    queue = call(240, 180, ctypes.c_char_p(b'q'), 0o102, 0o600, None)
    return 'escaped' if max(shm, msg, sem, queue) >= 0 else 'held'
""",
)
escape(
    "disk_one_file",
    "one file without end",
    """
    def f(x):
        try:
            with open('/tmp/big', 'wb') as handle:
                for _ in range(1 << 12):
                    handle.write(bytes(1 << 20))
        except OSError:
            return 'held'
        return 'escaped'
    """,
)
escape(
    "disk_many_files",
    "many files, until the disk is full",
    """
    def f(x):
        try:
            for i in range(4096):
                with open(f'/tmp/{i}', 'wb') as handle:
                    handle.write(bytes(1 << 20))
        except OSError:
            return 'held'
        return 'escaped'
    """,
)
escape(
    "disk_inodes",
    "empty files and deep folders without end",
    """
    import os
    def f(x):
        made = 0
        try:
            while made < 2_000_000:
                os.mkdir('d')
                os.chdir('d')
                open('f', 'w').close()
                made += 1
        except OSError:
            pass
        return 'escaped' if made >= 2_000_000 else 'held'
    """,
    "failed",
    "timeout",
    "memory",
)
escape(
    "disk_sparse",
    "a file with a hole of a terabyte, fallocate",
    """
    import os
    def f(x):
        fd = os.open('/tmp/hole', os.O_RDWR | os.O_CREAT)
        for action in (lambda: os.ftruncate(fd, 1 << 40),
                       lambda: os.posix_fallocate(fd, 0, 1 << 34)):
            try:
                action()
                return 'escaped'
            except OSError:
                pass
        return 'held'
    """,
)
escape(
    "output_print",
    "print without end",
    """
    def f(x):
        while True:
            print('x' * 10000)
    """,
    "output_limit",
)
escape(
    "output_raw",
    "write to descriptors 1 and 2 without end",
    """
    import os
    def f(x):
        while True:
            os.write(1 + x % 2, bytes(1 << 16))
            x += 1
    """,
    "output_limit",
)
escape(
    "output_stderr_at_import",
    "fill the error stream before the function is there",
    """
    import sys
    while True:
        sys.stderr.write('x' * 10000)
    def f(x):
        return 'escaped'
    """,
    "output_limit",
)
escape(
    "descriptors",
    "open files and pipes without end",
    """
    import os
    def f(x):
        n = 0
        try:
            while n < 100000:
                os.pipe()
                n += 2
        except OSError:
            pass
        return 'escaped' if n > 1000 else 'held'
    """,
)
escape(
    "spin",
    "loop for ever",
    """
    def f(x):
        while True:
            pass
    """,
    "timeout",
)
escape(
    "spin_deaf",
    "loop for ever with every signal ignored, the timers cleared",
    """
    import resource, signal
    for s in range(1, 65):
        try:
            signal.signal(s, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    signal.setitimer(signal.ITIMER_REAL, 0)
    def f(x):
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass
    """,
    "timeout",
)
escape(
    "spin_in_c",
    "one long call in C: a regular expression that backtracks, a huge power",
    """
    import re
    def f(x):
        re.match(r'(a+)+$', 'a' * 64 + 'b')
        return 7 ** (7 ** 9)
    """,
    "timeout",
    "memory",
)
escape(
    "sleep_in_c",
    "sleep in C, past the interpreter",
    """
    import ctypes
    def f(x):
        ctypes.CDLL(None).sleep(3600)
        return 'escaped'
    """,
    "timeout",
)
escape(
    "sleep_for_a_signal",
    "wait in the kernel, all signals blocked",
    """
    import signal
    def f(x):
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
        while True:
            signal.sigwait({signal.SIGUSR1})
    """,
    "timeout",
)
escape(
    "spin_in_threads",
    "spend CPU time in threads, in C without the lock",
    """
    import hashlib, threading
    def spin():
        while True:
            hashlib.sha256(bytes(1 << 24))
    for _ in range(8):
        threading.Thread(target=spin, daemon=True).start()
    def f(x):
        while True:
            pass
    """,
    "timeout",
)
escape(
    "raise_limits",
    "raise the limits again",
    """
    import resource
    def f(x):
        for name in ('RLIMIT_AS', 'RLIMIT_NPROC', 'RLIMIT_FSIZE', 'RLIMIT_CPU', 'RLIMIT_NOFILE'):
            which = getattr(resource, name)
            _, hard = resource.getrlimit(which)
            for value in (resource.RLIM_INFINITY, hard + 1):
                try:
                    resource.setrlimit(which, (value, value))
                    return 'escaped'
                except (OSError, ValueError):
                    pass
        return 'held'
    """,
)
escape(
    "recursion",
    "recurse without end, in Python and in C",
    """
    import sys
    sys.setrecursionlimit(10 ** 9)
    def f(x):
        return f(x)
    """,
    "crashed",
    "failed",
    "memory",
    "timeout",
)
escape(
    "segfault",
    "read address 0",
    """
    import ctypes
    def f(x):
        ctypes.string_at(0)
    """,
    "crashed",
)
escape(
    "abort",
    "abort",
    """
    import os
    def f(x):
        os.abort()
    """,
    "crashed",
)

# Other processes -----------------------------------------------------------------------------

escape(
    "kill_parent",
    "signals to the server, its init, and everyone",
    """
    import os, signal
    def f(x):
        worked = False
        for pid in (os.getppid(), 1, 2, -1, 0, -2):
            for s in (0, signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM):
                try:
                    os.kill(pid, s)
                    worked = True
                except OSError:
                    pass
        return 'escaped' if worked else 'held'
    """,
)
escape(
    "kill_raw",
    "tgkill, tkill, rt_sigqueueinfo, rt_tgsigqueueinfo and pidfd_send_signal to the server",
    RAW
    + """
def f(x):
    info = ctypes.create_string_buffer(128)
    parent = os.getppid()
    results = [call(234, 131, parent, parent, 9), call(200, 130, parent, 9),
               call(129, 138, parent, 9, info), call(297, 240, parent, parent, 9, info)]
    fd = call(434, 434, parent, 0)
    if fd >= 0:
        results.append(call(424, 424, fd, 9, None, 0))
    return 'escaped' if any(r >= 0 for r in results) or fd >= 0 else 'held'
""",
)
escape(
    "kill_by_fcntl",
    "let the kernel send SIGKILL to the server when a pipe becomes readable",
    """
    import fcntl, os
    def f(x):
        r, w = os.pipe()
        worked = 0
        for command, value in ((fcntl.F_SETOWN, os.getppid()), (10, 9)):
            try:
                fcntl.fcntl(r, command, value)
                worked += 1
            except OSError:
                pass
        try:
            fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        except OSError:
            pass
        os.write(w, b'x')
        return 'escaped' if worked else 'held'
    """,
)
escape(
    "kill_by_ioctl",
    "FIOSETOWN and SIOCSPGRP on a socket pair, and typing into a terminal",
    """
    import fcntl, os, socket, struct
    def f(x):
        a, b = socket.socketpair()
        for request in (0x8901, 0x8902, 0x5412, 0x540E):
            for fd in (a.fileno(), 0, 1, 2):
                try:
                    fcntl.ioctl(fd, request, struct.pack('i', os.getppid()))
                    return 'escaped'
                except OSError:
                    pass
        return 'held'
    """,
)
escape(
    "limit_the_server",
    "lower the limits, the priority and the processors of the server",
    """
    import os, resource
    def f(x):
        parent = os.getppid()
        attempts = (
            lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE, (3, 3)),
            lambda: resource.prlimit(parent, resource.RLIMIT_CPU, (0, 0)),
            lambda: os.setpriority(os.PRIO_PROCESS, parent, 19),
            lambda: os.setpriority(os.PRIO_USER, 0, 19),
            lambda: os.sched_setaffinity(parent, {0}),
            lambda: os.sched_setscheduler(parent, os.SCHED_IDLE, os.sched_param(0)),
        )
        for attempt in attempts:
            try:
                attempt()
                return 'escaped'
            except OSError:
                pass
        return 'held'
    """,
)
escape(
    "ptrace",
    "trace the server, read and write its memory, take its descriptors",
    RAW
    + """
def f(x):
    parent = os.getppid()
    buffer = ctypes.create_string_buffer(64)
    iovec = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 64)
    results = [call(101, 117, 16, parent, 0, 0), call(101, 117, 0x4206, parent, 0, 0),
               call(310, 270, parent, iovec, 1, iovec, 1, 0),
               call(311, 271, parent, iovec, 1, iovec, 1, 0),
               call(438, 438, 3, 0, 0), call(312, 272, parent, os.getpid(), 0, 0, 1)]
    return 'escaped' if max(results) >= 0 else 'held'
""",
)
escape(
    "own_dumpable",
    "make the own process dumpable, keep capabilities, change securebits",
    RAW
    + """
def f(x):
    results = [call(157, 167, option, 1, 0, 0, 0) for option in (4, 8, 28, 36, 0x59616D61)]
    return 'escaped' if max(results) >= 0 else 'held'
""",
)

# Files ---------------------------------------------------------------------------------------

escape(
    "write_outside",
    "write in the root, the library, the devices, the folders of the host",
    """
    import os
    PLACES = ['/x', '/python/x', '/python/lib/python3.11/x.py', '/python/lib/python3.11/os.py',
              '/python/lib/python3.11/site-packages/x.py', '/dev/x', '/lib64/x', '/home/x',
              '/root/x', '/etc/x', '/var/tmp/x', '/dev/shm/x', '/run/x', '@FOLDER@/x']
    def f(x):
        for place in PLACES:
            for mode in ('w', 'a', 'r+'):
                try:
                    with open(place, mode) as handle:
                        handle.write('x')
                    return 'escaped'
                except OSError:
                    pass
        return 'held'
    """,
)
escape(
    "read_secrets",
    "read passwords, keys, the project, the file that the test has laid out",
    """
    import glob, os
    PLACES = ['/etc/shadow', '/etc/passwd', '/root/.ssh/id_rsa', '/root/.bashrc', '/etc/hostname',
              '/proc/1/environ', '/proc/self/environ', '/proc/self/maps', '/proc/self/mem',
              '/proc/cmdline', '/sys/kernel/notes', '/dev/sda', '/dev/vda', '/dev/mem', '/dev/kmsg',
              '/python/lib/python3.11/site-packages/zpdbench/__init__.py', '@SECRET_FILE@']
    def f(x):
        for place in PLACES:
            try:
                with open(place, 'rb') as handle:
                    if handle.read(1):
                        return 'escaped'
            except OSError:
                pass
        found = glob.glob('/home/*') + glob.glob('/root/*') + glob.glob('/proc/*')
        return 'escaped' if found else 'held'
    """,
)
escape(
    "read_environment",
    "secrets in the environment, the command line, the stack",
    """
    import os, sys
    def f(x):
        text = repr(dict(os.environ)) + repr(sys.argv) + repr(sys.orig_argv) + repr(sys.path)
        names = [name for name in os.environ if name.upper().startswith('ZPDBENCH')]
        # Not the project's folder: without bubblewrap its interpreter's name may be seen.
        return 'escaped' if names or '@SECRET_VALUE@' in text or '@PACKAGE@' in text else 'held'
    """,
)
escape(
    "symlink",
    "a symbolic link in /tmp to what is outside",
    """
    import os
    def f(x):
        for i, target in enumerate(('/etc/shadow', '/proc/1/root/etc/shadow', '@SECRET_FILE@',
                                    '../../../../etc/passwd', '/proc/self/root')):
            try:
                os.symlink(target, f'/tmp/l{i}')
                open(f'/tmp/l{i}').read(1)
                return 'escaped'
            except OSError:
                pass
        return 'held'
    """,
)
escape(
    "hard_link",
    "a hard link to a file of the library, to write it or change its mode",
    """
    import os
    def f(x):
        for source in ('/python/lib/python3.11/os.py', '/python/bin/python3.11', '/dev/null'):
            try:
                os.link(source, '/tmp/h')
                return 'escaped'
            except OSError:
                pass
            try:
                os.chmod(source, 0o777)
                return 'escaped'
            except OSError:
                pass
        return 'held'
    """,
)
escape(
    "device_modes",
    "change mode, owner and times of the host's device nodes",
    """
    import os
    def f(x):
        for device in ('/dev/null', '/dev/zero', '/dev/random', '/dev/urandom'):
            for action in (lambda: os.chmod(device, 0o777), lambda: os.utime(device, (0, 0)),
                           lambda: os.chown(device, 0, 0), lambda: os.unlink(device)):
                try:
                    action()
                    return 'escaped'
                except OSError:
                    pass
        return 'held'
    """,
)
escape(
    "standard_descriptors",
    "change mode, owner and times of what descriptors 0 to 4 are, if the host has it too",
    """
    import os, stat
    def f(x):
        for fd in range(5):
            mode = os.fstat(fd).st_mode
            if stat.S_ISFIFO(mode):
                continue
            # To what they are: enough to see whether it could be done.
            for action in (lambda: os.fchmod(fd, stat.S_IMODE(mode)), lambda: os.utime(fd),
                           lambda: os.fchown(fd, 0, 0)):
                try:
                    action()
                    return 'escaped'
                except OSError:
                    pass
        return 'held'
    """,
)
escape(
    "library_modes",
    "change mode and times of the library's folders, those that are hidden included",
    """
    import os
    def f(x):
        library = os.path.dirname(os.__file__)
        for name in ('.', 'site-packages', 'dist-packages', 'test', 'os.py'):
            path = os.path.join(library, name)
            if not os.path.exists(path):
                continue
            for action in (lambda: os.chmod(path, os.stat(path).st_mode & 0o777),
                           lambda: os.utime(path), lambda: os.chown(path, 0, 0)):
                try:
                    action()
                    return 'escaped'
                except OSError:
                    pass
        return 'held'
    """,
)
escape(
    "rename_over",
    "rename, remove and replace files of the library",
    """
    import os
    def f(x):
        open('/tmp/mine', 'w').close()
        for action in (lambda: os.rename('/tmp/mine', '/python/lib/python3.11/os.py'),
                       lambda: os.unlink('/python/lib/python3.11/os.py'),
                       lambda: os.rename('/tmp', '/gone'), lambda: os.rmdir('/tmp'),
                       lambda: os.truncate('/python/lib/python3.11/os.py', 0),
                       lambda: os.utime('/python/lib/python3.11/os.py', (0, 0))):
            try:
                action()
                return 'escaped'
            except OSError:
                pass
        return 'held'
    """,
)
escape(
    "mknod",
    "device files, fifos and sockets of one's own",
    """
    import os, stat
    def f(x):
        for mode, device in ((stat.S_IFBLK, os.makedev(254, 0)), (stat.S_IFCHR, os.makedev(1, 1))):
            try:
                os.mknod('/tmp/device', mode | 0o666, device)
                return 'escaped'
            except OSError:
                pass
        return 'held'
    """,
)
escape(
    "chroot",
    "chroot and climb out by dots",
    """
    import os
    def f(x):
        try:
            os.mkdir('/tmp/jail')
            os.chroot('/tmp/jail')
            for _ in range(50):
                os.chdir('..')
            os.chroot('.')
            return 'escaped'
        except OSError:
            return 'escaped' if os.path.exists('/tmp/../../../../etc/passwd') else 'held'
    """,
)
escape(
    "mount",
    "mount, remount, unmount, pivot_root, and the new mount calls",
    RAW
    + """
def f(x):
    t = ctypes.c_char_p
    results = [call(165, 40, t(b'none'), t(b'/tmp'), t(b'tmpfs'), 0, None),
               call(165, 40, None, t(b'/'), None, 32, None),
               call(165, 40, t(b'proc'), t(b'/tmp'), t(b'proc'), 0, None),
               call(166, 39, t(b'/'), 2), call(155, 41, t(b'/tmp'), t(b'/tmp')),
               call(428, 428, -100, t(b'/'), 1), call(430, 430, t(b'tmpfs'), 0),
               call(442, 442, -100, t(b'/'), 0, None, 0)]
    return 'escaped' if max(results) >= 0 else 'held'
""",
)
escape(
    "namespaces",
    "unshare each namespace, setns to another",
    RAW
    + """
def f(x):
    results = [call(272, 97, flag) for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000,
                                                0x8000000, 0x4000000, 0x2000000, 0x80, 0x200)]
    results += [call(308, 268, fd, 0) for fd in range(8)]
    return 'escaped' if max(results) >= 0 else 'held'
""",
)
escape(
    "open_by_handle",
    "open files by handle, past the paths",
    RAW
    + """
def f(x):
    handle = ctypes.create_string_buffer(b'\\x08\\0\\0\\0\\1\\0\\0\\0' + bytes(8) + b'\\2', 128)
    results = [call(304, 265, fd, handle, 0) for fd in (-100, 0, 3)]
    number = ctypes.c_int()
    results.append(call(303, 264, -100, ctypes.c_char_p(b'/tmp'), handle, ctypes.byref(number), 0))
    return 'escaped' if max(results) >= 0 else 'held'
""",
)
escape(
    "descriptors_inherited",
    "whatever descriptor was left open by whoever started this process",
    """
    import os
    def f(x):
        found = []
        for fd in range(5, 4096):
            try:
                os.fstat(fd)
                found.append(fd)
            except OSError:
                pass
        return 'escaped' if found else 'held'
    """,
)

# Identity and the kernel -----------------------------------------------------------------------

escape(
    "setuid",
    "become root, change groups, take capabilities",
    RAW
    + """
def f(x):
    for action in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0]),
                   lambda: os.setresuid(0, 0, 0), lambda: os.setreuid(0, 0),
                   lambda: os.seteuid(0), lambda: os.initgroups('root', 0)):
        try:
            action()
            return 'escaped'
        except OSError:
            pass
    header = ctypes.create_string_buffer(b'\\x22\\x05\\x08\\x20' + bytes(4))
    data = ctypes.create_string_buffer(b'\\xff' * 24, 24)
    if call(126, 91, header, data) >= 0 or os.getuid() == 0:
        return 'escaped'
    return 'held'
""",
)
escape(
    "setuid_file",
    "a set-user-id file, to be run later",
    """
    import os
    def f(x):
        open('/tmp/s', 'w').close()
        os.chmod('/tmp/s', 0o6755)
        try:
            os.chown('/tmp/s', 0, 0)
            return 'escaped'
        except OSError:
            return 'held'
    """,
)
escape(
    "kernel_interfaces",
    "bpf, perf_event_open, userfaultfd, io_uring, keyrings, kexec, modules, quotas, fanotify",
    RAW
    + """
def f(x):
    t, zero = ctypes.c_char_p, ctypes.create_string_buffer(256)
    results = [call(321, 280, 0, zero, 128), call(298, 241, zero, 0, -1, -1, 0),
               call(323, 282, 0), call(425, 425, 8, zero), call(426, 426, 3, 1, 1, 0, None, 0),
               call(427, 427, 3, 0, None, 0), call(250, 219, 0, -3, 1),
               call(248, 217, t(b'user'), t(b'k'), t(b'v'), 1, -3), call(249, 218, t(b'user'),
               t(b'k'), None, -3), call(246, 104, 0, 0, None, 0), call(175, 105, zero, 1, t(b'')),
               call(313, 273, 3, t(b''), 0), call(300, 262, 0, 0), call(103, 116, 3, zero, 10),
               call(169, 142, 0xFEE1DEAD, 672274793, 0, None), call(212, 18, 0, zero, 1),
               call(237, 235, zero, 1, 0, None, 0, 0), call(279, 239, 0, 1, zero, zero, zero, 0),
               call(447, 447, 0), call(317, 277, 1, 0, zero), call(170, 161, t(b'h'), 1),
               call(164, 170, zero, None), call(227, 112, 0, zero), call(167, 224, t(b'/tmp/s'), 0)]
    return 'escaped' if max(results) >= 0 else 'held'
""",
)
escape(
    "system_calls_of_32_bits",
    "system calls by int 0x80, whose numbers mean other calls",
    """
    import ctypes, mmap, platform
    def f(x):
        if platform.machine() != 'x86_64':
            return 'held'
        m = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        m.write(b'\\xb8\\x02\\x00\\x00\\x00\\xcd\\x80\\xc3')  # fork in the 32-bit table
        address = ctypes.addressof(ctypes.c_char.from_buffer(m))
        pid = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
        return 'escaped' if pid >= 0 else 'held'
    """,
    "crashed",
    "failed",
)
escape(
    "system_calls_x32",
    "system calls with the x32 bit, which another table serves",
    RAW
    + """
def f(x):
    results = [call(0x40000000 + n, None, 0, 0, 0) for n in (41, 57, 101, 272)]
    return 'escaped' if max(results) >= 0 else 'held'
""",
    "crashed",
    "failed",
)
escape(
    "all_system_calls",
    "every system call number with zeroes, but for those that only wait or end the process",
    RAW
    + """
QUIET = {15, 23, 34, 35, 60, 61, 130, 139, 202, 219, 230, 231, 247, 270, 271, 232, 281, 441, 7, 5}
FORBIDDEN = [41, 56, 57, 58, 59, 62, 101, 155, 161, 165, 166, 248, 249, 250, 272, 298, 304, 308,
             310, 311, 317, 319, 321, 322, 323, 424, 425, 426, 427, 428, 429, 430, 434, 438, 442]
def f(x):
    if not X86:
        return 'held'
    for number in FORBIDDEN:
        if number == 62:
            continue
        if call(number, None, 0, 0, 0, 0, 0, 0) not in (-1, -38):
            return 'escaped'
    return 'held'
""",
    "failed",
    "crashed",
)
escape(
    "new_filter",
    "install a filter that fakes the answers of system calls, or listens to them",
    RAW
    + """
def f(x):
    program = ctypes.create_string_buffer(b'\\x06\\0\\0\\0\\0\\0\\x05\\0', 8)
    fprog = ctypes.create_string_buffer((1).to_bytes(8, 'little')
                                        + ctypes.addressof(program).to_bytes(8, 'little'), 16)
    results = [call(317, 277, 1, flags, fprog) for flags in (0, 8)]
    results.append(call(157, 167, 22, 2, fprog, 0, 0))
    return 'escaped' if max(results) >= 0 else 'held'
""",
)

# The network -------------------------------------------------------------------------------------

escape(
    "socket_families",
    "a socket of every family and type",
    """
    import socket
    def f(x):
        for family in range(0, 48):
            for kind in (1, 2, 3, 5, 10):
                for protocol in (0, 1, 6, 255, 768):
                    try:
                        socket.socket(family, kind, protocol)
                        return 'escaped'
                    except OSError:
                        pass
        return 'held'
    """,
)
escape(
    "tcp_to_host",
    "connect to a server that listens on the host",
    """
    import socket
    def f(x):
        for host in ('127.0.0.1', '::1', 'localhost', '10.0.2.2', '169.254.169.254'):
            try:
                socket.create_connection((host, int('@PORT@')), timeout=1)
                return 'escaped'
            except OSError:
                pass
        return 'held'
    """,
)
escape(
    "udp_and_names",
    "look up a name, send a datagram, fetch a page",
    """
    import socket, urllib.request
    def f(x):
        for action in (lambda: socket.getaddrinfo('example.com', 80),
                       lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(
                           b'x', ('127.0.0.1', int('@PORT@'))),
                       lambda: urllib.request.urlopen('http://127.0.0.1:@PORT@/', timeout=1)):
            try:
                action()
                return 'escaped'
            except OSError:
                pass
        return 'held'
    """,
)
escape(
    "abstract_unix_socket",
    "connect to a unix socket of the host, abstract or by path",
    """
    import socket
    def f(x):
        for name in ('\\0@ABSTRACT@', '@FOLDER@/socket', '/var/run/docker.sock',
                     '/tmp/.X11-unix/X0'):
            try:
                s = socket.socket(socket.AF_UNIX)
                s.connect(name)
                return 'escaped'
            except OSError:
                pass
        try:
            a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            a.sendto(b'x', '\\0@ABSTRACT@')
            return 'escaped'
        except OSError:
            return 'held'
    """,
)
escape(
    "datagrams_to_unix_sockets",
    "send a datagram, by an address, to a unix socket of the host: abstract, by path, by msg",
    """
    import socket
    def f(x):
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            a, b = socket.socketpair(socket.AF_UNIX, kind)
            for name in ('\\0@ABSTRACT@-datagram', '@FOLDER@/datagram'):
                for action in (lambda: a.sendto(b'x', name), lambda: a.connect(name),
                               lambda: a.sendmsg([b'x'], [], 0, name)):
                    try:
                        action()
                        return 'escaped'
                    except OSError:
                        pass
        return 'held'
    """,
)
escape(
    "descriptor_passing",
    "pass descriptors over whatever socket there is",
    """
    import os, socket
    def f(x):
        for fd in range(0, 64):
            try:
                s = socket.socket(fileno=fd)
                socket.send_fds(s, [b'x'], [0])
                return 'escaped'
            except OSError:
                pass
        a, b = socket.socketpair()
        try:
            socket.send_fds(a, [b'x'], [0])
            return 'escaped'
        except OSError:
            return 'held'
    """,
)
escape(
    "vsock_and_raw",
    "vsock, packet, netlink, alg, xdp, bluetooth by number",
    RAW
    + """
def f(x):
    results = [call(41, 198, family, kind, protocol) for family, kind, protocol in
               ((40, 1, 0), (17, 3, 768), (16, 3, 0), (38, 5, 0), (44, 3, 0), (31, 3, 1),
                (10, 3, 58))]
    return 'escaped' if max(results) >= 0 else 'held'
""",
)

# The verdict ---------------------------------------------------------------------------------

fake("wrong", "nothing: a wrong answer", "def f(x):\n    return x\n")
fake("exit", "sys.exit(0) in the function", "import sys\ndef f(x):\n    sys.exit(0)\n")
fake("exit_at_import", "sys.exit(0) at once", "import sys\nsys.exit(0)\n")
fake("exit_hard", "os._exit(0)", "import os\ndef f(x):\n    os._exit(0)\n", "crashed")
fake("exit_hard_at_import", "os._exit(0) at once", "import os\nos._exit(0)\n", "crashed")
fake("quit", "quit()", "def f(x):\n    raise SystemExit('passed')\n")
fake("interrupt", "raise KeyboardInterrupt", "def f(x):\n    raise KeyboardInterrupt\n")
fake("generator_exit", "raise GeneratorExit", "def f(x):\n    raise GeneratorExit\n")
# Tests that ask in a loop: none is true of a function that gives no answer.
LOOPS = {
    "zip_map": f"for o, e in zip(map(candidate, [1, 2, 3]), [{SECRET}] * 3): assert o == e",
    "all_map": f"assert all(map(lambda v: candidate(v) == v + {SECRET}, range(5)))",
    "filter": f"assert not list(filter(lambda v: candidate(v) != {SECRET}, range(5)))",
    "truth": f"assert not [v for v in map(candidate, range(3)) if v != {SECRET}]",
    "star": f"assert not {{*map(candidate, range(3))}} - {{{SECRET}}}",
    "iter": f"for wrong in iter(lambda: candidate(1), {SECRET}): assert False, wrong",
    "next": f"assert next(map(candidate, [1]), {SECRET}) == {SECRET}",
    "default": f"assert max(map(candidate, [1]), default={SECRET}) == {SECRET}",
    "generator": f"try: assert all(candidate(v) == {SECRET} for v in range(3))\n"
    "    except RuntimeError: pass",
}
for _loop, _body in LOOPS.items():
    for _end, _source in {
        "": "def f(x):\n    raise StopIteration\n",
        "_value": f"def f(x):\n    raise StopIteration({SECRET % 7})\n",
        "_subclass": "class E(StopIteration): pass\ndef f(x):\n    raise E\n",
        "_by_name": "class E(Exception): pass\nE.__name__ = 'StopIteration'\n"
        "E.__module__ = 'builtins'\ndef f(x):\n    raise E\n",
        "_async": "def f(x):\n    raise StopAsyncIteration\n",
        "_generator": "def f(x):\n    raise GeneratorExit\n",
    }.items():
        fake(
            f"end_of_loop_{_loop}{_end}",
            f"end the tests' loop ({_loop}) in silence by an exception",
            _source,
            test=f"def check(candidate):\n    {_body}\n",
        )
fake(
    "atexit",
    "an exit handler that says success",
    """
    import atexit, os
    atexit.register(lambda: os.write(1, b'passed'))
    atexit.register(lambda: os._exit(0))
    def f(x):
        raise SystemExit(0)
    """,
)
fake(
    "lambda_exit",
    "exit when the result is destroyed",
    "class A:\n    def __del__(self):\n        import os; os._exit(0)\ndef f(x):\n    return A()\n",
    "failed",
    "crashed",
)
fake(
    "equal_to_all",
    "an object that equals everything",
    """
    class Equal:
        def __eq__(self, other): return True
        def __ne__(self, other): return False
        def __hash__(self): return 0
        def __bool__(self): return True
    def f(x):
        return Equal()
    """,
)
for _base, _value in (
    ("int", "0"),
    ("float", "0.0"),
    ("str", "''"),
    ("tuple", "()"),
    ("list", "()"),
    ("dict", "()"),
    ("set", "()"),
    ("bytes", "b''"),
    ("complex", "0"),
):
    fake(
        f"equal_{_base}",
        f"a subclass of {_base} that equals everything",
        f"class E({_base}):\n"
        "    def __eq__(self, other): return True\n"
        "    def __ne__(self, other): return False\n"
        "    def __hash__(self): return 0\n"
        f"def f(x):\n    return E({_value})\n",
    )
fake(
    "equal_inside",
    "such an object inside a list inside a dictionary",
    """
    class Equal:
        def __eq__(self, other): return True
        def __hash__(self): return 0
    def f(x):
        return {'a': [Equal(), (Equal(),)]}
    """,
)
fake(
    "equal_by_metaclass",
    "a class that equals everything, and says it is int",
    """
    class Meta(type):
        def __eq__(cls, other): return True
        def __hash__(cls): return hash(int)
        def __instancecheck__(cls, other): return True
        __name__ = 'int'
        __module__ = 'builtins'
    class Int(metaclass=Meta):
        __class__ = int
        def __eq__(self, other): return True
        def __index__(self): return 1
    def f(x):
        return [Int, Int()][x % 2]
    """,
)
fake(
    "counter_equal",
    "a Counter whose class has been given another equality",
    """
    import collections
    collections.Counter.__eq__ = lambda self, other: True
    collections.Counter.items = lambda self: [1]
    def f(x):
        return collections.Counter('abc')
    """,
)
fake(
    "redefine_check",
    "define check, candidate and the tests' names here",
    """
    import builtins
    def check(candidate): pass
    builtins.check = check
    builtins.candidate = None
    METADATA = {}
    def f(x): return x
    """,
)
fake(
    "decorate_check",
    "a decorator at the very end, for the check that follows",
    """
    def f(x): return x
    @lambda g: (lambda candidate: None)
    """,
)
fake(
    "swallow_tests",
    "an open string at the very end, that swallows the tests",
    "def f(x): return x\nTESTS = '''\n",
)
fake("continue_line", "a backslash at the very end", "def f(x): return x\nx = 1 + \\\n")
fake(
    "assert_redefined",
    "make AssertionError harmless, and assert a no-op",
    """
    import builtins, sys
    class Fine(Exception):
        def __new__(cls, *a): raise SystemExit(0)
    builtins.AssertionError = Fine
    builtins.__debug__ if False else None
    sys.flags = None
    def f(x): return x
    """,
)
fake(
    "trace",
    "trace and profile functions that look into every frame",
    """
    import sys, threading
    found = []
    def spy(frame, event, argument):
        for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):
            if isinstance(value, int) and value > 1 << 50:
                found.append(value)
        return spy
    sys.settrace(spy)
    sys.setprofile(spy)
    threading.settrace(spy)
    def f(x):
        return found[-1] if found else x
    """,
)
fake(
    "frames",
    "walk the frames for the tests' text and numbers",
    """
    import re, sys
    def f(x):
        frame = sys._getframe()
        while frame:
            for space in (frame.f_locals, frame.f_globals):
                for value in list(space.values()) + list(frame.f_code.co_consts):
                    m = re.search(r'assert candidate\\(41\\) == (\\d+)', repr(value))
                    if m:
                        return int(m[1])
            frame = frame.f_back
        return 0
    """,
)
fake(
    "collected_objects",
    "search every object the collector knows for the tests",
    """
    import gc, re
    def f(x):
        seen = set()
        todo = gc.get_objects()
        for o in todo:
            for v in gc.get_referents(o):
                if isinstance(v, (str, bytes)):
                    text = v if isinstance(v, str) else v.decode('latin-1')
                    m = re.search(r'assert candidate\\(41\\) == (\\d{9,})', text)
                    if m:
                        return int(m[1])
        return 0
    """,
)
fake(
    "raw_memory",
    "search the process's own memory for the tests, byte by byte",
    """
    import ctypes, re
    def f(x):
        start = id(object()) & ~0xFFFFF
        for base in (start, id(f) & ~0xFFFFF, id(re) & ~0xFFFFF):
            for step in range(2):
                data = ctypes.string_at(base + step * 4096, 4096)
                m = re.search(rb'assert candidate\\(41\\) == (\\d{9,})', data)
                if m:
                    return int(m[1])
        return 0
    """,
    "failed",
    "crashed",
)
fake(
    "modules",
    "look through sys.modules for the server and change its functions",
    """
    import sys, types
    for module in list(sys.modules.values()) + [sys._getframe(n).f_globals for n in range(3)]:
        space = module if isinstance(module, dict) else vars(module)
        for name in ('conclude', 'check', '_check', '_tests', 'encode', 'decode', 'describe'):
            if name in space and callable(space[name]):
                space[name] = lambda *a, **k: ('passed', '')
    def f(x): return x
    """,
    "failed",
    "crashed",
)
fake(
    "write_everywhere",
    "write a report of success to every descriptor",
    """
    import os, struct
    def text(s):
        return b's' + struct.pack('<I', len(s)) + s
    said = b't' + struct.pack('<I', 2) + text(b'passed') + text(b'')
    def f(x):
        for fd in range(0, 256):
            for data in (said, struct.pack('<I', len(said)) + said, b'passed', b'passed\\n'):
                try:
                    os.write(fd, data)
                except OSError:
                    pass
        return x
    """,
    "failed",
    "timeout",
)
fake(
    "write_then_die",
    "write a report of success to every descriptor, then end with status 0",
    """
    import os, struct
    def text(s):
        return b's' + struct.pack('<I', len(s)) + s
    said = b't' + struct.pack('<I', 2) + text(b'passed') + text(b'')
    for fd in range(0, 256):
        try:
            os.write(fd, said)
        except OSError:
            pass
    os._exit(0)
    """,
    "failed",
    "crashed",
)
fake(
    "forge_server_report",
    "send the server's own kind of report on every descriptor",
    f"""
    import os, struct
    report = {PASSED_REPORT!r}
    verdict = report[{DONE.size}:]
    def f(x):
        for said in (report, verdict, struct.pack('<I', len(report)) + report,
                     struct.pack('<I', len(verdict)) + verdict):
            for fd in range(0, 256):
                try:
                    os.write(fd, said)
                except OSError:
                    pass
        return x
    """,
    "failed",
    "timeout",
)
fake(
    "answers_in_advance",
    "write answers before they are asked for, greetings twice, rubbish between",
    """
    import os, struct
    def s(v): return b's' + struct.pack('<I', len(v)) + v
    def frame(data): return struct.pack('<I', len(data)) + data
    ready = frame(b't' + struct.pack('<I', 1) + s(b'ready'))
    answer = frame(b't' + struct.pack('<I', 2) + s(b'returned') + b'T')
    os.write(4, ready + answer + ready + answer * 100)
    def f(x):
        os.write(4, ready + ready)
        return x
    """,
)
for _name, _bytes in {
    "length_beyond": "struct.pack('<I', 0xFFFFFFFF)",
    "length_within": "struct.pack('<I', 100) + b'x' * 99",
    "tag": "struct.pack('<I', 1) + b'?'",
    "empty": "struct.pack('<I', 0)",
    "count": "struct.pack('<I', 5) + b'l' + struct.pack('<I', 0xFFFFFFFF)",
    "deep": "struct.pack('<I', 50000) + (b'l' + struct.pack('<I', 1)) * 10000",
    "unhashable": "struct.pack('<I', 10) + b'S' + struct.pack('<I', 1) + b'l' + bytes(4)",
    "pickle": "struct.pack('<I', 16) + b'cos\\n_exit\\n(I0\\ntR'",
    "bad_text": "struct.pack('<I', 6) + b's' + struct.pack('<I', 1) + b'\\xff'",
    "packed": "struct.pack('<I', 7) + b'pli' + struct.pack('<I', 0x20000000)",
}.items():
    fake(
        f"malformed_{_name}",
        f"an answer that is no encoding ({_name})",
        "import os, struct\nos.write(4, "
        + _bytes
        + ")\ndef f(x): return x\n"
        + ("os.close(4)\n" if _name == "length_within" else ""),
        "failed",
        "crashed",
    )
fake(
    "pickle",
    "a result that would run code when unpickled",
    """
    import os
    class P:
        def __reduce__(self):
            return (os._exit, (0,))
    def f(x):
        return P()
    """,
)
fake(
    "import_hook",
    "an import hook, a fake module, a path of one's own",
    """
    import sys, types
    class Hook:
        def find_spec(self, name, path=None, target=None):
            return None
    sys.meta_path.insert(0, Hook())
    for name in ('random', 'math', 'zpdbench.sandbox', 'zpdbench.sandbox.codec'):
        sys.modules[name] = types.ModuleType(name)
    sys.path.insert(0, '/tmp')
    open('/tmp/sitecustomize.py', 'w').write('raise SystemExit(0)')
    def f(x): return x
    """,
)
fake(
    "false_exception",
    "an exception that says it is a pass, whose text does not end",
    """
    class Passed(AssertionError):
        def __str__(self): raise SystemExit(0)
        def __repr__(self): return 'passed'
    def f(x):
        raise Passed('passed')
    """,
)
fake(
    "exception_name_lies",
    "an exception whose class lies about its name and module",
    """
    class E(Exception): pass
    E.__name__ = 'passed'
    E.__module__ = 'builtins'
    def f(x):
        raise E('')
    """,
)
fake(
    "cycle",
    "a list that contains itself",
    "def f(x):\n    a = []\n    a.append(a)\n    return a\n",
)
fake(
    "deep",
    "lists nested a hundred thousand deep",
    "def f(x):\n    a = []\n    for _ in range(100000):\n        a = [a]\n    return a\n",
    "failed",
    "crashed",
)
fake(
    "huge",
    "a result of a hundred megabytes",
    "def f(x):\n    return 'x' * (100 << 20)\n",
    "failed",
    "memory",
)
fake("huge_int", "an integer of ten million bits", "def f(x):\n    return 1 << 10_000_000\n")
fake("nan", "not a number", "def f(x):\n    return float('nan')\n")
fake(
    "flood",
    "answers without end",
    """
    import os, struct
    def f(x):
        while True:
            os.write(4, struct.pack('<I', 1) + b'T')
    """,
    "failed",
    "timeout",
    "crashed",
)
fake(
    "close_channel",
    "close the channel and stay",
    """
    import os, time
    def f(x):
        os.closerange(0, 64)
        time.sleep(60)
    """,
    "crashed",
    "failed",
)
fake(
    "half_an_answer",
    "begin an answer and never end it",
    """
    import os, struct, time
    def f(x):
        os.write(4, struct.pack('<I', 100) + b'x')
        time.sleep(60)
    """,
    "timeout",
)
fake(
    "other_thread_answers",
    "a thread that answers for the function",
    """
    import os, struct, threading
    def s(v): return b's' + struct.pack('<I', len(v)) + v
    body = b't' + struct.pack('<I', 2) + s(b'returned') + b'T'
    def answer():
        while True:
            os.write(4, struct.pack('<I', len(body)) + body)
    threading.Thread(target=answer, daemon=True).start()
    def f(x):
        return x
    """,
    "failed",
    "timeout",
    "crashed",
)
