"""Loading large libraries without the collector's passes over them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


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
