"""`zpdbench score-run`: complete generations become verdicts, incomplete ones a clear line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from zpdbench import files
from zpdbench import study as studies
from zpdbench.cli import main
from zpdbench.files import sha256_file
from zpdbench.sandbox import Program
from zpdbench.scores import programs

Row = dict[str, Any]
ITEMS, INTERIM = 10, 5
SCHEMA = {
    **dict.fromkeys(("model", "condition", "benchmark", "item_id"), pl.String),
    **dict.fromkeys(("text", "finish_reason", "items"), pl.String),
    **dict.fromkeys(("seed", "step", "sample"), pl.Int64),
    "logprobs": pl.List(pl.Float64),
}


class Grid:
    """A study with its items, and answers to them."""

    def __init__(
        self, folder: Path, root: Path, others: dict[str, Any] | None = None, **gsm8k: Any
    ) -> None:
        self.folder = folder
        config, _ = studies.read_yaml(root / "config" / "mini.yaml")
        for section in config["benchmarks"].values():
            section |= {"items": ITEMS, "interim_items": INTERIM}
        config["benchmarks"]["gsm8k"] |= gsm8k
        if others is not None:
            config |= {"hypotheses": {}, **others}
        study = studies.parse(config)
        self.study_file = folder / "study.yaml"
        self.study_file.write_text(studies.lock_text(study), "utf-8")
        self.steps, self.paths, self.items = study.served_steps, [], {}
        for name in study.benchmarks:
            path = folder / f"{name}.parquet"
            made = ["--study", str(self.study_file), "--benchmark", name, "--out", str(path)]
            assert main(["make-items", *made]) == 0
            self.paths.append(path)
            self.items[name] = pl.read_parquet(path).to_dicts()

    def answers(self, text: Callable[[Row], str], steps: list[int], samples: int = 1) -> list[Row]:
        """Answers to all that is asked; the choices' log-likelihoods favour the right one."""
        rows = []
        for step in steps:
            for name, items in self.items.items():
                for item in items:
                    if step != steps[-1] and not item["interim"]:
                        continue
                    likely = [-float(i != int(item["gold"])) for i in range(len(item["choices"]))]
                    row = {
                        "model": "mini-qwen",
                        "condition": "zpd" if step else "base",
                        "seed": 0,
                        "step": step,
                        "benchmark": name,
                        "item_id": item["item_id"],
                        "finish_reason": "stop",
                        "items": item["digest"],
                        "logprobs": likely,
                    }
                    many = samples if name == "gsm8k" else 1
                    rows += [
                        {**row, "sample": s, "text": text({**item, "sample": s})}
                        for s in range(many)
                    ]
        return rows

    def score(self, rows: list[Row], condition: str = "zpd", out: str = "out.parquet") -> int:
        """Write the answers and score them; the exit code."""
        generations = self.folder / "generations.parquet"
        pl.DataFrame(rows, schema=SCHEMA).write_parquet(generations)
        run = ["--model", "mini-qwen", "--condition", condition, "--seed", "0"]
        files = ["--generations", str(generations), "--items", *map(str, self.paths)]
        out = str(self.folder / out)
        return main(["score-run", "--study", str(self.study_file), *run, *files, "--out", out])


@pytest.fixture
def grid(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Grid:
    monkeypatch.setenv("ZPDBENCH_CACHE", str(tmp_path / "cache"))
    return Grid(tmp_path, root)


def right(item: Row) -> str:
    """The reference answer of an item that is answered by text."""
    doc = json.loads(item["doc"])
    return doc.get("canonical_solution") or doc.get("answer", "") if item["max_tokens"] else ""


def test_reference_answers_are_all_right_and_bytes_repeat(grid: Grid) -> None:
    rows = grid.answers(right, grid.steps)
    assert grid.score(rows) == 0
    table = pl.read_parquet(grid.folder / "out.parquet")
    assert table.height == 4 * (INTERIM * (len(grid.steps) - 1) + ITEMS)
    assert table["correct"].to_list() == [1.0] * table.height
    flexible = table.filter(pl.col("benchmark") == "gsm8k")["correct_flexible"]
    assert flexible.to_list() == [1.0] * flexible.len()
    statuses = table.group_by("benchmark").agg(pl.col("status").unique())
    assert dict(statuses.iter_rows()) == {
        "humaneval": ["passed"],
        "gsm8k": ["ok"],
        "mmlu": ["ok"],
        "kobest": ["ok"],
    }
    # In another order, and with the verdicts remembered: the same bytes.
    assert grid.score(rows[::-1], out="again.parquet") == 0
    first, again = (grid.folder / f for f in ("out.parquet", "again.parquet"))
    assert sha256_file(first) == sha256_file(again)


def test_the_base_is_asked_everything_once(grid: Grid) -> None:
    assert grid.score(grid.answers(lambda _: "", [0]), condition="base") == 0
    table = pl.read_parquet(grid.folder / "out.parquet")
    assert (table.height, table["step"].unique().to_list()) == (4 * ITEMS, [0])
    wrong = table.filter(pl.col("benchmark").is_in(["humaneval", "gsm8k"]))
    assert wrong["correct"].sum() == 0
    assert set(wrong["status"]) == {"failed", "no_answer"}


def test_an_answer_that_was_cut_is_told_from_none(grid: Grid) -> None:
    rows = grid.answers(lambda _: "no number", [0])
    for row in rows:
        row["finish_reason"] = "length"
    assert grid.score(rows, condition="base") == 0
    table = pl.read_parquet(grid.folder / "out.parquet")
    assert set(table.filter(pl.col("benchmark") == "gsm8k")["status"]) == {"truncated"}
    assert set(table["finish_reason"]) == {"length"}, "a program's too"


def test_humaneval_plus_goes_the_same_way(
    tmp_path: Path, root: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZPDBENCH_CACHE", str(tmp_path / "cache"))
    plus = {"humaneval_plus": {"source": "files", "items": 3}}
    grid = Grid(tmp_path, root, {"benchmarks": plus, "data_dir": str(data_dir)})
    wrong = grid.items["humaneval_plus"][1]["item_id"]

    def text(item: Row) -> str:
        return "    return None\n" if item["item_id"] == wrong else right(item)

    assert grid.score(grid.answers(text, [0]), condition="base") == 0
    table = pl.read_parquet(grid.folder / "out.parquet")
    assert table["benchmark"].unique().to_list() == ["humaneval_plus"]
    statuses = dict(table.select("item_id", "status").iter_rows())
    assert len(statuses) == 3
    assert {name for name, status in statuses.items() if status == "failed"} == {wrong}
    assert set(statuses.values()) == {"passed", "failed"}


def test_calibration_and_second_tries_take_the_machine_s_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doc = {
        "prompt": "def f(x):\n",
        "test": "def check(c):\n    assert c(1) == 1\n",
        "entry_point": "f",
    }
    locked, taken = files.locked, []

    def watched(path: Path) -> Any:
        taken.append(path)
        return locked(path)

    monkeypatch.setattr(files, "locked", watched)
    good, slow = (programs.program(doc, f"    {b}\n") for b in ("return x", "while x: pass"))

    def judge(*given: Program, seconds: float | None = None) -> list[str]:
        told = programs.judge(given, [good], workers=1, seconds=seconds, cache=tmp_path)
        return [told[p.key].status for p in given]

    assert judge(good) == ["passed"]
    assert len(taken) == 1 and taken[0].parent == tmp_path, "the limit is measured"
    assert judge(slow) == ["timeout"]
    assert len(taken) == 2 and taken[1] == taken[0], "the limit is known, and the program retried"
    assert judge(good, seconds=5.0) == ["passed"]
    assert len(taken) == 2
    told = programs.judge([slow], [good], workers=1, seconds=0.3)
    assert (told[slow.key].status, told[slow.key].retried) == ("timeout", True)
    assert len(taken) == 2, "without a cache there is no place for a lock"


def test_hellaswag_has_acc_norm_and_kobest_predictions(grid: Grid) -> None:
    assert grid.score(grid.answers(right, [0]), condition="base") == 0
    table = pl.read_parquet(grid.folder / "out.parquet")
    norm = table.filter(pl.col("correct_norm").is_not_null())
    assert set(norm["task"]) == {"kobest_hellaswag"}
    kobest = table.filter(pl.col("benchmark") == "kobest")
    assert kobest["prediction"].to_list() == kobest["gold"].to_list()


def test_choices_have_a_confidence_and_generated_answers_none(grid: Grid) -> None:
    assert grid.score(grid.answers(right, [0]), condition="base") == 0
    table = pl.read_parquet(grid.folder / "out.parquet")
    chosen = table.filter(pl.col("benchmark").is_in(["mmlu", "kobest"]))
    # The right choice at 0 nats, the others at -1: e / (e + n - 1) by number of choices.
    expected = {n: round(1 / (1 + (n - 1) * math.exp(-1)), 6) for n in (2, 4)}
    found = chosen.group_by("benchmark", "task").agg(pl.col("confidence").unique())
    for name, task, values in found.iter_rows():
        four = name == "mmlu" or task == "kobest_hellaswag"
        assert values == [expected[4 if four else 2]]
    text = table.filter(~pl.col("benchmark").is_in(["mmlu", "kobest"]))
    assert text["confidence"].null_count() == text.height > 0


def test_self_consistency_is_one_vote_an_item(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZPDBENCH_CACHE", str(tmp_path / "cache"))
    grid = Grid(tmp_path, root, samples=5, temperature=0.7, self_consistency=True)

    def text(item: Row) -> str:
        wrong = "#### 99999"
        return right(item) if item["benchmark"] != "gsm8k" or item["sample"] > 1 else wrong

    assert grid.score(grid.answers(text, [0], samples=5), condition="base") == 0
    table = pl.read_parquet(grid.folder / "out.parquet").filter(pl.col("benchmark") == "gsm8k")
    assert table.height == ITEMS
    assert table["correct"].to_list() == table["correct_flexible"].to_list() == [1.0] * ITEMS


def _without(rows: list[Row]) -> list[Row]:
    return rows[:3] + rows[4:]


def _twice(rows: list[Row]) -> list[Row]:
    return [*rows, rows[3]]


def _unknown(rows: list[Row]) -> list[Row]:
    return [*rows, {**rows[3], "item_id": "x"}]


def _changed(rows: list[Row]) -> list[Row]:
    return [{**r, "items": "0" * 64} if i == 3 else r for i, r in enumerate(rows)]


def _short(rows: list[Row]) -> list[Row]:
    return [{**r, "logprobs": r["logprobs"][1:]} for r in rows]


def _nan(rows: list[Row]) -> list[Row]:
    return [{**r, "logprobs": [float("nan") for _ in r["logprobs"]]} for r in rows]


def _other(rows: list[Row]) -> list[Row]:
    return [{**r, "condition": "random"} for r in rows]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_without, "humaneval item 'embedded/8': no sample 0"),
        (_twice, "humaneval item 'embedded/8', sample 0: given twice"),
        (_unknown, "humaneval item 'x': unknown item"),
        (_changed, "humaneval item 'embedded/8': the item has changed since"),
        (_short, "1 log-likelihoods of 2 choices"),
        (_nan, "2 log-likelihoods of 2 choices: [nan, nan]"),
        (_other, "no answers of mini-qwen/zpd/0"),
    ],
)
def test_bad_generations_are_one_line(
    grid: Grid, capsys: pytest.CaptureFixture[str], change: Callable[..., Any], expected: str
) -> None:
    capsys.readouterr()
    assert grid.score(change(grid.answers(right, grid.steps))) == 2
    said = [x for x in capsys.readouterr().err.splitlines() if x.startswith("zpdbench")]
    assert len(said) == 1
    assert expected in said[0]
    assert not (grid.folder / "out.parquet").exists()


def test_truncated_generations_are_one_line(grid: Grid, capsys: pytest.CaptureFixture[str]) -> None:
    assert grid.score(grid.answers(right, grid.steps)) == 0
    path = grid.folder / "generations.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    arguments = ["--study", str(grid.study_file), "--model", "mini-qwen", "--condition", "zpd"]
    files = ["--generations", str(path), "--items", *map(str, grid.paths)]
    out = ["--seed", "0", "--out", str(grid.folder / "x.parquet")]
    assert main(["score-run", *arguments, *files, *out]) == 2
    assert "no readable generations" in capsys.readouterr().err
