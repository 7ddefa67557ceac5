"""Definitions: the ones here, one from a file, one from an entry point, and mistakes."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from zpdbench.benchmarks import definition as definitions
from zpdbench.cli import main
from zpdbench.errors import UserError

OWN = """
name: capitals
version: "1"
language: en
kind: generate
answer: number
loader: gsm8k
stop: ["\\n"]
max_tokens: 8
metrics: [exact_match]
tasks:
  capitals: { text: "{{question}}", target: "{{answer}}", files: { test: capitals.jsonl } }
"""


def test_every_definition_here_is_complete() -> None:
    assert definitions.names() == [
        *("gsm8k", "humaneval", "humaneval_instruct", "humaneval_plus", "kobest", "mmlu"),
    ]
    for name in definitions.names():
        definition = definitions.load(name)
        assert definition.name == name
        for task in definition.tasks.values():
            assert task.content
            assert "test" in task.files
            # The hub's HumanEval+ has no inputs to compare results on.
            assert (task.hub is None) == (name == "humaneval_plus")
            if definition.fewshot != "none":
                assert definition.fewshot_split in task.files
                assert task.hub is not None
                assert definition.fewshot_split in task.hub.files
    assert len(definitions.load("mmlu").tasks) == 57
    assert definitions.load("mmlu").group_of("astronomy") == "stem"


def test_a_name_finds_a_benchmark_or_a_task() -> None:
    assert definitions.find("kobest_copa")[1] == "kobest_copa"
    assert definitions.find("kobest")[1] is None
    assert definitions.find("mmlu")[1] is None
    assert definitions.find("astronomy")[0].name == "mmlu"
    assert definitions.find("gsm8k")[1] == "gsm8k"


def test_a_definition_from_a_file_and_from_an_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "capitals.yaml"
    path.write_text(OWN)
    assert definitions.load(str(path)).name == "capitals"

    (tmp_path / "capitals_plugin.py").write_text(
        f"from pathlib import Path\nDEFINITION = Path({str(path)!r})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("capitals", "capitals_plugin:DEFINITION", definitions.ENTRY_POINTS)
    monkeypatch.setattr(
        definitions, "entry_points", lambda group: [point] if group == point.group else []
    )
    for cached in (definitions._paths, definitions.load, definitions.find):
        cached.cache_clear()
    try:
        assert "capitals" in definitions.names()
        assert definitions.load("capitals").max_tokens == 8
    finally:
        for cached in (definitions._paths, definitions.load, definitions.find):
            cached.cache_clear()


def test_a_judge_of_one_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "capitals_judge.py").write_text(
        "from zpdbench.benchmarks.answers import Verdict\n"
        "def judge(text, gold):\n"
        "    return Verdict(float(text.strip() == gold), 'ok', text.strip())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "own.yaml"
    text = OWN.replace("answer: number", "answer: capitals_judge:judge")
    path.write_text(text.replace("target:", 'gold: "{{question|upper}}", target:'))
    (tmp_path / "q.jsonl").write_text('{"question": "oslo", "answer": "#### 1"}\n')
    (tmp_path / "g.jsonl").write_text(
        '{"item_id": "0", "sample": 0, "text": " OSLO"}\n'
        '{"item_id": "0", "sample": 1, "text": "Rome"}\n'
    )
    files = ["--items", str(tmp_path / "q.jsonl"), "--generations", str(tmp_path / "g.jsonl")]
    assert main(["score", str(path), *files, "--out", str(tmp_path / "out.tsv")]) == 0
    assert (tmp_path / "out.tsv").read_text().splitlines() == [
        "item_id\tsample\tcorrect\tstatus\textracted",
        "0\t0\t1\tok\tOSLO",
        "0\t1\t0\tok\tRome",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("max_tokens: 8", "", "max_tokens: is needed"),
        ("[exact_match]", "[bleu]", "metrics: no 'bleu'"),
        ("[exact_match]", "[f1]", "metrics: f1 is computed for KoBEST's tasks only"),
        ("stop:", "stops:", "stops: Extra inputs"),
        ("language: en", "language: fr", "language: Input should be 'en' or 'ko'"),
        ("stop:", 'cut: "```"\nstop:', "cut: is for programs only"),
        ("stop:", "suits: chats\nstop:", "suits: Input should be 'any', 'plain' or 'chat'"),
        (
            "tasks:\n  capitals: {",
            'fewshot: first\ntasks:\n  capitals: { prefix: "It is",',
            "tasks.capitals: prefix is for texts asked for without shots",
        ),
        ("kind: generate", "kind: choice", "tasks.capitals: a choice task needs choices and gold"),
        ("name: capitals", "name: [", "no readable benchmark definition"),
    ],
)
def test_mistakes(tmp_path: Path, old: str, new: str, expected: str) -> None:
    path = tmp_path / "capitals.yaml"
    path.write_text(OWN.replace(old, new))
    with pytest.raises(UserError, match=f"{path.name}: .*{expected}"):
        definitions.read(path)


def test_unknown_names() -> None:
    with pytest.raises(UserError, match="no benchmark 'arc'"):
        definitions.load("arc")
    with pytest.raises(UserError, match="no loader 'x'"):
        definitions.resolve("loader", "x", {"gsm8k": print})
    with pytest.raises(UserError, match="no readable"):
        definitions.load("nowhere.yaml")
