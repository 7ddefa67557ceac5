"""The example of docs/benchmarks.md: Korean HumanEval, in thirty lines, by its definition."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from zpdbench import study as studies
from zpdbench.cli import main

LINES = 30


def test_korean_humaneval_is_thirty_lines_and_its_solutions_pass(
    root: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = root / "examples" / "kr_humaneval"
    files = [example / "kr_humaneval" / name for name in ("definition.yaml", "__init__.py")]
    assert sum(len(f.read_text("utf-8").splitlines()) for f in files) <= LINES
    monkeypatch.syspath_prepend(example)
    monkeypatch.setenv("ZPDBENCH_CACHE", str(tmp_path / "cache"))

    path = data_dir / "kr_humaneval" / "KR_HumanEval_v1.jsonl"
    docs = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    given, out = tmp_path / "given.jsonl", tmp_path / "out.tsv"
    lines = [{"item_id": d["task_id"], "sample": 0, "text": d["canonical_solution"]} for d in docs]
    given.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    score = ["score", str(files[0]), "--items", str(path), "--generations", str(given)]
    assert main([*score, "--out", str(out)]) == 0
    with out.open(encoding="utf-8", newline="") as handle:
        assert [r["status"] for r in csv.DictReader(handle, delimiter="\t")] == ["passed"] * 164

    config, _ = studies.read_yaml(root / "config" / "mini.yaml")
    config["data_dir"] = str(data_dir)
    config["benchmarks"]["kr_humaneval"] = {
        "source": "files",
        "definition": str(files[0]),
        "items": 3,
    }
    lock = tmp_path / "study.yaml"
    lock.write_text(studies.lock_text(studies.parse(config)), "utf-8")
    made = ["--benchmark", "kr_humaneval", "--out", str(tmp_path / "kr.parquet")]
    assert main(["make-items", "--study", str(lock), *made]) == 0
