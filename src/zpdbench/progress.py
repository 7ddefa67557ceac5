"""Progress of long work: a live bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

LINE_EVERY_SECONDS = 10.0


class Task(Protocol):
    """What the work calls as it goes on."""

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        """`amount` more of the total is done; `note` is shown beside it."""


class _Lines:
    def __init__(self, title: str, total: float, unit: str, done: float) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done, self.before = done, done
        self.start, self.shown = time.monotonic(), 0.0
        self.note = ""

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        self.done += amount
        self.note = note or self.note
        if time.monotonic() - self.shown >= LINE_EVERY_SECONDS:
            self.show()

    def show(self) -> None:
        self.shown = time.monotonic()
        spent = max(self.shown - self.start, 1e-9)
        rate = (self.done - self.before) / spent
        left = (self.total - self.done) / rate if rate > 0 else float("inf")
        share = 100.0 * self.done / self.total if self.total else 100.0
        print(
            f"{self.title}: {self.done:,.0f}/{self.total:,.0f} {self.unit} ({share:.0f} %), "
            f"{rate:,.1f} {self.unit}/s, {max(left, 0):,.0f} s left"
            + (f", {self.note}" if self.note else ""),
            file=sys.stderr,
            flush=True,
        )


@contextmanager
def track(title: str, total: float, unit: str = "steps", done: float = 0.0) -> Iterator[Task]:
    """Show the progress of `total` units of work, with rate and time left, on stderr.

    `done` of them were done before, and say nothing of the rate.
    """
    if not sys.stderr.isatty():
        lines = _Lines(title, total, unit, done)
        yield lines
        lines.show()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + unit),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        identifier = progress.add_task(title, total=total, completed=int(done), rate="", note="")

        class _Bar:
            def advance(self, amount: float = 1.0, note: str = "") -> None:
                task = progress.tasks[0]
                spent = max(task.elapsed or 0.0, 1e-9)
                rate = f"{(task.completed + amount - done) / spent:,.1f} {unit}/s"
                fields: dict[str, Any] = {"rate": rate, **({"note": note} if note else {})}
                progress.update(identifier, advance=amount, **fields)

        yield _Bar()
