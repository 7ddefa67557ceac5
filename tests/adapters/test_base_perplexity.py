"""corpus.difficulty: base_perplexity, a model's own loss before training as difficulty."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tests.adapters import material
from tests.adapters.test_train_adapter import BATCH, STEPS, configuration, realised
from zpdbench import files, study
from zpdbench.adapters import (
    base_perplexity,
    batches,
    decoder,
    encoding,
    parallel,
    train_adapter,
)
from zpdbench.adapters.learner import ModelLearner
from zpdbench.adapters.loss import cross_entropy


def parsed(difficulty: str) -> study.Study:
    config = configuration()
    config["corpus"]["difficulty"] = difficulty
    return study.parse(config)


def test_fixed_orders_and_pacing_follow_the_model_s_own_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZPDBENCH_CACHE", str(tmp_path / "cache"))
    checkpoint = material.checkpoint(tmp_path / "m")
    frame = material.examples(150)
    frame.write_parquet(tmp_path / "c.parquet")

    def train(condition: str, difficulty: str = "base_perplexity") -> Path:
        out = tmp_path / f"{condition}-{difficulty}"
        train_adapter.train(
            parsed(difficulty),
            model="m",
            condition=condition,
            seed=0,
            checkpoint=checkpoint,
            corpus=tmp_path / "c.parquet",
            out=out,
        )
        return out

    # Each example alone, not as the module under test scores them.
    tokens = encoding.Encoder(checkpoint).encode(
        frame["prompt"].to_list(), frame["response"].to_list(), 128
    )
    model = decoder.load(checkpoint)
    loss = {}
    for row, name in enumerate(frame["id"]):
        batch = batches.pack(tokens, np.array([row]))
        total, _ = cross_entropy(model(batch), model.head, batch.targets)
        loss[name] = total.item() / len(batch.targets)
    language = dict(zip(frame["id"], frame["language"], strict=True))
    trainable = frame.filter(pl.col("split") == "train")["id"].to_list()
    rank: dict[str, float] = {}
    for wanted in ("en", "ko"):
        mine = sorted((i for i in trainable if language[i] == wanted), key=loss.__getitem__)
        rank |= {name: k / (len(mine) - 1) for k, name in enumerate(mine)}

    rising = realised(train("easy_to_hard"))
    scored: list[int] = []
    original = ModelLearner.score

    def score(self: ModelLearner, rows: Any) -> Any:
        scored.append(len(rows))
        return original(self, rows)

    monkeypatch.setattr(ModelLearner, "score", score)
    falling = realised(train("hard_to_easy"))
    assert scored == [], "scored once for all conditions and seeds of a model"
    for order, sign in ((rising, 1), (falling, -1)):
        # Losses that differ in their last bits only may change places: by one rank.
        steps = np.diff([sign * rank[i] for i in order])
        assert (steps >= -1.01 / 59).all() and (steps < -1e-9).sum() <= 4
    out = train("pacing")
    easiest = sorted(rank[i] for i in set(rising))
    for t in range(STEPS):
        c = min(1.0, np.sqrt(t * (1 - 0.01**2) / (STEPS / 2) + 0.01**2))
        allowed = max(int(np.ceil(c * len(easiest))), BATCH)
        assert max(rank[i] for i in realised(out)[t * BATCH : (t + 1) * BATCH]) <= (
            easiest[allowed - 1] + 1.01 / 59
        )
    manifest = files.read_manifest(out)
    assert manifest["difficulty"] == "base_perplexity"
    reference = train("easy_to_hard", "reference")
    assert realised(reference) != rising
    told = json.loads((reference / "MANIFEST.json").read_text())
    assert told["difficulty_digest"] != manifest["difficulty_digest"]


def test_training_depends_on_it_and_the_corpus_does_not() -> None:
    run = SimpleNamespace(model="m", condition="easy_to_hard", seed="0", corpus="c")
    digests = {
        rule: [parsed(d).digest(rule, run) for d in ("reference", "base_perplexity")]
        for rule in ("train_adapter", "make_corpus")
    }
    assert len(set(digests["train_adapter"])) == 2
    assert len(set(digests["make_corpus"])) == 1


def test_a_damaged_cache_costs_time_only(tmp_path: Path) -> None:
    checkpoint = material.checkpoint(tmp_path / "m")
    frame = material.examples(12)
    tokens = encoding.Encoder(checkpoint).encode(
        frame["prompt"].to_list(), frame["response"].to_list(), 128
    )
    arguments = (
        checkpoint,
        tokens,
        np.arange(12),
        ["key"],
        tmp_path,
        torch.float32,
        parallel.Group(),
    )
    first = base_perplexity.losses(*arguments)
    (kept,) = (tmp_path / "difficulty").iterdir()
    kept.write_bytes(kept.read_bytes()[:90])
    assert np.array_equal(base_perplexity.losses(*arguments), first)


def test_processes_that_share_a_run_look_into_the_cache_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second process does as the first found, whatever it would find itself."""
    checkpoint = material.checkpoint(tmp_path / "m")
    frame = material.examples(12)
    tokens = encoding.Encoder(checkpoint).encode(
        frame["prompt"].to_list(), frame["response"].to_list(), 128
    )
    rows = np.arange(12)

    def losses(group: parallel.Group, cache: Path) -> np.ndarray:
        return base_perplexity.losses(
            checkpoint, tokens, rows, ["key"], cache, torch.float32, group
        )

    expected = losses(parallel.Group(), tmp_path / "first")
    second = parallel.Group(rank=1, size=2)
    monkeypatch.setattr(parallel.Group, "first", lambda self, value: expected)
    assert np.array_equal(losses(second, tmp_path / "empty"), expected)
    assert not (tmp_path / "empty").exists()
