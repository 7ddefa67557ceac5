"""Items asked on the way are a sample of the embedded items, not the first and easiest."""

from __future__ import annotations

from pathlib import Path

import pytest

from zpdbench import study
from zpdbench.corpora import make_items


@pytest.mark.parametrize("benchmark", ["gsm8k", "humaneval", "mmlu", "kobest"])
def test_interim_items_are_drawn_from_all(root: Path, benchmark: str) -> None:
    loaded = study.load(root / "config/mini.yaml")
    section = loaded.benchmarks[benchmark]
    assert section.draw == "random"
    total, places = 0.0, []
    for seed in range(12):
        drawn = section.model_copy(update={"draw_seed": seed})
        changed = loaded.model_copy(update={"benchmarks": {benchmark: drawn}})
        made = make_items.items_of(changed, benchmark)
        asked = [k / (len(made) - 1) for k, item in enumerate(made) if item.interim]
        assert len(asked) == section.interim_items
        places.append(tuple(asked))
        total += sum(asked)
    # Uniform places in [0, 1]: their mean is a half with a standard error of 0.29 / sqrt(draws);
    # of the first n of 100 it would be 0.12 at most.
    draws = sum(map(len, places))
    assert abs(total / draws - 0.5) < 5 * 0.29 / draws**0.5
    assert len(set(places)) == 12
