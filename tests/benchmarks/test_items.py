"""Items: ids, golds, digests, subsets, and the hub's data set against the authors' file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from zpdbench.benchmarks import Definition, find, items, load, loaders, rendering
from zpdbench.benchmarks.definition import Task
from zpdbench.errors import UserError

SPLITS = {"test": "test", "train": "train", "dev": "dev"}


def _docs(data_dir: Path, task: str, split: str = "test") -> list[dict[str, Any]]:
    definition, _ = find(task)
    path = data_dir / definition.task(task).files[split]
    return loaders.load_file(definition, path, task)[task]


def _make(definition: Definition, task: str, docs: list[Any], pool: list[Any], **more: Any) -> Any:
    return items.make_items(definition, {task: docs}, {task: pool}, **more)


@pytest.mark.parametrize(
    ("task", "item_id", "gold", "count"),
    [
        ("humaneval", "HumanEval/0", "", 164),
        ("gsm8k", "0", "18", 1319),
        ("astronomy", "astronomy/0", "0", 152),
        ("kobest_copa", "kobest_copa/0", "1", 1000),
        ("kobest_wic", "kobest_wic/0", "1", 1260),
    ],
)
def test_ids_and_golds(data_dir: Path, task: str, item_id: str, gold: str, count: int) -> None:
    definition, _ = find(task)
    made = _make(definition, task, _docs(data_dir, task), [], num_fewshot=0)
    assert (made[0].item_id, made[0].gold, len(made)) == (item_id, gold, count)
    assert len({item.item_id for item in made}) == len({item.digest for item in made}) == count


def test_shots_do_not_depend_on_how_many_are_asked(data_dir: Path) -> None:
    definition = load("gsm8k")
    docs, pool = _docs(data_dir, "gsm8k"), _docs(data_dir, "gsm8k", "train")
    few = _make(definition, "gsm8k", docs, pool, items=20, interim_items=5, draw="first")
    many = _make(definition, "gsm8k", docs, pool, items=200, draw="first")
    assert [i.digest for i in few] == [i.digest for i in many[:20]]
    assert [i.interim for i in few] == [True] * 5 + [False] * 15
    assert few[0].prompt.count("Question: ") == 6


def test_a_total_is_shared_among_tasks_and_interim_is_part_of_it() -> None:
    definition = load("mmlu")
    doc = {"question": "q", "choices": ["a", "b", "c", "d"], "answer": 0}
    docs = {f"t{k}": [{**doc, "subject": f"t{k}"}] * size for k, size in enumerate((5, 1, 3, 5, 5))}
    made = items.make_items(definition, docs, {}, items=12, interim_items=4, draw="first")
    counts = [sum(i.task == t for i in made) for t in docs]
    assert counts == [3, 1, 3, 3, 2]
    assert sum(i.interim for i in made) == 4
    few = items.make_items(definition, docs, {}, items=2, draw="first")
    assert [i.task for i in few] == ["t0", "t2"]
    drawn = items.make_items(definition, docs, {}, items=12, interim_items=4)
    assert sorted(sum(i.task == t for i in drawn) for t in docs) == [1, 2, 3, 3, 3]
    assert sum(i.interim for i in drawn) == 4
    each = items.make_items(definition, {"t0": docs["t0"]}, {}, items=5, items_per="task")
    assert len(each) == 5


def _asked(size: int, seed: int, **more: Any) -> list[Any]:
    doc = {"question": "q", "choices": ["a", "b", "c", "d"], "answer": 0}
    docs = {t: [{**doc, "subject": t}] * size for t in ("t0", "t1", "t2")}
    return list(items.make_items(load("mmlu"), docs, {}, draw_seed=seed, **more))


def test_a_random_subset_is_a_sample_by_task_and_nested() -> None:
    size, seeds = 40, 300
    counts = dict.fromkeys(range(size), 0)
    for seed in range(seeds):
        made = _asked(size, seed, items=30, interim_items=9)
        names = [i.item_id for i in made]
        # By task, in the file's order.
        assert [i.task for i in made] == ["t0"] * 10 + ["t1"] * 10 + ["t2"] * 10
        assert names == sorted(names, key=lambda n: (n[:2], int(n[3:])))
        assert [sum(i.interim for i in made if i.task == t) for t in ("t0", "t1", "t2")] == [3] * 3
        for name in names:
            counts[int(name[3:])] += 1
    # Every row is asked equally often (3 x 300 / 4, sd 11 as a count of draws), early or late.
    assert max(abs(n - 225) for n in counts.values()) < 5 * 13
    assert abs(sum(counts[k] for k in range(20)) - 4500) < 5 * 50
    # A smaller subset is part of a larger one, and interim items do not depend on the final ones.
    few = {i.item_id: i.digest for i in _asked(size, 7, items=10)}
    many = {i.item_id: i.digest for i in _asked(size, 7, items=61)}
    assert few.items() <= many.items()
    ways = [
        {i.item_id for i in _asked(size, 7, interim_items=9, **m) if i.interim}
        for m in ({}, {"items": 30}, {"items": 61})
    ]
    assert ways[0] == ways[1] == ways[2]
    # A longer file keeps the order of what was there.
    longer = {i.item_id for i in _asked(2 * size, 7, items=60)}
    old = {n for n in longer if int(n[3:]) < size}
    assert old <= {i.item_id for i in _asked(size, 7, items=60)}
    assert {i.item_id for i in _asked(size, 8, items=10)} != set(few)


def test_a_drawn_item_has_the_shots_that_it_has_among_all(data_dir: Path) -> None:
    definition = load("gsm8k")
    docs, pool = _docs(data_dir, "gsm8k"), _docs(data_dir, "gsm8k", "train")
    every = {i.item_id: i.digest for i in _make(definition, "gsm8k", docs, pool)}
    some = _make(definition, "gsm8k", docs, pool, items=25)
    assert {i.item_id: i.digest for i in some}.items() <= every.items()
    assert [i.item_id for i in some] != [str(n) for n in range(25)]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"items": 20}, "there are only 19 items, 20 asked"),
        ({"items": 2, "items_per": "task"}, "t1 has only 1 items, 2 asked"),
        ({"num_fewshot": 3}, "3 shots asked of 0 documents"),
    ],
)
def test_more_than_there_is(more: dict[str, Any], expected: str) -> None:
    doc = {"question": "q", "choices": ["a", "b", "c", "d"], "answer": 0}
    docs = {f"t{k}": [{**doc, "subject": f"t{k}"}] * size for k, size in enumerate((5, 1, 3, 5, 5))}
    with pytest.raises(UserError, match=expected):
        items.make_items(load("mmlu"), docs, {}, **more)


def test_humaneval_takes_no_shots(data_dir: Path) -> None:
    with pytest.raises(UserError, match="humaneval has no shots"):
        _make(load("humaneval"), "humaneval", _docs(data_dir, "humaneval"), [], num_fewshot=1)


@pytest.mark.parametrize(
    ("question", "answer", "message"),
    [
        ("a \ud83d", "so\n#### 1", r"gsm8k 1: lone surrogate U\+D83D"),
        ("a", "so\n#### one", r"gsm8k 1: '#### one' is no number, so no answer can equal it"),
    ],
)
def test_what_can_be_no_item(question: str, answer: str, message: str) -> None:
    docs = [{"question": "q", "answer": "#### 2"}, {"question": question, "answer": answer}]
    with pytest.raises(UserError, match=message):
        _make(load("gsm8k"), "gsm8k", docs, [], num_fewshot=0)


def test_a_chat_template_s_messages_and_choices() -> None:
    doc = {"question": " q ", "choices": ["a", "b", "c", "d"], "answer": 2, "subject": "high_x"}
    (plain,) = _make(load("mmlu"), "high_x", [doc], [])
    (chat,) = _make(load("mmlu"), "high_x", [doc], [], chat=True)
    assert plain.messages == ""
    assert plain.choices == [" A", " B", " C", " D"]
    assert [m["role"] for m in json.loads(chat.messages)] == ["system", "user"]
    assert "".join(m["content"] for m in json.loads(chat.messages)) == chat.prompt == plain.prompt
    assert chat.choices == ["A", "B", "C", "D"]
    assert chat.template != plain.template
    for item in (plain, chat):
        texts = items.choice_texts({"messages": item.messages, "choices": item.choices})
        assert texts == ["A", "B", "C", "D"]


def test_what_a_template_says_is_in_its_hash() -> None:
    definition = load("gsm8k")
    task = definition.tasks["gsm8k"].model_copy(update={"text": "Q: {{question}}\nAnswer:"})
    other = definition.model_copy(update={"tasks": {"gsm8k": task}})
    ids = {
        d.template_id("gsm8k", num_fewshot=n, chat=c)
        for d in (definition, other)
        for n in (0, 5)
        for c in (False, True)
    }
    assert len(ids) == 8
    stop = definition.model_copy(update={"stop": ["\n"]})
    ids |= {d.template_id("gsm8k", num_fewshot=0, chat=False) for d in (stop, definition)}
    ids |= {
        definition.template_id("gsm8k", num_fewshot=0, chat=False, max_tokens=n) for n in (8, 256)
    }
    assert len(ids) == 10, "256 is the definition's own"
    assert {i.split("+")[0] for i in ids} == {"gsm8k@3.0"}
    # What later versions can say besides has not changed it.
    assert definition.template_id("gsm8k", num_fewshot=5, chat=False) == "gsm8k@3.0+4e3728b80f1a"


def test_an_answer_that_is_begun_is_part_of_what_is_asked(data_dir: Path) -> None:
    definition = load("humaneval_instruct")
    (item,) = _make(
        definition, definition.name, _docs(data_dir, "humaneval_instruct")[:1], [], chat=True
    )
    user, begun = json.loads(item.messages)
    assert item.prompt == user["content"] + begun["content"]
    assert item.stop == [*load("humaneval").stop, "```"]
    task = definition.tasks[definition.name]
    others = [
        definition.model_copy(
            update={"tasks": {definition.name: task.model_copy(update={"prefix": "Here:"})}}
        ),
        definition.model_copy(update={"cut": ""}),
    ]
    ids = {d.template_id(definition.name, num_fewshot=0, chat=True) for d in (definition, *others)}
    assert len(ids) == 3
    # Where neither has white space at the seam, the harness puts a space there.
    plain = Task(text="{{ q }}", prefix="{{ p }}")
    asked = [
        rendering.render(plain, {"q": q, "p": p}).prompt for q, p in (("a", "b"), ("a\n", "b"))
    ]
    assert asked == ["a b", "a\nb"]


def test_files_repeat_byte_for_byte(data_dir: Path, tmp_path: Path) -> None:
    docs = _docs(data_dir, "gsm8k")[:50]
    for name in ("a", "b"):
        made = _make(load("gsm8k"), "gsm8k", docs, [], num_fewshot=0)
        items.write(tmp_path / name, "gsm8k", made)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    rows = items.read(tmp_path / "a")
    assert [r["item_id"] for r in rows] == [str(i) for i in range(50)]
    assert rows[0]["benchmark"] == "gsm8k"


# -- the hub --------------------------------------------------------------------------------------

HUB = {
    "humaneval": ["task_id", "prompt", "canonical_solution", "test", "entry_point"],
    "gsm8k": ["question", "answer"],
    "astronomy": ["question", "subject", "choices", "answer"],
    "kobest_boolq": ["paragraph", "question", "label"],
    "kobest_copa": ["premise", "question", "alternative_1", "alternative_2", "label"],
    "kobest_wic": ["word", "context_1", "context_2", "label"],
    "kobest_hellaswag": ["context", "ending_1", "ending_2", "ending_3", "ending_4", "label"],
    "kobest_sentineg": ["sentence", "label"],
}
"""The columns of the hub's data sets, in their order."""


def _hub(data_dir: Path, folder: Path, task: str) -> None:
    """Write a local repository as the hub has it: its paths, formats, columns and types."""
    definition, _ = find(task)
    for split in definition.task(task).hub.files:  # type: ignore[union-attr]
        _, pattern = definition.hub_files(task, split)
        docs = _docs(data_dir, task, split)
        frame = pl.DataFrame([{c: d[c] for c in HUB[task]} for d in docs])
        if "label" in frame.columns:
            frame = frame.with_columns(pl.col("label").cast(pl.Int64))
        path = folder / pattern.replace("*", "00000-of-00001")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            frame.write_parquet(path)
        else:
            frame.with_row_index("idx").write_ndjson(path)


@pytest.mark.parametrize("task", HUB)
def test_rows_of_the_hub_give_the_same_items(data_dir: Path, tmp_path: Path, task: str) -> None:
    definition, _ = find(task)
    _hub(data_dir, tmp_path, task)
    pool_split = definition.fewshot_split
    shots = 0 if definition.fewshot == "none" else 2
    docs = loaders.load_hub(definition, task, "test", tmp_path)
    pool = loaders.load_hub(definition, task, pool_split, tmp_path) if shots else []
    of_hub = _make(definition, task, docs, pool, num_fewshot=shots)
    pool = _docs(data_dir, task, pool_split) if shots else []
    of_file = _make(definition, task, _docs(data_dir, task), pool, num_fewshot=shots)
    assert of_hub == of_file


def test_a_split_out_of_several_files_and_as_json_lines(data_dir: Path, tmp_path: Path) -> None:
    definition = load("gsm8k")
    docs = _docs(data_dir, "gsm8k")
    (tmp_path / "main").mkdir()
    for k, part in enumerate((docs[:700], docs[700:])):
        pl.DataFrame(part).write_parquet(tmp_path / f"main/test-0000{k}-of-00002.parquet")
    assert loaders.load_hub(definition, "gsm8k", "test", tmp_path) == docs
    kobest = load("kobest")
    rows = _docs(data_dir, "kobest_copa")
    (tmp_path / "copa").mkdir()
    lines = "".join(
        json.dumps({**r, "idx": i}, ensure_ascii=False) + "\n" for i, r in enumerate(rows)
    )
    (tmp_path / "copa/test.jsonl").write_text(lines, "utf-8")
    assert loaders.load_hub(kobest, "kobest_copa", "test", tmp_path) == rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"question": "q"}], "row 1 has no 'answer'"),
        ([{"question": "q", "answer": "a"}, {"question": None, "answer": "a"}], "row 2 has no 'qu"),
    ],
)
def test_another_data_set_is_refused(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        loaders.documents_of_rows(load("gsm8k"), "gsm8k", rows)


def test_no_file_and_no_split(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file main/test-\*\.parquet"):
        loaders.load_hub(load("gsm8k"), "gsm8k", "test", tmp_path)
    with pytest.raises(UserError, match="no files of its split 'validation'"):
        loaders.load_hub(load("gsm8k"), "gsm8k", "validation", tmp_path)


def test_what_a_benchmark_needs_of_the_hub() -> None:
    assert load("gsm8k").hub_sources() == (
        "openai/gsm8k",
        ["main/test-*.parquet", "main/train-*.parquet"],
    )
    assert load("humaneval").hub_sources()[1] == ["openai_humaneval/test-*.parquet"]
    assert len(load("mmlu").hub_sources()[1]) == 2 * 57
    assert load("kobest").hub_sources(["kobest_wic"])[1] == ["wic/test.jsonl", "wic/train.jsonl"]


def test_a_chat_of_one_turn_is_the_plain_prompt_behind_its_description() -> None:
    """The harness's multiturn_to_singleturn: shots and question are one user message."""
    doc = {"question": "1 + 1?", "choices": ["1", "2", "3", "4"], "answer": 1, "subject": "x"}
    made = {
        turns: rendering.render("mmlu", doc, [doc, doc], chat=True, multiturn=turns)
        for turns in (True, False)
    }
    description, question = made[False].messages
    assert (description["role"], question["role"]) == ("system", "user")
    assert description["content"] + question["content"] == made[False].prompt == made[True].prompt
    assert len(made[True].messages) == 6 and made[True].choices == made[False].choices
    ids = {
        load("mmlu").template_id("x", num_fewshot=2, chat=True, multiturn=turns)
        for turns in (True, False)
    }
    assert len(ids) == 2
