"""Every kind of bad input, through the real command: one clear line, exit code, nothing left."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests import tiny
from tests.micro import SNAKEMAKE

Study = dict[str, Any]
ITEM = '{"question": "How many?", "answer": "2\\n#### 2"}\n'
RECORD = {"instruction": "Count.", "input": "", "output": "1, 2."}


class Case(NamedTuple):
    """`spoil` gets the study and an empty data folder, and changes what it likes."""

    name: str
    spoil: Callable[[Study, Path], None]
    target: str
    says: str
    before_any_job: bool = True


def _set(*path: Any) -> Callable[[Study, Path], None]:
    *parents, key, value = path

    def spoil(study: Study, _: Path) -> None:
        section = study
        for parent in parents:
            section = section[parent]
        section[key] = value

    return spoil


def _local(change: Callable[[Path], None]) -> Callable[[Study, Path], None]:
    def spoil(study: Study, folder: Path) -> None:
        checkpoint = tiny.save_checkpoint(folder / "base", "qwen2")
        change(checkpoint)
        study["models"]["mini-qwen"] = {"source": "local", "path": str(checkpoint)}

    return spoil


def _truncate(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _long_header(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60) + path.read_bytes()[8:])


def _corpus(*records: Any) -> Callable[[Study, Path], None]:
    def spoil(study: Study, folder: Path) -> None:
        (folder / "data.json").write_text(json.dumps([*[RECORD] * 40, *records]), "utf-8")
        study["corpus"]["sources"] = {"own": {"format": "alpaca", "path": "data.json"}}

    return spoil


def _items(text: str) -> Callable[[Study, Path], None]:
    def spoil(study: Study, folder: Path) -> None:
        (folder / "gsm8k").mkdir()
        (folder / "gsm8k/test.jsonl").write_text(text, "utf-8")
        (folder / "gsm8k/train.jsonl").write_text(ITEM * 8, "utf-8")
        study["benchmarks"]["gsm8k"]["source"] = "files"

    return spoil


def _no_permission(study: Study, folder: Path) -> None:
    # Root may write anywhere, but not below a file.
    if os.geteuid() == 0:
        (folder / "closed").write_text("")
    else:
        (folder / "closed").mkdir(mode=0o555)
    study["results"] = str(folder / "closed/results")


def _benchmark_of_files(study: Study, _: Path) -> None:
    study["benchmarks"]["gsm8k"]["source"] = "files"


def _closed_cache(_: Study, folder: Path) -> None:
    (folder.parent / "cache").write_text("")


DONE = {"logs", "benchmarks", "records", "items"}
CASES = [
    Case("unknown key", _set("training", "learning_rat", 1), "all", r":\d+: training.learning_rat"),
    Case("missing model", _set("hypotheses", "h3a", "small", "qwen"), "all", "no model 'qwen'"),
    Case(
        "a hypothesis on an unknown benchmark",
        _set("hypotheses", "h3b", {"generation": ["humanevil"]}),
        "all",
        "hypotheses.h3b.generation: no benchmark 'humanevil'",
    ),
    Case(
        "a hypothesis on an unknown model",
        _set("hypotheses", "r1", {"small": "mini-qwen", "large": "qwen"}),
        "all",
        "hypotheses.r1.large: no model 'qwen'",
    ),
    Case(
        "a hypothesis on an unknown condition",
        _set("hypotheses", "efficiency", {"treatment": "zdp"}),
        "all",
        "hypotheses.efficiency.treatment: no condition 'zdp'",
    ),
    Case(
        "a ladder of an unknown model",
        _set("hypotheses", "ladder", {"parameters": {"qwen": 5e8}}),
        "all",
        "hypotheses.ladder.parameters: no model 'qwen'",
    ),
    Case(
        "h3a.tsv of a study that names no two models",
        _set("hypotheses", {}),
        "h3a.tsv",
        "hypotheses.h3a: h3a.tsv is about two models",
    ),
    Case("no seeds", _set("seeds", []), "all", r":\d+: seeds: .*at least 1"),
    Case("negative rate", _set("training", "learning_rate", -0.1), "all", "greater than 0"),
    Case("one seed twice", _set("seeds", [1, 1]), "all", "each seed once"),
    Case("a name twice", _set("twice", "models"), "all", "models is given twice"),
    Case("unknown order", _set("conditions", "zpd", "order", "zdp"), "all", "zdp"),
    Case(
        "more training after up-scaling of a model that is not made here",
        lambda study, _: study["models"].update(
            {"mini-solar": {"source": "local", "path": "x", "upscale": {"drop": 1, "steps": 5}}}
        ),
        "all",
        "upscale.steps: only embedded models are trained on",
    ),
    Case("no checkpoint", _local(lambda c: (c / "config.json").unlink()), "all", "no checkpoint"),
    Case("truncated checkpoint", _local(_truncate), "all", r"model\.safetensors.*truncated"),
    Case("unreadable checkpoint", _local(_long_header), "all", r"model\.safetensors"),
    Case(
        "no tokenizer",
        _local(lambda c: (c / "tokenizer.json").unlink()),
        "all",
        "no tokenizer.json",
    ),
    Case("no permission", _no_permission, "all", "set results: to a folder of yours"),
    Case(
        "too little memory for the KV cache",
        _set("generations", "kv_cache_gib", 1e-4),
        "all",
        "generations.kv_cache_gib",
    ),
    Case(
        "no file of the corpus",
        lambda study, _: study["corpus"].update(
            sources={"own": {"format": "alpaca", "path": "none.json"}}
        ),
        "all",
        "no file none.json",
    ),
    Case(
        "a missing column",
        _corpus({"instruction": "Count.", "input": ""}),
        "all",
        "record 41: no field 'output'",
    ),
    Case(
        "an empty response",
        _corpus({**RECORD, "output": " "}),
        "all",
        "record 41: the response is empty",
    ),
    Case(
        "a malformed line",
        _items(ITEM * 2 + '{"question": "How\n'),
        "all",
        r"test\.jsonl:3: ",
    ),
    Case(
        "an item without an answer",
        _items(ITEM + ITEM.replace("#### ", "")),
        "all",
        r"test\.jsonl:2: item without an answer",
    ),
    Case(
        "no benchmark file", _benchmark_of_files, "all", r"no such file.*gsm8k|gsm8k.*no such file"
    ),
    Case("a closed cache", _closed_cache, "all", "set ZPDBENCH_CACHE to a folder of yours"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_one_clear_line(case: Case, root: Path, tmp_path: Path) -> None:
    study = deepcopy(yaml.safe_load((root / "config/micro.yaml").read_text("utf-8")))
    data = tmp_path / "data"
    data.mkdir()
    study |= {"results": str(tmp_path / "results"), "data_dir": str(data)}
    case.spoil(study, data)
    twice = study.pop("twice", None)
    config = tmp_path / "study.yaml"
    text = yaml.safe_dump(study)
    if twice:
        text += yaml.safe_dump({twice: study[twice]})
    config.write_text(text, "utf-8")
    results = Path(study["results"])
    target = case.target if case.target == "all" else str(results / case.target)
    command = [SNAKEMAKE, "--snakefile", str(root / "Snakefile"), "--directory", str(tmp_path)]
    result = subprocess.run(
        [*command, "--cores", "1", target, "--configfile", str(config)],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "ZPDBENCH_CACHE": str(tmp_path / "cache")},
    )
    output = result.stdout + result.stderr
    assert result.returncode != 0, output
    lines = [line for line in output.splitlines() if re.search(case.says, line)]
    assert lines, output
    assert "Traceback" not in output
    files = [p for p in results.rglob("*") if p.is_file()] if results.is_dir() else []
    left = {p.relative_to(results).parts[0] for p in files}
    # Items are another job's, and whole. Of what failed there is nothing, not even a part.
    assert left <= {"study.lock.yaml", *(() if case.before_any_job else DONE)}
    assert not any(p.name.startswith(".") for p in files)
