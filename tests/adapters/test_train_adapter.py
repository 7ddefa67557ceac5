"""Whole runs: fairness between conditions, equal bytes, what a kill costs, what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.adapters import material
from zpdbench import files, study
from zpdbench.adapters import encoding, loop, lora, state, train_adapter
from zpdbench.adapters.encoding import Encoder
from zpdbench.adapters.learner import ModelLearner
from zpdbench.curriculum import conditions
from zpdbench.curriculum.competence import competence, effective_perplexity
from zpdbench.errors import UserError

STEPS, EVERY, BATCH = 24, 8, 4
CONDITIONS: dict[str, dict[str, Any]] = {
    "random": {"order": "random"},
    "easy_to_hard": {"order": "easy_to_hard"},
    "hard_to_easy": {"order": "hard_to_easy"},
    "zpd": {"order": "zpd", "options": {"update_every": 6, "pool_size": 40}},
    "pacing": {"order": "competence_pacing"},
    "procurl": {"order": "success_probability", "options": {"update_every": 6, "pool_size": 40}},
}


def configuration(**training: Any) -> dict[str, Any]:
    return {
        "results": "results",
        "arithmetic": "portable",  # as this process computes
        "seeds": [0, 1],
        "models": {"m": {"source": "local", "path": "m"}},
        "conditions": CONDITIONS,
        "corpus": {"name": "c", "sources": {"e": {"format": "embedded"}}, "probe": 8},
        "training": {
            "steps": STEPS,
            "evaluate_every": EVERY,
            "batch_size": BATCH,
            "learning_rate": 1e-3,
            "max_tokens": 128,
            **training,
        },
        "benchmarks": {"gsm8k": {"source": "embedded", "items": 4}},
        "hypotheses": {},
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint and a corpus that all tests of this module share."""
    root = tmp_path_factory.mktemp("world")
    material.checkpoint(root / "m")
    material.examples(150).write_parquet(root / "c.parquet")
    return root


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZPDBENCH_CACHE", str(tmp_path / "cache"))


Train = Callable[..., Path]


@pytest.fixture
def train(world: Path, tmp_path: Path) -> Train:
    def run(condition: str = "random", seed: int = 0, out: str = "out", **training: Any) -> Path:
        corpus = training.pop("corpus", world / "c.parquet")
        checkpoint = training.pop("checkpoint", world / "m")
        config = configuration(**training)
        train_adapter.train(
            study.parse(config),
            model="m",
            condition=condition,
            seed=seed,
            checkpoint=checkpoint,
            corpus=corpus,
            out=tmp_path / out,
        )
        return tmp_path / out

    return run


def contents(folder: Path) -> dict[str, bytes]:
    """All bytes that are promised."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and ".timing." not in p.name
    }


def realised(folder: Path) -> list[str]:
    """Ids in the order trained, read back from the trace."""
    trace = pl.read_parquet(folder / "trace.parquet").filter(pl.col("kind") == "step")
    assert trace["step"].to_list() == list(range(1, STEPS + 1))
    return [i for batch in trace["examples"].to_list() for i in batch]


def test_what_a_run_writes(train: Train) -> None:
    out = train("zpd")
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == ["step16", "step24", "step8"]
    manifest = files.check_manifest(out)
    assert manifest["steps"] == [8, 16, 24]
    assert manifest["examples_train"] == 120 and manifest["examples_probe"] == 30
    assert not any(".timing." in name for name in manifest["files"])
    assert str(out.parent) not in (out / "step8/adapter_config.json").read_text()
    trace = pl.read_parquet(out / "trace.parquet")
    assert not any("second" in c or "time" in c for c in trace.columns)
    updates = trace.filter(pl.col("kind") == "update")
    assert updates["step"].to_list() == [0, 6, 12, 18]
    for column in ("competence", "perplexity_smoothed", "alpha", "occupancy", "coverage"):
        assert updates[column].null_count() == 0
    assert (updates["tokens_scored"] > 0).all() and (updates["flops"] > 0).all()
    steps = trace.filter(pl.col("kind") == "step")
    assert (steps["flops"] > 0).all() and (steps["tokens"] > steps["targets"]).all()
    assert steps["loss"][-1] < steps["loss"][0]
    timing = json.loads((out / "train.timing.json").read_text())
    assert timing["seconds"] > 0 and timing["resumed"] == 0


def test_conditions_of_a_seed_differ_in_order_only(train: Train, world: Path) -> None:
    corpus = pl.read_parquet(world / "c.parquet")
    difficulty = dict(zip(corpus["id"], corpus["difficulty"], strict=True))
    probe = set(corpus.filter(pl.col("split") == "probe")["id"])
    folders = {c: train(c, out=c) for c in CONDITIONS}
    orders = {c: realised(f) for c, f in folders.items()}
    multiset = Counter(orders["random"])
    assert sum(multiset.values()) == STEPS * BATCH
    for condition, order in orders.items():
        assert len(order) == STEPS * BATCH
        assert not set(order) & probe, "the probe is never trained on"
        assert set(order) <= set(multiset), f"{condition} took examples that random has not"
    for condition in ("easy_to_hard", "hard_to_easy"):
        assert Counter(orders[condition]) == multiset
        assert orders[condition] != orders["random"]
    rising = [difficulty[i] for i in orders["easy_to_hard"]]
    falling = [difficulty[i] for i in orders["hard_to_easy"]]
    assert rising == sorted(rising) and falling == sorted(falling, reverse=True)

    traces = {c: pl.read_parquet(f / "trace.parquet") for c, f in folders.items()}
    rates = {c: t.filter(pl.col("kind") == "step")["learning_rate"] for c, t in traces.items()}
    assert all(r.equals(rates["random"]) for r in rates.values()), "one schedule for all"
    steps = {c: files.read_manifest(f)["steps"] for c, f in folders.items()}
    assert len({tuple(s) for s in steps.values()}) == 1, "one set of evaluation points for all"

    for condition in ("zpd", "procurl"):
        updates = traces[condition].filter(pl.col("kind") == "update")
        assert updates["step"].to_list() == [0, 6, 12, 18]
        seen: set[str] = set()
        for k, row in enumerate(updates.iter_rows(named=True)):
            block = orders[condition][k * 6 * BATCH : (k + 1) * 6 * BATCH]
            assert row["block"] == len(block)
            assert max(Counter(block).values()) == row["repeats_max"] <= 4
            assert row["distinct"] == len(set(block))
            seen |= set(block)
            assert row["coverage"] == pytest.approx(len(seen) / (len(corpus) - len(probe)))
    zpd = traces["zpd"].filter(pl.col("kind") == "update")
    for row in zpd.iter_rows(named=True):
        assert 0 <= row["fallback"] <= 1 and row["occupancy"] == row["inside"] / row["pool"]


@pytest.mark.parametrize("condition", ["zpd", "procurl"])
def test_the_limit_on_repeats_binds(
    train: Train, monkeypatch: pytest.MonkeyPatch, condition: str
) -> None:
    """A pool of just a block's size over the limit: every candidate is taken exactly so often."""
    options = {"update_every": 6, "pool_size": 12, "max_repeats": 2}
    monkeypatch.setitem(CONDITIONS, condition, {**CONDITIONS[condition], "options": options})
    out = train(condition)
    order = realised(out)
    updates = pl.read_parquet(out / "trace.parquet").filter(pl.col("kind") == "update")
    for k, row in enumerate(updates.iter_rows(named=True)):
        counts = Counter(order[k * 6 * BATCH : (k + 1) * 6 * BATCH])
        assert set(counts.values()) == {2} and len(counts) == 12 == row["distinct"]
        assert row["repeats_max"] == 2


def test_membership_in_the_window_is_read_back_from_what_was_scored(
    train: Train, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[tuple[list[str], np.ndarray]] = []
    original = ModelLearner.score

    def score(self: ModelLearner, rows: Any) -> Any:
        found = original(self, rows)
        value = effective_perplexity(competence(found.loss, found.confidence, found.entropy))
        assert self.ids is not None
        scored.append(([self.ids[int(r)] for r in rows], value))
        return found

    monkeypatch.setattr(ModelLearner, "score", score)
    out = train("zpd")
    updates = pl.read_parquet(out / "trace.parquet").filter(pl.col("kind") == "update")
    order = realised(out)
    corpus = pl.read_parquet(world / "c.parquet")
    tokens = Encoder(world / "m").encode(
        corpus["prompt"].to_list(), corpus["response"].to_list(), 128
    )
    lengths = dict(zip(corpus["id"], (tokens.lengths - tokens.prompts).tolist(), strict=True))
    assert len(scored) == len(updates) == 4
    for k, (row, (pool, value)) in enumerate(
        zip(updates.iter_rows(named=True), scored, strict=True)
    ):
        block = Counter(order[k * 6 * BATCH : (k + 1) * 6 * BATCH])
        inside = {i for i, v in zip(pool, value, strict=True) if row["low"] <= v <= row["high"]}
        assert set(block) <= set(pool) and row["inside"] == len(inside)
        low = {i for i, v in zip(pool, value, strict=True) if v < row["low"]}
        below = sum(n for i, n in block.items() if i in low)
        assert below == pytest.approx(row["fallback_below"] * row["block"])
        assert row["pool_tokens"] == pytest.approx(np.mean([lengths[i] for i in pool]))
        drawn = [lengths[i] for i in block.elements()]
        assert row["drawn_tokens"] == pytest.approx(np.mean(drawn))
        outside = {i: n for i, n in block.items() if i not in inside}
        assert sum(outside.values()) == pytest.approx(row["fallback"] * row["block"])
        if outside:
            # The window is used up before anything else comes, and then the nearest first.
            assert all(block[i] == 4 for i in inside)
            away = {
                i: max(row["low"] / v, v / row["high"])
                for i, v in zip(pool, value, strict=True)
                if i not in inside
            }
            limit = max(away[i] for i in outside)
            assert all(i in outside for i, d in away.items() if d < limit - 1e-9)


def test_pacing_s_realised_order_keeps_to_its_competence(train: Train, world: Path) -> None:
    corpus = pl.read_parquet(world / "c.parquet")
    difficulty = dict(zip(corpus["id"], corpus["difficulty"], strict=True))
    out = train("pacing")
    easiest = sorted(difficulty[i] for i in set(realised(train("random", out="random"))))
    updates = pl.read_parquet(out / "trace.parquet").filter(pl.col("kind") == "update")
    told = {r["step"]: json.loads(r["facts"]) for r in updates.iter_rows(named=True)}
    assert len(told) == STEPS // 2, "20 blocks or fewer, each of two steps"
    for t, start in enumerate(range(0, STEPS * BATCH, BATCH)):
        c = min(1.0, np.sqrt(t * (1 - 0.01**2) / (STEPS / 2) + 0.01**2))
        if t in told:
            assert told[t]["pacing"] == pytest.approx(c)
        allowed = max(int(np.ceil(c * len(easiest))), BATCH)
        batch = realised(out)[start : start + BATCH]
        assert max(difficulty[i] for i in batch) <= easiest[allowed - 1]


class Quiet(conditions.Condition):
    """Scores and says nothing of it."""

    def block(self, step: int, learner: conditions.Learner) -> conditions.Block:
        learner.score(self.told.drawn[:3])
        return conditions.Block(self.told.drawn[step * BATCH :])


def test_scoring_is_charged_though_the_condition_says_nothing(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditions, "Random", Quiet)
    trace = pl.read_parquet(train("random") / "trace.parquet")
    (update,) = trace.filter(pl.col("kind") == "update").iter_rows(named=True)
    assert update["tokens_scored"] > 0 and update["flops"] > 0 and update["block"] == STEPS * BATCH


def test_training_imports_neither_transformers_nor_the_compiler(
    world: Path, tmp_path: Path
) -> None:
    config = tmp_path / "study.yaml"
    config.write_text(study.lock_text(study.parse(configuration(steps=2, evaluate_every=1))))
    code = (
        "import sys; from zpdbench import cli; cli.main(sys.argv[1:]); "
        "print(*(m for m in ('transformers', 'torch._dynamo', 'accelerate', 'peft') "
        "if m in sys.modules))"
    )
    command = [sys.executable, "-c", code, "train-adapter", "--study", str(config)]
    command += ["--checkpoint", str(world / "m"), "--corpus", str(world / "c.parquet")]
    command += ["--model", "m", "--condition", "zpd", "--seed", "0", "--out", str(tmp_path / "o")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


def test_a_response_that_holds_the_end_token_is_counted(
    train: Train, world: Path, tmp_path: Path
) -> None:
    corpus = pl.read_parquet(world / "c.parquet")
    assert files.read_manifest(train(out="none"))["examples_ended_early"] == 0
    early = corpus.with_columns(
        response=pl.when(pl.col("split") == "train")
        .then(pl.col("response") + "<|end|> and more")
        .otherwise(pl.col("response"))
    )
    early.write_parquet(tmp_path / "early.parquet")
    manifest = files.read_manifest(train(out="early", corpus=tmp_path / "early.parquet"))
    assert manifest["examples_ended_early"] == manifest["examples_used"] > 0


def test_initial_weights_are_the_seed_s(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[tuple[str, int], torch.Tensor] = {}
    resume = loop.Run.resume

    def look(self: loop.Run) -> int:
        seen[self.condition.__class__.__name__, self.settings.seed] = self.optimiser.values.clone()
        return resume(self)

    monkeypatch.setattr(loop.Run, "resume", look)
    for seed in (0, 1):
        for condition in CONDITIONS:
            train(condition, seed, steps=1, evaluate_every=1)
    first = seen["Random", 0]
    zero = [weights for (_, seed), weights in seen.items() if seed == 0]
    assert len(zero) == len(CONDITIONS) == 6
    assert all(torch.equal(first, weights) for weights in zero)
    assert not torch.equal(first, seen["Random", 1])


def test_same_seed_same_bytes_and_another_seed_another_subset(train: Train) -> None:
    first = contents(train("zpd", out="a"))
    assert contents(train("zpd", out="b")) == first
    other = train("zpd", seed=1, out="c")
    assert (
        contents(other)["step24/adapter_model.safetensors"]
        != (first["step24/adapter_model.safetensors"])
    )


class KilledError(Exception):
    """Stands for a kill: nothing after it runs in the loop."""


@pytest.mark.parametrize("condition", ["random", "zpd", "procurl"])
def test_a_killed_run_ends_in_the_same_bytes(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, condition: str
) -> None:
    expected = contents(train(condition, out="undisturbed"))
    original = loop.Run._step
    done: list[int] = []
    kill_at = 0

    def step(self: loop.Run, rows: Any) -> float:
        if self.progress.step == kill_at:
            raise KilledError
        done.append(self.progress.step)
        return original(self, rows)

    monkeypatch.setattr(loop.Run, "_step", step)
    for kill in sorted(np.random.default_rng(5).choice(STEPS, 10, replace=False).tolist()):
        kill_at, done[:] = kill, []
        with pytest.raises(KilledError):
            train(condition, out="killed")
        assert not (tmp_path / "killed").exists()
        # At most what came after the last evaluation point is done again.
        assert not done or done[0] >= (kill // EVERY) * EVERY - EVERY
    kill_at, done[:] = -1, []
    assert contents(train(condition, out="killed")) == expected
    assert done[0] == 16, "the last kill was after step 16: the rest alone is trained"
    assert not list((tmp_path / "cache/training").iterdir()), "a finished run leaves no state"


def test_a_null_control_s_run_is_random_order_of_other_examples(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONDITIONS, "null", {"order": "random", "options": {"draw": 1}})
    null, shared = train("null"), train("random", out="random")
    drawn, own = (Counter(realised(folder)) for folder in (shared, null))
    assert len(own) == len(drawn) == STEPS * BATCH
    assert own != drawn
    assert contents(train("null", out="again")) == contents(null)
    trace = pl.read_parquet(null / "trace.parquet")
    (update,) = trace.filter(pl.col("kind") == "update").iter_rows(named=True)
    assert (update["step"], update["tokens_scored"], update["facts"]) == (0, 0, '{"draw": 1}')
    assert trace["flops"].sum() > 0
    assert not any("fixed" in s or "almost" in s for s in files.read_manifest(null)["diagnosis"])
    # Both start from the seed's adapter: nothing else is another.
    first, second = (
        pl.read_parquet(f / "trace.parquet").filter(pl.col("kind") == "step")["learning_rate"]
        for f in (null, shared)
    )
    assert first.equals(second)


@pytest.mark.parametrize(("alpha", "side"), [(0.001, "above"), (50.0, "below")])
def test_a_window_that_is_not_fed_is_told_once_a_run(
    train: Train,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    alpha: float,
    side: str,
) -> None:
    """As it happens, also when the run is stopped and taken up again."""
    options = {**CONDITIONS["zpd"]["options"], "alpha": alpha, "beta": alpha, "adaptive": False}
    monkeypatch.setitem(CONDITIONS, "zpd", {"order": "zpd", "options": options})
    original = loop.Run._step

    def step(self: loop.Run, rows: Any) -> float:
        if self.progress.step == 9 and not self.progress.resumed:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, rows)

    monkeypatch.setattr(loop.Run, "_step", step)
    with pytest.raises(SystemExit):
        train("zpd")
    (said,) = [s for s in capsys.readouterr().err.splitlines() if "warning" in s]
    assert said.startswith("warning: step 0: the window is not fed: it holds 0% of the pool, so")
    assert f"100% of the block comes from outside, {side} it" in said
    out = train("zpd")
    assert "warning" not in capsys.readouterr().err
    updates = pl.read_parquet(out / "trace.parquet").filter(pl.col("kind") == "update")
    assert updates["fallback"].to_list() == [1.0] * 4
    assert updates["fallback_below"].to_list() == [float(side == "below")] * 4
    assert any(side in s for s in files.read_manifest(out)["diagnosis"])
    monkeypatch.setattr(loop.Run, "_step", original)
    train("random", out="other")
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("kill", [0, 3, 8, 11, 22])
def test_sigterm_saves_at_that_very_step(
    train: Train, monkeypatch: pytest.MonkeyPatch, kill: int
) -> None:
    expected = contents(train("zpd", out="undisturbed"))
    original = loop.Run._step
    done: list[int] = []
    armed = True

    def step(self: loop.Run, rows: Any) -> float:
        if armed and self.progress.step == kill:
            os.kill(os.getpid(), signal.SIGTERM)
        done.append(self.progress.step)
        return original(self, rows)

    monkeypatch.setattr(loop.Run, "_step", step)
    with pytest.raises(SystemExit) as stopped:
        train("zpd")
    assert stopped.value.code == 143
    armed, done[:] = False, []
    assert contents(train("zpd")) == expected
    assert done == list(range(kill + 1, STEPS))


def test_kill_9_of_the_process(world: Path, tmp_path: Path, train: Train) -> None:
    steps = {"steps": 400, "evaluate_every": 20}
    expected = contents(train("random", out="undisturbed", **steps))
    config = tmp_path / "study.yaml"
    config.write_text(study.lock_text(study.parse(configuration(**steps))))
    command = [sys.executable, "-m", "zpdbench.cli", "train-adapter", "--study", str(config)]
    command += ["--checkpoint", str(world / "m"), "--corpus", str(world / "c.parquet")]
    command += ["--model", "m", "--condition", "random", "--seed", "0"]
    command += ["--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    state = tmp_path / "cache/training"
    deadline = time.monotonic() + 120
    while not list(state.glob("*/state.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "out").exists()
    subprocess.run(command, check=True, capture_output=True)
    assert contents(tmp_path / "out") == expected
    assert json.loads((tmp_path / "out/train.timing.json").read_text())["resumed"] == 1


def test_a_damaged_state_costs_time_only(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = contents(train(out="undisturbed"))
    original = loop.Run._step

    def step(self: loop.Run, rows: Any) -> float:
        if self.progress.step == 20:
            raise KilledError
        return original(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "_step", step)
        with pytest.raises(KilledError):
            train()
    (saved,) = (tmp_path / "cache/training").glob("*/state.safetensors")
    saved.write_bytes(saved.read_bytes()[:100])
    assert contents(train()) == expected


def test_a_changed_trainer_does_not_go_on_with_an_older_state(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = loop.Run._step
    done: list[int] = []
    kill_at = 20

    def step(self: loop.Run, rows: Any) -> float:
        if self.progress.step == kill_at:
            raise KilledError
        done.append(self.progress.step)
        return original(self, rows)

    monkeypatch.setattr(loop.Run, "_step", step)
    with pytest.raises(KilledError):
        train()
    assert list((tmp_path / "cache/training").glob("*/state.safetensors"))
    # As if one of the modules that the numbers come from had been edited.
    sources = tmp_path / "sources"
    sources.mkdir()
    for name in state._TRAINER:
        (sources / f"{name}.py").write_bytes(
            Path(state.__file__).with_name(f"{name}.py").read_bytes()
        )
    before = state.trainer()
    monkeypatch.setattr(state, "__file__", str(sources / "state.py"))
    assert state.trainer() == before
    (sources / "lora.py").write_text("# other sums\n")
    kill_at, done[:] = -1, []
    train()
    assert done[0] == 0


def test_gradient_accumulation_is_the_large_batch(train: Train) -> None:
    whole = load_file(train(out="whole") / "step24/adapter_model.safetensors")
    parts = load_file(train(out="parts", micro_batch=1) / "step24/adapter_model.safetensors")
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=2e-5)


def test_dropout_is_resumable(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    lora = {"dropout": 0.2}
    expected = contents(train("zpd", out="undisturbed", lora=lora))
    assert expected != contents(train("zpd", out="without"))
    original = loop.Run._step

    def step(self: loop.Run, rows: Any) -> float:
        if self.progress.step == 13:
            raise KilledError
        return original(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "_step", step)
        with pytest.raises(KilledError):
            train("zpd", lora=lora)
    assert contents(train("zpd", lora=lora)) == expected


def test_what_the_limit_costs_is_counted(train: Train, world: Path, tmp_path: Path) -> None:
    """Cut prompts and their tokens are those trained on; too long responses are never."""
    corpus = pl.read_parquet(world / "c.parquet")
    names = corpus.filter(pl.col("split") == "train")["id"].to_list()
    long_prompts, long_responses = names[::3], names[1::12]
    many = {"prompt": (long_prompts, 8), "response": (long_responses, 30)}
    for column, (chosen, times) in many.items():
        repeated = pl.col(column).repeat_by(times).list.join(" ")
        kept = pl.col(column)
        corpus = corpus.with_columns(
            pl.when(pl.col("id").is_in(chosen)).then(repeated).otherwise(kept).alias(column)
        )
    corpus.write_parquet(tmp_path / "long.parquet")
    out = train("random", corpus=tmp_path / "long.parquet", max_tokens=96)
    tokens = Encoder(world / "m").encode(
        corpus["prompt"].to_list(), corpus["response"].to_list(), 96
    )
    at = {name: row for row, name in enumerate(corpus["id"])}
    used = [at[name] for name in set(realised(out))]
    manifest = files.read_manifest(out)
    assert manifest["examples_too_long"] == len(long_responses)
    assert manifest["examples_train"] == len(names) - len(long_responses)
    assert not set(realised(out)) & set(long_responses)
    cut = [int(tokens.cut[row]) for row in used if tokens.cut[row]]
    assert manifest["examples_cut"] == len(cut) > 0
    assert manifest["tokens_cut"] == sum(cut)


def test_a_run_encodes_its_corpus_once(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another condition and seed map the first one's tokens into memory."""
    first = contents(train("random", out="first"))
    (entry,) = (tmp_path / "cache/tokens").iterdir()
    before = {p.name: p.stat().st_mtime_ns for p in entry.iterdir()}
    mapped: list[bool] = []
    original = encoding.load_or_encode

    def load(*arguments: Any) -> Any:
        tokens = original(*arguments)
        mapped.append(isinstance(tokens.ids, np.memmap))
        return tokens

    def encode(*_: Any, **__: Any) -> Any:
        raise AssertionError("encoded again")

    monkeypatch.setattr(encoding, "load_or_encode", load)
    monkeypatch.setattr(Encoder, "encode", encode)
    train("zpd", 1, out="second")
    assert contents(train("random", out="third")) == first
    assert mapped == [True, True]
    assert {p.name: p.stat().st_mtime_ns for p in entry.iterdir()} == before


def test_a_short_corpus_wraps(train: Train, world: Path, tmp_path: Path) -> None:
    small = pl.read_parquet(world / "c.parquet")[:50]
    small.write_parquet(tmp_path / "small.parquet")
    out = train("random", corpus=tmp_path / "small.parquet")
    counts = Counter(realised(out))
    assert len(counts) == 40 and set(counts.values()) == {2, 3}
    assert files.read_manifest(out)["passes"] == pytest.approx(96 / 40)


def test_a_loss_that_is_no_number_names_the_example_and_keeps_the_state(
    train: Train, world: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "bad"
    checkpoint.mkdir()
    for path in (world / "m").iterdir():
        (checkpoint / path.name).write_bytes(path.read_bytes())
    token = Encoder(checkpoint).tokenizer.token_to_id("@")
    weights = load_file(checkpoint / "model.safetensors")
    weights["model.embed_tokens.weight"][token] = float("nan")
    # Tied: a head row of NaN would spoil every example; untie so that the input alone is bad.
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].nan_to_num(0.0)
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((checkpoint / "config.json").read_text())
    config["tie_word_embeddings"] = False
    (checkpoint / "config.json").write_text(json.dumps(config))
    files.write_manifest(checkpoint, {})
    corpus = pl.read_parquet(world / "c.parquet").sort("difficulty")
    victim = corpus.filter(pl.col("split") == "train")["id"][60]
    corpus.with_columns(
        prompt=pl.when(pl.col("id") == victim)
        .then(pl.lit("@ what is it?"))
        .otherwise(pl.col("prompt"))
    ).write_parquet(tmp_path / "c.parquet")
    seeds = range(20)
    for seed in seeds:
        try:
            train("easy_to_hard", seed, corpus=tmp_path / "c.parquet", checkpoint=checkpoint)
        except UserError as error:
            assert "loss is not finite at step" in str(error)
            assert victim in str(error)
            (saved,) = (tmp_path / "cache/training").glob("*/state.safetensors")
            kept = load_file(saved)
            assert all(torch.isfinite(v).all() for v in kept.values())
            return
    pytest.fail("the example was never trained on")


def test_a_gradient_that_is_no_number_names_the_batch_and_keeps_the_state(
    train: Train, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is finite, its gradient overflows."""
    trained: list[list[str]] = []
    original = loop.Run._step

    def step(self: loop.Run, rows: Any) -> float:
        if self.progress.step == 13:
            trained.append([self.condition.told.ids[int(r)] for r in rows])
            for module in self.model.modules():
                if isinstance(module, lora.LoraLinear):
                    module.lora_b.register_hook(lambda g: torch.full_like(g, float("inf")))
                    break
        return original(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "_step", step)
        with pytest.raises(UserError, match="gradient is not finite at step 14") as caught:
            train("random")
    said = str(caught.value)
    assert trained and all(name in said for name in trained[0])
    assert "starts anew" in said and "go on from step 13" in said
    (saved,) = (tmp_path / "cache/training").glob("*/state.safetensors")
    assert str(saved.parent) in said
    kept = load_file(saved)
    assert all(torch.isfinite(kept[n]).all() for n in ("first", "second"))
    # Another rate is another run.
    lower = train("random", out="lower", learning_rate=5e-4)
    assert json.loads((lower / "train.timing.json").read_text())["resumed"] == 0


Change = Callable[[pl.DataFrame], pl.DataFrame]
BAD_CORPORA: dict[str, tuple[Change, str]] = {
    "missing column": (lambda f: f.drop("response"), "no column response"),
    "empty response": (
        lambda f: f.with_columns(
            response=pl.when(pl.col("id") == "x00007")
            .then(pl.lit(" "))
            .otherwise(pl.col("response"))
        ),
        r"response of row 8 \(id x00007\) is empty",
    ),
    "difficulty": (
        lambda f: f.with_columns(
            difficulty=pl.when(pl.col("id") == "x00002").then(None).otherwise(pl.col("difficulty"))
        ),
        r"difficulty of row 3 \(id x00002\)",
    ),
    "no probe": (lambda f: f.filter(pl.col("split") == "train"), "0 as probe"),
    "nothing to train on": (lambda f: f.filter(pl.col("split") == "probe"), "0 are left to train"),
}


@pytest.mark.parametrize("name", BAD_CORPORA)
def test_bad_corpora(train: Train, world: Path, tmp_path: Path, name: str) -> None:
    change, message = BAD_CORPORA[name]
    change(pl.read_parquet(world / "c.parquet")).write_parquet(tmp_path / "c.parquet")
    with pytest.raises(UserError, match=message):
        train(corpus=tmp_path / "c.parquet")


def test_other_mistakes(train: Train, world: Path, tmp_path: Path) -> None:
    (tmp_path / "no.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="no readable Parquet"):
        train(corpus=tmp_path / "no.parquet")
    with pytest.raises(UserError, match="no 'zdp' under conditions"):
        train("zdp")
    with pytest.raises(UserError, match="no module 'query'"):
        train(lora={"target_modules": ["query"]})
    corpus = pl.read_parquet(world / "c.parquet")
    long = corpus.with_columns(response=pl.col("response").repeat_by(10).list.join(" "))
    long.write_parquet(tmp_path / "long.parquet")
    with pytest.raises(UserError, match="exceeds 16 tokens"):
        train(corpus=tmp_path / "long.parquet", max_tokens=16)
