"""Prompts, choices and stop sequences equal lm-evaluation-harness 0.4.13's, byte for byte.

harness_prompts.json was recorded by benchmarks/record_harness_prompts.py from the harness itself,
over every document of every task.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from zpdbench.benchmarks import find, items, loaders

RECORDED: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parent / "harness_prompts.json").read_text("utf-8")
)
FAST = [
    "humaneval",
    "humaneval_instruct",
    "gsm8k",
    *(t for t in RECORDED if t.startswith("kobest_")),
    "mmlu_astronomy",
]


def _digest(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@cache
def _docs(data_dir: Path, task: str, split: str) -> list[dict[str, Any]]:
    definition, _ = find(task)
    path = data_dir / definition.task(task).files[split]
    return loaders.load_file(definition, path, task)[task]


def _requests(data_dir: Path, harness_task: str, variant: str) -> list[Any]:
    """What is sent in a variant such as `5-shot chat-one-turn`; plain without a form."""
    count, _, form = variant.partition("-shot")
    shots, chat = int(count), bool(form)
    task = harness_task.removeprefix("mmlu_")
    definition, _ = find(task)
    pool = {task: _docs(data_dir, task, definition.fewshot_split)} if shots else {}
    docs = {task: _docs(data_dir, task, "test")}
    made = items.make_items(
        definition, docs, pool, num_fewshot=shots, chat=chat, multiturn=form != " chat-one-turn"
    )
    sent: dict[str, Any] = {}
    if definition.kind == "generate":
        sent = {"until": definition.stop}
        if definition.answer == "program":
            sent["max_gen_toks"] = definition.max_tokens
    result = []
    for item in made:
        context: Any = item.prompt
        if chat:
            order = ("role", "content")
            context = [{k: m[k] for k in order} for m in json.loads(item.messages)]
        result.append([context, item.choices, sent])
    return result


@pytest.mark.parametrize("task", FAST)
def test_prompts_equal_the_harness(task: str, data_dir: Path) -> None:
    for variant, expected in RECORDED[task].items():
        assert _digest(_requests(data_dir, task, variant)) == expected, variant


def test_every_task_is_recorded_in_every_form() -> None:
    forms = ("", " chat", " chat-one-turn")
    for task, found in RECORDED.items():
        shots = (0,) if task.startswith("humaneval") else (0, 5)
        wanted = {f"{n}-shot{form}" for n in shots for form in forms}
        if task == "humaneval_instruct":  # refused in the plain form
            wanted -= {"0-shot"}
        assert set(found) == wanted, task


@pytest.mark.slow
def test_all_57_subjects_equal_the_harness(data_dir: Path) -> None:
    subjects = [task for task in RECORDED if task.startswith("mmlu_")]
    assert len(subjects) == 57
    for task in subjects:
        for variant, expected in RECORDED[task].items():
            got = _digest(_requests(data_dir, task, variant))
            assert got == expected, (task, variant)
