"""The example of docs/benchmarks.md: Korean HumanEval, in thirty lines, by its definition."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
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


def test_korean_humaneval_is_a_benchmark_like_any_other_once_it_is_installed(
    root: Path, data_dir: Path, tmp_path: Path
) -> None:
    # A copy: building leaves traces in a package's folder.
    shutil.copytree(root / "examples/kr_humaneval", tmp_path / "kr_humaneval")
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-build-isolation", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*pip, *alone, str(tmp_path / "kr_humaneval")], check=True, capture_output=True)

    config, _ = studies.read_yaml(root / "config" / "micro.yaml")
    config |= {"data_dir": str(data_dir)}
    config["benchmarks"]["kr_humaneval"] = {"source": "files", "items": 3}
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(config), "utf-8")  # JSON is YAML
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(target), str(root / "src")]),
        "ZPDBENCH_CACHE": str(tmp_path / "cache"),
    }
    made = tmp_path / "kr.parquet"
    asked = ["make-items", "--study", str(path), "--benchmark", "kr_humaneval", "--out", str(made)]
    code = "import sys; from zpdbench.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *asked], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    items = pl.read_parquet(made)
    assert items.height == 3
    # Not installed, it is no benchmark, and the message says what to do.
    bare = {**environment, "PYTHONPATH": str(root / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code, *asked], env=bare, capture_output=True, text=True
    )
    assert done.returncode == 2 and "kr_humaneval" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1
