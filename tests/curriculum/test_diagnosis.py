from __future__ import annotations

from typing import Any

import numpy as np

from zpdbench.curriculum.diagnosis import describe


def update(**changes: Any) -> dict[str, Any]:
    base = {
        "fallback": 0.0,
        "occupancy": 0.3,
        "perplexity": 2.0,
        "perplexity_smoothed": 2.0,
        "repeats_max": 1,
    }
    return {**base, **changes}


def test_nothing_to_say_of_a_run_that_did_what_it_should() -> None:
    order = np.random.default_rng(0).random(200)
    assert describe([update()] * 5, keep=0.9, difficulty=order, max_repeats=4) == []
    assert describe([], difficulty=order) == []


def test_mostly_empty() -> None:
    said = describe([update(fallback=0.9, occupancy=0.0), update()])
    assert "In 1 of 2 updates most of the block came from outside the window" in said[0]
    assert "In 1 of 2 updates the window held no candidate." in said


def test_fallback_all_on_one_side() -> None:
    above = [update(fallback=0.4, fallback_below=0.0), update(fallback=0.2, fallback_below=0.0)]
    (said,) = describe(above)
    assert "(30%) lay all on one side, above it (harder than meant)" in said
    (said,) = describe([update(fallback=0.3, fallback_below=0.3)])
    assert "below it (easier than meant)" in said
    assert describe([*above, update(fallback=0.2, fallback_below=0.1)]) == []
    assert describe([update(fallback=0.01, fallback_below=0.0)]) == []


def test_lag_names_the_weight_of_the_first_probe() -> None:
    raw = np.linspace(6.0, 2.0, 21)
    smoothed = raw.copy()
    for i in range(1, 21):
        smoothed[i] = 0.9 * smoothed[i - 1] + 0.1 * raw[i]
    updates = [
        update(perplexity=r, perplexity_smoothed=s) for r, s in zip(raw, smoothed, strict=True)
    ]
    (said,) = describe(updates, keep=0.9)
    assert "lagged the model" in said
    assert "harder than meant" in said
    assert "12 % in the last of 21 updates" in said.replace("12%", "12 %")


def test_reduction_to_another_condition() -> None:
    assert any("reduced to random" in s for s in describe([update(occupancy=0.99)] * 3))
    assert any("as good as random" in s for s in describe([update(occupancy=0.99), update()]))
    assert any("almost easy to hard" in s for s in describe([], difficulty=np.arange(50) / 50))
    assert any("almost hard to easy" in s for s in describe([], difficulty=-np.arange(50) / 50))


def test_repeats_at_the_limit() -> None:
    said = describe([update(repeats_max=4)] * 2, max_repeats=4)
    assert said == ["In 2 of 2 updates examples came the most often allowed (4 times a block)."]
