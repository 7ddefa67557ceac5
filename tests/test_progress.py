"""Rates and times left of work that was taken up again."""

from __future__ import annotations

import pytest

from zpdbench import progress


def test_what_was_done_before_counts_for_no_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.track("run", 1000, done=900) as bar:
        for _ in range(50):
            clock[0] += 1.0
            bar.advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "run: 950/1,000 steps (95 %), 1.0 steps/s, 50 s left"
