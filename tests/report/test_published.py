"""What a run says of its tables beside the published ones."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest

from zpdbench import arithmetic, study
from zpdbench.errors import UserError
from zpdbench.report import published

INTEL, AMD = "x86-64 with AVX2, Intel", "x86-64 with AVX2, AMD"


def test_the_sentence_says_which_case_it_is() -> None:
    known = {INTEL: {"a.tsv": "1", "b.tsv": "2"}}
    assert "all 2 are the bytes" in published.sentence({**known[INTEL], "c.tsv": "3"}, known, INTEL)
    said = published.sentence({"a.tsv": "1", "b.tsv": "9"}, known, INTEL)
    assert "1 of 2 are not the bytes" in said and "(b.tsv)" in said
    assert "1 of 2 are not" in published.sentence({"a.tsv": "1"}, known, INTEL)
    said = published.sentence(dict(known[INTEL]), known, AMD)
    assert AMD in said and f"only for {INTEL}" in said


def test_written_then_compared(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = study.load(root / "config/micro.yaml")
    (tmp_path / "study.lock.yaml").write_text(study.lock_text(loaded), "utf-8")
    (tmp_path / "h3a.tsv").write_text("x\n1\n", "utf-8")
    given = Namespace(
        study=str(tmp_path / "study.lock.yaml"), published=str(tmp_path / "p.json"), write=False
    )
    published.main(given)
    assert capsys.readouterr().out == ""
    published.main(Namespace(**{**vars(given), "write": True}))
    published.main(given)
    assert "all 1 are the bytes" in capsys.readouterr().out
    (tmp_path / "h3a.tsv").write_text("x\n2\n", "utf-8")
    published.main(given)
    assert "1 of 1 are not the bytes" in capsys.readouterr().out
    native = loaded.model_copy(update={"arithmetic": "native"})
    (tmp_path / "study.lock.yaml").write_text(study.lock_text(native), "utf-8")
    with pytest.raises(UserError, match="one processor only"):
        published.main(Namespace(**{**vars(given), "write": True}))


def test_a_processor_of_no_class_has_none_to_publish(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = study.load(root / "config/micro.yaml")
    (tmp_path / "study.lock.yaml").write_text(study.lock_text(loaded), "utf-8")
    (tmp_path / "h3a.tsv").write_text("x\n1\n", "utf-8")
    known = {published.identity(loaded): {"study": "micro", "tables": {INTEL: {"h3a.tsv": "1"}}}}
    path = tmp_path / "p.json"
    path.write_text(json.dumps(known), "utf-8")
    arm = arithmetic.Processor("aarch64", "unknown", "an ARM", frozenset({"asimd"}))
    monkeypatch.setattr(arithmetic, "processor", lambda: arm)
    given = {"study": str(tmp_path / "study.lock.yaml"), "published": str(path)}
    published.main(Namespace(**given, write=False))
    said = capsys.readouterr().out
    assert "none are published for this processor (no x86-64 with AVX2)" in said
    with pytest.raises(UserError, match="has not the instructions of portable"):
        published.main(Namespace(**given, write=True))
    assert json.loads(path.read_text("utf-8")) == known


def test_what_is_published_is_the_default_study_as_it_is(root: Path) -> None:
    known = published.read(root / "config/published.json")
    mini = study.resolve(study.load(root / "config/mini.yaml"))
    entry = known[published.identity(mini)]
    assert entry["study"] == mini.study
    for digests in entry["tables"].values():
        assert {"h3a.tsv", "scores.tsv"} <= set(digests)
        assert all(len(d) == 64 for d in digests.values())


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text("{", "utf-8")
    with pytest.raises(UserError, match="no readable JSON"):
        published.read(path)
    assert published.read(tmp_path / "none.json") == {}
