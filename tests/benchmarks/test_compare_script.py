"""The comparison with the harness: what it takes for equal."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "compare_with_harness.py"
ASK = ["gsm8k:1", "kobest_hellaswag:2"]
PROGRAMS = ["humaneval:2"]
ADAPTERS = ["base", "1"]


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("compare_with_harness", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _programs(script: Any) -> list[dict[str, Any]]:
    return [
        script.row(adapter, "humaneval", n, f"h{n}", text="    pass\n")
        for adapter in ADAPTERS
        for n in range(2)
    ]


def _rows(script: Any) -> list[dict[str, Any]]:
    exact = {"exact_match,strict-match": 1.0, "exact_match,flexible-extract": 1.0}
    rows = []
    for adapter in ADAPTERS:
        rows.append(script.row(adapter, "gsm8k", 0, "g", text="#### 1", scores=exact))
        for n in range(2):
            scores = {"acc": 1.0, "acc_norm": 0.0, "f1": ("0", "0")}
            logprobs = [-1.0, -2.0]
            rows.append(
                script.row(adapter, "kobest_hellaswag", n, "k", logprobs=logprobs, scores=scores)
            )
    return script._with_f1(rows, script._macro_f1)


def _compare(script: Any, folder: Path, *sides: list[dict[str, Any]], **more: Any) -> int:
    for name, rows in zip(("one", "other"), sides, strict=True):
        script.write(str(folder / name), rows)
    files = {"one": str(folder / "one"), "other": str(folder / "other")}
    asked = {"data": None, "ask": ASK, "adapters": ADAPTERS, "seconds": 3.0}
    asked |= {"bare_first_space": False, **more}
    return script.compare(argparse.Namespace(**files, **asked))


def test_equal_sides_are_equal(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _compare(script, tmp_path, _rows(script), _rows(script)) == 0
    told = capsys.readouterr().out.splitlines()
    assert "1\tkobest_hellaswag\tf1\t1\t1\t1.0000\t1.0000" in told


def test_both_sides_programs_are_run(
    script: Any, tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = _programs(script), _programs(script)
    # Its own reference solution, on one side only.
    other[0]["text"] = "    return any(\n        abs(a - b) < threshold\n" + (
        "        for i, a in enumerate(numbers)\n        for b in numbers[:i]\n    )\n"
    )
    given = {"data": str(data_dir), "ask": PROGRAMS}
    assert _compare(script, tmp_path, one, other, **given) == 1
    told = capsys.readouterr().out.splitlines()
    assert "base\thumaneval\tpass@1\t2\t1\t0.0000\t0.5000" in told
    assert "1\thumaneval\tpass@1\t2\t2\t0.0000\t0.0000" in told
    assert _compare(script, tmp_path, one, other, ask=PROGRAMS) == 2, "there is nothing to run"


@pytest.mark.parametrize(
    "task, change",
    [
        ("gsm8k", {"prompt": "another"}),
        ("gsm8k", {"text": "#### 2"}),
        ("gsm8k", {"scores": {"exact_match,strict-match": 1.0}}),
        ("gsm8k", {"scores": {}}),
        ("gsm8k", {"adapter": "2"}),
        ("gsm8k", {"doc": 1}),
        ("kobest_hellaswag", {"logprobs": [-1.0, -2.01]}),
        ("kobest_hellaswag", {"logprobs": [-1.0]}),
        ("kobest_hellaswag", {"scores": {"acc": 1.0, "acc_norm": 1.0}}),
    ],
)
def test_any_difference_is_found(
    script: Any, tmp_path: Path, task: str, change: dict[str, Any]
) -> None:
    rows = _rows(script)
    at = next(n for n, r in enumerate(rows) if r["task"] == task)
    rows[at] = {**rows[at], **change}
    assert _compare(script, tmp_path, _rows(script), rows) == 1


def test_another_macro_f1_is_found(script: Any, tmp_path: Path) -> None:
    rows = _rows(script)
    assert rows[-1]["scores"] == {"f1": 1.0}
    assert _compare(script, tmp_path, _rows(script), rows[:-1]) == 1
    rows[-1]["scores"] = {"f1": 0.9}
    assert _compare(script, tmp_path, _rows(script), rows) == 1


def test_a_first_space_may_be_lacking_on_the_first_side_only(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = _rows(script)
    spaced = [{**r, "text": " " + r["text"]} if r["text"] else r for r in rows]
    assert _compare(script, tmp_path, rows, spaced) == 1
    assert _compare(script, tmp_path, rows, spaced, bare_first_space=True) == 0
    assert "1 texts of gsm8k lack a first space on the first side" in capsys.readouterr().out
    assert _compare(script, tmp_path, spaced, rows, bare_first_space=True) == 1


def test_adapters_of_one_folder_name_are_two(script: Any, tmp_path: Path) -> None:
    args = argparse.Namespace(no_base=False, adapter=["s0/step12", "s1/step12"])
    assert script.answering(args) == [("base", None), ("1", "s0/step12"), ("2", "s1/step12")]
    rows = _rows(script)
    (tmp_path / "twice").write_text("".join(json.dumps(r) + "\n" for r in [*rows, rows[0]]))
    with pytest.raises(ValueError, match="given twice"):
        script.read(str(tmp_path / "twice"))


def test_what_is_promised_is_asked(script: Any) -> None:
    counts = dict(script.asked(script.ASK))
    subjects = sorted(v for k, v in counts.items() if k.startswith("mmlu_"))
    assert subjects == [16, 16, 60]
    assert {k: v for k, v in counts.items() if not k.startswith("mmlu_")} == {
        "gsm8k": 40, "humaneval": 40, "kobest_copa": 60, "kobest_sentineg": 16,
        "kobest_wic": 6, "kobest_boolq": 2, "kobest_hellaswag": 2,
    }  # fmt: skip
