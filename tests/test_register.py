"""`zpdbench register`: a digest that binds, a file that is a configuration, what it cannot show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from zpdbench import cli, records, study
from zpdbench.artifacts import level0
from zpdbench.artifacts.findings import DIFFERS, NOT_CHECKED, REPRODUCED, Table
from zpdbench.statistics import settings


@pytest.fixture
def micro(root: Path, tmp_path: Path) -> Path:
    path = tmp_path / "micro.yaml"
    path.write_bytes((root / "config/micro.yaml").read_bytes())
    return path


def register(config: Path) -> Path:
    assert cli.main(["register", "--configfile", str(config)]) == 0
    return config.with_suffix(".registration.yaml")


def test_the_file_is_a_configuration_under_which_results_are_registered(
    micro: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = register(micro)
    said = capsys.readouterr().out
    loaded = study.load(micro, file)
    digest = loaded.hypotheses.registered
    assert digest == loaded.resolved_hypotheses.digest()
    # As the jobs read it, as it leaves the machine, as a file without the rest is read.
    assert settings.read_hypotheses([micro, file]).digest() == digest
    assert records.portable(loaded).resolved_hypotheses.digest() == digest
    assert str(digest) in said
    for words in ("seeds, in order: 0, 1", "margin 0", "failed runs:", "drawn by seed 0"):
        assert words in said
    assert "cannot show when it was written" in said
    assert set(yaml.safe_load(file.read_text("utf-8"))) == {"hypotheses", "benchmarks"}


BINDING: dict[str, dict[str, Any]] = {
    "seeds": {"seeds": [0, 1, 2]},
    "their order": {"seeds": [1, 0]},
    "steps": {"training": {"steps": 30}},
    "a learning rate": {"training": {"learning_rate": 1e-3}},
    "which items": {"benchmarks": {"gsm8k": {"draw_seed": 1}}},
    "how they are drawn": {"benchmarks": {"gsm8k": {"draw": "first"}}},
    "how many": {"benchmarks": {"gsm8k": {"interim_items": 4}}},
    "decoding": {"benchmarks": {"gsm8k": {"temperature": 0.5}}},
    "the decoding's seed": {"generations": {"seed": 1}},
    "alpha": {"hypotheses": {"h3a": {"alpha": 0.05}}},
    "the side": {"hypotheses": {"h3a": {"side": "smaller"}}},
    "a margin": {"hypotheses": {"h3a": {"margin": 1.0}}},
    "the gain's margin": {"hypotheses": {"h3a": {"margin_gain": 1.0}}},
    "the endpoint": {"hypotheses": {"h3a": {"benchmarks": ["gsm8k"]}}},
}
FREE: dict[str, dict[str, Any]] = {
    "threads": {"training": {"threads": 2}, "generations": {"threads": 2}},
    "folders": {"results": "elsewhere"},
    "batches of adapters": {"generations": {"adapters_in_flight": 2}},
    "images": {"images": {"unpack": False}},
}


def changed(config: Path, change: dict[str, Any]) -> str:
    path = config.with_name("change.yaml")
    path.write_text(yaml.safe_dump(change), "utf-8")
    return study.load(config, path).resolved_hypotheses.digest()


@pytest.mark.parametrize("name", BINDING)
def test_what_it_covers_changes_the_digest(micro: Path, name: str) -> None:
    assert changed(micro, BINDING[name]) != study.load(micro).resolved_hypotheses.digest()


@pytest.mark.parametrize("name", FREE)
def test_what_changes_no_result_does_not(micro: Path, name: str) -> None:
    assert changed(micro, FREE[name]) == study.load(micro).resolved_hypotheses.digest()


def test_items_other_than_the_registered_are_refused(
    micro: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = register(micro)
    out = tmp_path / "items.parquet"
    arguments = ["--benchmark", "gsm8k", "--out", str(out)]
    lock = tmp_path / "lock.yaml"

    def write_lock(**more: Any) -> None:
        config = study.load(micro, file).model_dump(mode="json")
        config["benchmarks"]["gsm8k"] |= more
        lock.write_text(yaml.safe_dump(config), "utf-8")

    write_lock()
    assert cli.main(["make-items", "--study", str(lock), *arguments]) == 0
    out.unlink()
    write_lock(draw_seed=3)
    assert cli.main(["make-items", "--study", str(lock), *arguments]) == 2
    error = capsys.readouterr().err
    assert "its items are not the registered ones" in error and len(error.splitlines()) == 1
    assert not out.exists()


def test_a_study_is_registered_once(micro: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = register(micro)
    before = file.read_bytes()
    assert register(micro).read_bytes() == before
    micro.write_text(micro.read_text("utf-8").replace("seeds: [0, 1]", "seeds: [0, 1, 2]"), "utf-8")
    assert cli.main(["register", "--configfile", str(micro)]) == 2
    assert "is there already, and another registration" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_items_that_are_not_at_hand_are_said_not_to_be_covered(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ZPDBENCH_DATA", raising=False)
    config = tmp_path / "smol.yaml"
    text = (root / "config/smol.yaml").read_text("utf-8")
    config.write_text(text.replace("study: ", "study: |\n  two\n  ", 1), "utf-8")
    file = register(config)
    assert "# NOT covered, its items could not be made here: gsm8k: no folder" in (
        capsys.readouterr().out
    )
    assert set(yaml.safe_load(file.read_text("utf-8"))) == {"hypotheses"}


def test_a_bundle_is_compared_with_what_was_published(micro: Path) -> None:
    plain = study.load(micro)
    registered = study.load(micro, register(micro))
    digest = registered.resolved_hypotheses.digest()

    def verdicts(loaded: study.Study, published: str | None) -> list[str]:
        table = Table(0)
        level0._check_registration(loaded, published, table)
        return [row.verdict for row in table.rows]

    assert verdicts(registered, digest) == verdicts(registered, digest[:12]) == [REPRODUCED]
    # A digest of its own shows nothing; another study's is another.
    assert verdicts(registered, None) == [NOT_CHECKED] and verdicts(plain, None) == []
    assert verdicts(plain, digest) == [DIFFERS]


def test_no_digest_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "crate.zip"
    bundle.write_bytes(b"")
    for given in ("", "yes", "abc123"):
        out = ["--out", str(tmp_path / "v.tsv")]
        assert cli.main(["verify", str(bundle), "--registration", given, *out]) == 2
        assert "is no digest" in capsys.readouterr().err
