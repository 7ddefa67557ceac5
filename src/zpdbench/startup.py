"""Loading large libraries, and leaving them, without the collector's passes over them."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

ends_here = False
"""This process runs one verb and ends (see `cli.program`): memory need not be given back before."""


@contextmanager
def uncollected() -> Iterator[None]:
    """While torch is imported it makes a million objects that live as long as the process.

    The cyclic collector looks for garbage among them again and again, a tenth of what such an
    import costs; so it rests.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def leave_out(*modules: str) -> None:
    """Keep optional modules from being imported: to those who ask, they are not installed.

    In a process of one verb, which knows what it needs; elsewhere nothing is done, as something may
    have noted that they are there.
    """
    if ends_here:
        for module in modules:
            sys.modules.setdefault(module, None)  # type: ignore[arg-type]


def keep_memory() -> None:
    """Keep freed memory for what is allocated next, where the C library is glibc.

    It gives large blocks back to the system at once, and a model's step takes the same ones again:
    the system then clears each page anew. The constants are mallopt(3)'s.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    mebibyte = 2**20
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(mmap_threshold, 32 * mebibyte)  # the most that it takes
        mallopt(trim_threshold, 1024 * mebibyte)
        mallopt(top_pad, 64 * mebibyte)
