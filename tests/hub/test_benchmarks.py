"""A benchmark whose items are a data set of the hub: pinned, checked, the same as its authors'."""

from __future__ import annotations

import io
import json
from pathlib import Path

import polars as pl
import pytest
import yaml

from tests.hub import server
from tests.hub.test_fetch import pinned
from zpdbench import plan, preflight, revisions, study
from zpdbench.benchmarks import items, load, loaders
from zpdbench.corpora import make_corpus, make_items
from zpdbench.errors import UserError

COPA = "kobest_copa"
REPOS = {"gsm8k": "openai/gsm8k", "kobest": "skt/kobest_v1"}


def parquet(docs: list[dict[str, object]]) -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame(docs).write_parquet(buffer)
    return buffer.getvalue()


def documents(data_dir: Path, name: str, task: str, split: str) -> list[dict[str, object]]:
    definition = load(name)
    path = data_dir / definition.task(task).files[split]
    return loaders.load_file(definition, path, task)[task]


@pytest.fixture
def asked(config: Path, hub: server.Hub, data_dir: Path) -> Path:
    """The study of `config`, with GSM8K (Parquet) and one task of KoBEST (JSON lines)."""
    for split in ("test", "train"):
        docs = documents(data_dir, "gsm8k", "gsm8k", split)
        gsm8k = hub.repos.setdefault(f"datasets/{REPOS['gsm8k']}", server.Repo({}))
        gsm8k.files[f"main/{split}-00000-of-00001.parquet"] = parquet(docs)
        gsm8k.files[f"socratic/{split}-00000-of-00001.parquet"] = b"another form"
        rows = documents(data_dir, "kobest", COPA, split)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        kobest = hub.repos.setdefault(f"datasets/{REPOS['kobest']}", server.Repo({}))
        kobest.files[f"copa/{split}.jsonl"] = lines.encode()
    value = yaml.safe_load(config.read_text("utf-8"))
    value["benchmarks"] = {
        "gsm8k": {"source": "hub", "items": 30},
        "kobest": {"source": "hub", "items": 20, "tasks": [COPA], "num_fewshot": 5},
    }
    config.write_text(yaml.safe_dump(value), "utf-8")
    return config


def test_items_are_those_of_the_authors_files(
    asked: Path, hub: server.Hub, data_dir: Path, tmp_path: Path
) -> None:
    settings = pinned(asked)
    table = revisions.read(asked.parent / revisions.NAME)["datasets"]
    assert sorted(table[REPOS["gsm8k"]].files) == [
        "main/test-00000-of-00001.parquet",
        "main/train-00000-of-00001.parquet",
    ]
    assert sorted(table[REPOS["kobest"]].files) == ["copa/test.jsonl", "copa/train.jsonl"]
    of_files = {
        name: section.model_copy(update={"source": "files", "revision": None, "files": None})
        for name, section in settings.benchmarks.items()
    }
    plain = settings.model_copy(update={"benchmarks": of_files, "data_dir": str(data_dir)})
    for name in settings.benchmarks:
        made = make_items.items_of(settings, name)
        assert made == make_items.items_of(plain, name)
        items.write(tmp_path / f"{name}.parquet", name, made)
    # What is in the cache is asked of nobody again; contamination looks at all of it.
    before = len(hub.asked)
    frame, _ = make_corpus.build(settings, sorted(tmp_path.glob("*.parquet")))
    assert len(frame) == 40
    assert not [p for _, p, _ in hub.asked[before:] if "gsm8k" in p or "kobest" in p]
    # Jobs read the locked study, in a folder without the table.
    lock = tmp_path / "elsewhere" / "study.lock.yaml"
    lock.parent.mkdir()
    lock.write_text(study.lock_text(settings), "utf-8")
    assert study.load(lock) == settings


def test_what_is_not_pinned_is_named_and_refused(
    asked: Path, hub: server.Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = study.load(asked)
    preflight.check_names(settings)
    assert "note: gsm8k: the data set's files are not pinned yet" in capsys.readouterr().err
    assert "gsm8k: no revision of openai/gsm8k is pinned" in "\n".join(plan.unpinned(settings))
    with pytest.raises(UserError, match=r"no revision is pinned.*zpdbench pin"):
        make_items.items_of(settings, "gsm8k")
    assert hub.asked == []


def test_a_changed_benchmark_is_refused(asked: Path, hub: server.Hub) -> None:
    settings = pinned(asked)
    files = hub.repos[f"datasets/{REPOS['gsm8k']}"].files
    path = "main/test-00000-of-00001.parquet"
    files[path] = bytes(reversed(files[path]))
    with pytest.raises(UserError, match=r"test-00000-of-00001\.parquet is not the file that was"):
        make_items.items_of(settings, "gsm8k")


def test_a_folder_stands_for_the_hub(asked: Path, hub: server.Hub, tmp_path: Path) -> None:
    settings = pinned(asked)
    for repo in REPOS.values():
        for path, data in hub.repos[f"datasets/{repo}"].files.items():
            target = tmp_path / "folder" / repo / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    away = study.Hub(folder=str(tmp_path / "folder"), endpoint="http://127.0.0.1:9")
    made = make_items.items_of(settings.model_copy(update={"hub": away}), "kobest")
    assert len(made) == 20


def test_a_pattern_that_was_pinned_in_part_is_not_pinned(asked: Path) -> None:
    pinned(asked)
    path = asked.parent / revisions.NAME
    table = revisions.read(path)
    pin = table["datasets"][REPOS["gsm8k"]]
    only = revisions.Pin(pin.revision, pin.files, pin.seen, pin.license, ("main/test-*.parquet",))
    table["datasets"][REPOS["gsm8k"]] = only
    revisions.write(path, table)
    section = study.load(asked).benchmarks["gsm8k"]
    assert section.revision == pin.revision and section.files is None
    assert pinned(asked).benchmarks["gsm8k"].files
    assert revisions.read(path)["datasets"][REPOS["gsm8k"]] == pin


def test_a_pattern_without_a_file_is_told_when_it_is_pinned(asked: Path, hub: server.Hub) -> None:
    del hub.repos[f"datasets/{REPOS['kobest']}"].files["copa/train.jsonl"]
    with pytest.raises(UserError, match=r"kobest_v1: has no file copa/train\.jsonl"):
        pinned(asked)
