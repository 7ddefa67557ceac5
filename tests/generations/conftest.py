"""A small study on disk: two conditions, two steps, three benchmarks, a tiny model."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import tiny
from zpdbench import study as studies

STEPS = [4, 8]
CONDITIONS = ("random", "zpd")


@dataclass(frozen=True)
class Grid:
    """Where the parts lie, and the configuration as a dictionary."""

    folder: Path
    config: dict[str, Any]

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints/tiny"

    def adapter(self, condition: str, seed: int = 0) -> Path:
        return self.folder / f"adapters/tiny/{condition}/s{seed}"

    def items(self) -> list[Path]:
        return [self.folder / f"items/{name}.parquet" for name in self.config["benchmarks"]]

    def arguments(
        self, out: Path, *, chunk: str = "all", changes: Mapping[str, Any] | None = None
    ) -> argparse.Namespace:
        """The verb's arguments for a chunk; `changes` go into `generations`."""
        config = dict(self.config)
        config["generations"] = {**config["generations"], **(changes or {})}
        file = out.parent / f"{out.stem}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(config), "utf-8")
        study = studies.load(file)
        runs = [r for r in study.chunks.get(("tiny", chunk), []) if r.condition != "base"]
        return argparse.Namespace(
            study=str(file),
            model="tiny",
            chunk=chunk,
            checkpoint=str(self.checkpoint),
            adapters=[
                str(self.adapter(r.condition, r.seed)) for r in runs if r.condition != "base"
            ],
            items=[str(p) for p in self.items()],
            out=str(out),
        )


def benchmark(**fields: Any) -> dict[str, Any]:
    return {"source": "embedded", "items": 10, "interim_items": 4, **fields}


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    folder = tmp_path_factory.mktemp("grid")
    config = {
        "results": str(folder / "results"),
        "seeds": [0],
        "models": {
            "tiny": {
                "source": "embedded",
                "architecture": "qwen2",
                "layers": 3,
                "hidden_size": 128,
                "steps": 1,
            }
        },
        "conditions": {name: {"order": name} for name in CONDITIONS},
        "corpus": {"name": "c", "sources": {"e": {"format": "embedded", "examples": 10}}},
        "training": {"steps": 8, "evaluate_every": 4, "learning_rate": 1e-3, "max_tokens": 64},
        "benchmarks": {
            "gsm8k": benchmark(),
            "mmlu": benchmark(),
            "kobest": benchmark(),
        },
        "generations": {"max_model_len": 128, "adapters_in_flight": 2, "dtype": "float32"},
        "hypotheses": {},
    }
    made = Grid(folder, config)
    tiny.save_checkpoint(made.checkpoint, "qwen2")
    for number, condition in enumerate(CONDITIONS):
        tiny.save_run(made.adapter(condition), made.checkpoint, STEPS, seed=number + 1)
    for name, kind in (("gsm8k", "generate"), ("mmlu", "letters"), ("kobest", "sentences")):
        tiny.save_items(folder / f"items/{name}.parquet", kind)
    return made


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ZPDBENCH_CACHE", str(folder))
    return folder
