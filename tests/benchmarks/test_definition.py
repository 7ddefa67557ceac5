"""Definitions: the ones here, one from a file, one from an entry point, and mistakes."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from zpdbench.benchmarks import definition as definitions
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
    assert definitions.names() == ["gsm8k", "humaneval", "humaneval_plus", "kobest", "mmlu"]
    for name in definitions.names():
        definition = definitions.load(name)
        assert definition.name == name
        for task in definition.tasks.values():
            assert task.content
            assert "test" in task.files
            assert task.hub is not None
            if definition.fewshot != "none":
                assert definition.fewshot_split in task.files
                assert definition.fewshot_split in task.hub.splits
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


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("max_tokens: 8", "", "max_tokens: is needed"),
        ("stop:", "stops:", "stops: Extra inputs"),
        ("language: en", "language: fr", "language: Input should be 'en' or 'ko'"),
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
