"""The table of pinned revisions: what is read from it, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from zpdbench import revisions, study
from zpdbench.errors import UserError
from zpdbench.revisions import Pin

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHA = "ab" * 32


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    table: revisions.Table = {
        "models": {"b/c": Pin(), "a/b": Pin(COMMIT, {"x/y.json": (SHA, 3)}, "a page", "MIT")},
        "datasets": {"d/e": Pin(COMMIT, patterns=("a/*.parquet", "b.jsonl"))},
    }
    path = tmp_path / revisions.NAME
    revisions.write(path, table)
    assert revisions.read(path) == table
    text = path.read_text("utf-8")
    revisions.write(path, revisions.read(path))
    assert path.read_text("utf-8") == text


def test_no_table_is_an_empty_one(tmp_path: Path) -> None:
    assert revisions.read(tmp_path / "none.yaml") == {"models": {}, "datasets": {}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "cannot be read"),
        ("[]", "models: and datasets:"),
        ("other: {}", "models: and datasets:"),
        ("models: []", "map repositories"),
        ("models: {../x: {}}", "no OWNER/NAME"),
        ("models: {a/b: {revision: main}}", "no commit"),
        ("models: {a/b: {branch: main}}", "keys other than"),
        ("datasets: {a/b: {patterns: all}}", "patterns must be a list"),
        (f"models: {{a/b: {{files: {{../x: {{sha256: {SHA}, size: 1}}}}}}}}", "no plain path"),
        ("models: {a/b: {files: {x: {sha256: abc, size: 1}}}}", "no sha256"),
        (f"models: {{a/b: {{files: {{x: {{sha256: {SHA}, size: -1}}}}}}}}", "no size"),
    ],
)
def test_a_damaged_table_is_one_clear_mistake(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / revisions.NAME
    path.write_text(text, "utf-8")
    with pytest.raises(UserError, match=message):
        revisions.read(path)


@pytest.mark.parametrize(
    ("path", "safe"),
    [
        ("model.safetensors", True),
        ("data/train-00000-of-00001.parquet", True),
        ("../model.safetensors", False),
        ("/etc/passwd", False),
        ("a//b", False),
        (".git/config", False),
        ("a/..b", False),
        ("a\\b", False),
        ("x" * 300, False),
        ("", False),
    ],
)
def test_paths_of_a_repository(path: str, safe: bool) -> None:
    assert revisions.is_safe_path(path) is safe


def test_a_pattern_stays_in_its_folder() -> None:
    assert revisions.matches("data/train-0.parquet", "data/train-*.parquet")
    assert not revisions.matches("data/old/train-0.parquet", "data/*.parquet")
    assert not revisions.matches("train-0.parquet", "data/train-*.parquet")


@pytest.fixture
def hub_study(root: Path, tmp_path: Path) -> Path:
    """r4.yaml in a folder of its own."""
    path = tmp_path / "r4.yaml"
    path.write_text((root / "config/r4.yaml").read_text("utf-8"), "utf-8")
    return path


def test_a_study_takes_its_pins_from_the_table_beside_it(hub_study: Path) -> None:
    assert study.load(hub_study).models["qwen2.5-7b"].revision is None  # type: ignore[union-attr]
    table: revisions.Table = {
        "models": {"Qwen/Qwen2.5-7B-Instruct": Pin(COMMIT, {"config.json": (SHA, 7)})},
        "datasets": {
            "tatsu-lab/alpaca": Pin(
                COMMIT,
                {"data/train-0.parquet": (SHA, 9), "README.md": (SHA, 1)},
                patterns=("README.md", "data/train-*.parquet"),
            )
        },
    }
    revisions.write(hub_study.parent / revisions.NAME, table)
    loaded = study.load(hub_study)
    qwen = loaded.models["qwen2.5-7b"]
    assert isinstance(qwen, study.HubModel) and qwen.revision == COMMIT
    assert qwen.files == {"config.json": study.HubFile(sha256=SHA, size=7)}
    alpaca = loaded.corpus.sources["alpaca"]
    assert alpaca.revision == COMMIT and list(alpaca.files or {}) == ["data/train-0.parquet"]
    assert loaded.corpus.sources["openorca_ko"].revision is None
    # Jobs read the locked study, in a folder without the table.
    lock = hub_study.parent / "elsewhere" / "study.lock.yaml"
    lock.parent.mkdir()
    lock.write_text(study.lock_text(loaded), "utf-8")
    assert study.load(lock) == loaded


def test_the_configuration_may_mean_another_commit(hub_study: Path) -> None:
    other = "f" * 40
    text = hub_study.read_text("utf-8")
    repo = "repo: upstage/SOLAR-10.7B-v1.0"
    hub_study.write_text(text.replace(repo, f"{repo}\n    revision: {other}"), "utf-8")
    pin = Pin(COMMIT, {"config.json": (SHA, 7)})
    table: revisions.Table = {"models": {"upstage/SOLAR-10.7B-v1.0": pin}, "datasets": {}}
    revisions.write(hub_study.parent / revisions.NAME, table)
    solar = study.load(hub_study).models["solar-10.7b"]
    assert isinstance(solar, study.HubModel)
    assert solar.revision == other and solar.files is None


def test_shipped_table_is_as_it_would_be_written(root: Path, tmp_path: Path) -> None:
    path = root / "config" / revisions.NAME
    table = revisions.read(path)
    revisions.write(tmp_path / revisions.NAME, table)
    assert (tmp_path / revisions.NAME).read_text("utf-8") == path.read_text("utf-8")
    pins = [pin for kind in table.values() for pin in kind.values()]
    assert all(pin.revision and pin.seen and pin.license for pin in pins)
