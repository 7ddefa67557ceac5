"""What benchmarks/ holds a measurement against, and zpd's overhead by the trace's arithmetic."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import polars as pl
import pytest

from tests.adapters import material
from tests.adapters.test_train_adapter import BATCH, STEPS, configuration
from zpdbench import estimate, study
from zpdbench.adapters import decoder, train_adapter


def script(root: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, root / f"benchmarks/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["r4", "ladder"])
def test_zpd_costs_at_most_three_tenths_at_the_default_pool(root: Path, name: str) -> None:
    overhead = script(root, "zpd_overhead")
    settings = study.load(root / f"config/{name}.yaml")
    training, probe = settings.training, settings.corpus.probe
    options = settings.conditions["zpd"].options
    assert options.get("update_every", 500) == 500 and options.get("pool_size", 2048) == 2048
    for model in settings.models:
        tokens = round(estimate.example_tokens(settings, model))
        shape = overhead.shape_of(estimate.parameters(settings, model), 151_936)
        curve = [
            overhead.share(
                shape, tokens, tokens // 2, steps=training.steps, every=500,
                batch=training.batch_size, pool=pool, probe=probe, rank=training.lora.rank,
            )
            for pool in (1024, 2048, 4096)
        ]  # fmt: skip
        assert curve == sorted(curve)
        assert curve[1] <= 0.30, f"{model}: {curve[1]:.1%}"


def test_the_overhead_s_arithmetic_is_what_a_trace_holds(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZPDBENCH_CACHE", str(tmp_path / "cache"))
    checkpoint = material.checkpoint(tmp_path / "m")
    material.examples(150).write_parquet(tmp_path / "c.parquet")
    train_adapter.train(
        study.parse(configuration()),
        model="m",
        condition="zpd",
        seed=0,
        checkpoint=checkpoint,
        corpus=tmp_path / "c.parquet",
        out=tmp_path / "out",
    )
    trace = pl.read_parquet(tmp_path / "out/trace.parquet")
    steps = trace.filter(pl.col("kind") == "step")
    updates = trace.filter(pl.col("kind") == "update")
    shape = decoder.read_shape(checkpoint)
    found = updates["flops"].sum() / steps["flops"].sum()
    # zpd trains on the easier, shorter part of what it scores; the arithmetic has one length.
    longer = updates["tokens_scored"].sum() / (4 * 70) / (steps["tokens"].sum() / (STEPS * BATCH))
    expected = longer * script(root, "zpd_overhead").share(
        shape, steps["tokens"].sum() // (STEPS * BATCH), steps["targets"].sum() // (STEPS * BATCH),
        steps=STEPS, every=6, batch=BATCH, pool=40, probe=30, rank=8,
    )  # fmt: skip
    assert found == pytest.approx(expected, rel=0.1)


def rates(ours: float, trl: float, trainer: float, **more: Any) -> dict[str, dict[str, float]]:
    result = {
        name: {"rate": rate, "peak": 100.0, "loss": 0.0}
        for name, rate in (("ours", ours), ("trl", trl), ("trainer", trainer))
    }
    result["ours"]["peak"] = 30.0
    for key, value in more.items():
        name, what = key.split("_")
        result[name][what] = value
    return result


@pytest.mark.parametrize(
    ("mode", "found", "said"),
    [
        ("rasbt_instruction_1100", rates(1.5, 1.0, 1.2), []),
        ("rasbt_instruction_1100", rates(1.49, 1.0, 1.0), ["1.49 times as fast as trl"]),
        ("rasbt_instruction_1100", rates(1.5, 1.0, 1.21), ["1.24 times as fast as trainer"]),
        ("alpaca_random_9229", rates(1.8, 1.0, 1.3), ["trl, bar 1.9", "trainer, bar 1.5"]),
        ("alpaca_random_9229", rates(2.0, 1.0, 1.0, ours_peak=86.0), ["0.86 of trl's memory"]),
        ("bf16", rates(1.3, 1.0, 1.0, ours_gemm=0.7), []),
        ("bf16", rates(1.3, 1.0, 1.0, ours_gemm=0.69), ["1.30 times as fast as trl, bar 1.35"]),
        ("bf16", rates(1.4, 1.0, 1.0, ours_gemm=0.1, trl_loss=0.01), []),
        ("big vocabulary", rates(1.8, 1.0, 1.0, ours_peak=41.0), ["0.41 of trl's memory, bar 0.4"]),
        ("big vocabulary", rates(1.8, 1.0, 1.0, trl_loss=2e-3), ["loss 0.002 from trl's"]),
        ("big vocabulary", rates(1.8, 1.0, 1.0, trl_loss=float("nan")), ["loss nan from trl's"]),
        ("other", rates(0.1, 1.0, 1.0), []),
    ],
)
def test_a_missed_bar_is_said(
    root: Path, mode: str, found: dict[str, dict[str, float]], said: list[str]
) -> None:
    lines = script(root, "train_speed").missed(mode, found)
    assert len(lines) == len(said)
    assert all(part in line for part, line in zip(said, lines, strict=True)), lines


def test_a_run_s_bars(root: Path) -> None:
    speed = script(root, "train_speed")
    data = Path("some/alpaca_random_9229.json")
    named = [
        speed.mode_of(SimpleNamespace(big_vocabulary=big, bf16=bf16, data=data))
        for big, bf16 in ((False, False), (False, True), (True, False))
    ]
    assert named == ["alpaca_random_9229", "bf16", "big vocabulary"]
    assert all(name in speed.BARS for name in named)
