"""What a plan tells of the window before training is what the run then finds."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from tests.adapters import material
from tests.adapters.test_train_adapter import configuration
from zpdbench import study
from zpdbench.adapters import first_update, train_adapter
from zpdbench.curriculum.conditions import UPDATE_FACTS

ZPD = {"order": "zpd", "options": {"update_every": 6, "pool_size": 40, "alpha": 0.5, "beta": 2.0}}
STARVED = {"order": "zpd", "options": {"update_every": 6, "pool_size": 40, "alpha": 9, "beta": 9}}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> study.Study:
    """A study whose base model and corpus are in its results folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZPDBENCH_CACHE", str(tmp_path / "cache"))
    config = configuration()
    config["conditions"] = {"random": {"order": "random"}, "zpd": ZPD, "starved": STARVED}
    material.checkpoint(tmp_path / "results/checkpoints/m")
    Path("results/corpora").mkdir()
    material.examples(150).write_parquet("results/corpora/c.parquet")
    Path("results/study.lock.yaml").write_text(yaml.safe_dump(config), "utf-8")
    return study.parse(config)


@pytest.mark.parametrize("condition", ["zpd", "starved"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_first_update_is_the_run_s(
    made: study.Study, tmp_path: Path, condition: str, seed: int
) -> None:
    paths = Path("results/checkpoints/m"), Path("results/corpora/c.parquet")
    (told,) = first_update.facts(made, [condition], seed, *paths)
    train_adapter.train(
        made,
        model="m",
        condition=condition,
        seed=seed,
        checkpoint=paths[0],
        corpus=paths[1],
        out=tmp_path / "out",
    )
    trace = pl.read_parquet(tmp_path / "out/trace.parquet")
    first: dict[str, Any] = trace.filter(pl.col("kind") == "update").row(0, named=True)
    assert first["step"] == 0
    for name in UPDATE_FACTS:
        assert told[name] == pytest.approx(first[name], rel=1e-5), name


def test_the_lines_say_where_the_pool_lies_and_warn_of_a_window_that_is_not_fed(
    made: study.Study,
) -> None:
    zpd, starved, warning = first_update.lines(made)  # the first of the two is fed
    assert zpd.startswith("window before training, zpd in m, s0: ")
    assert "holds 0% of the pool (100% below it, easier; 0% above it, harder)" in starved
    assert "of the first block 0% from inside" in starved
    assert warning.startswith("warning: starved in m, s0, before training: the window is not fed")
    assert "below it: easier than meant" in warning


def test_what_is_not_looked_at_is_told(made: study.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = made.model_copy(update={"corpus": made.corpus.model_copy(update={"probe": 9})})
    (said,) = first_update.lines(changed)
    assert "not told, results holds another configuration's" in said
    none = made.model_copy(update={"conditions": {"random": made.conditions["random"]}})
    assert list(first_update.lines(none)) == []

    monkeypatch.setattr(first_update, "UNASKED", 0.0)
    (said,) = first_update.lines(made)
    assert "floating-point operations; `plan --window` tells it" in said
    assert len(list(first_update.lines(made, asked=True))) == 3

    original = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "torch":
            raise ModuleNotFoundError("no torch", name="torch")
        return original(name, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", without)
        (said,) = first_update.lines(made, asked=True)
    assert said.endswith("not told, torch is not installed here")

    Path("results/corpora/c.parquet").unlink()
    (said,) = first_update.lines(made)
    assert "told once results/checkpoints/m and results/corpora/c.parquet are made" in said


def test_plan_prints_them(made: study.Study, capsys: pytest.CaptureFixture[str]) -> None:
    from zpdbench import cli

    plan = ["plan", "--configfile", "results/study.lock.yaml", "--core-gflops", "50"]
    assert cli.main([*plan, "--hardware", "cpu", "--window"]) == 0
    said = capsys.readouterr().out
    assert "window before training, zpd in m, s0: " in said
    assert "warning: starved in m, s0, before training: the window is not fed" in said
