"""What an engine is told of a model that no single GPU holds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from zpdbench import study
from zpdbench.generations.generate_chunk import Job


@pytest.mark.parametrize(
    ("model", "expected"),
    [("qwen2.5-7b", {}), ("qwen2.5-32b", {"tensor_parallel_size": 2}),
     ("qwen2.5-72b", {"tensor_parallel_size": 4})],
)  # fmt: skip
def test_a_large_model_is_split_over_the_gpus_that_its_job_asks_for(
    root: Path, model: str, expected: dict[str, int]
) -> None:
    ladder = study.load(root / "config/ladder.yaml")
    job = SimpleNamespace(
        study=ladder, section=ladder.generations, model=model, adapters={1: 1}, full=False
    )
    assert Job._options(job) == expected  # type: ignore[arg-type]
