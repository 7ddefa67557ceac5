"""What a verb is told to write to is looked at before it computes anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zpdbench import cli

ITEMS = '{"question": "1+1?", "answer": "one more than 1\\n#### 2"}\n'
ANSWERS = json.dumps({"item_id": "0", "sample": 0, "text": "#### 2"}) + "\n"


@pytest.fixture
def score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("ZPDBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "items.jsonl").write_text(ITEMS)
    (tmp_path / "answers.jsonl").write_text(ANSWERS)
    command = ["score", "gsm8k", "--items", str(tmp_path / "items.jsonl")]
    return [*command, "--generations", str(tmp_path / "answers.jsonl"), "--out"]


@pytest.mark.parametrize("name", ["folder", "items.jsonl/x", "loop", "to_folder", ""])
def test_no_file_can_be_written_there(
    score: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "to_folder").symlink_to("folder")
    (tmp_path / "loop").symlink_to("loop")
    # It would be found first, if anything were read before.
    (tmp_path / "answers.jsonl").write_text("no JSON")
    assert cli.main([*score, str(tmp_path / name)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"zpdbench score: {tmp_path / name}: ") and "another name" in line


def test_a_folder_with_other_files_is_not_replaced(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("kept")
    study = str(root / "config/micro.yaml")
    command = ["make-checkpoint", "--study", study, "--model", "mini-qwen", "--out"]
    assert cli.main([*command, str(tmp_path)]) == 2
    assert "not this command's" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "kept"
    assert cli.main([*command, str(tmp_path / "thesis.txt")]) == 2
    assert "is a file already" in capsys.readouterr().err


def test_verdicts_through_a_pipe(score: list[str], tmp_path: Path) -> None:
    program = f"{str(Path(sys.executable).parent / 'zpdbench')!r} {' '.join(map(repr, score))}"
    copy = tmp_path / "copy.tsv"
    script = f"{program} /dev/stdout | tee {str(copy)!r}; {program} >(cat); wait"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert copy.read_text().startswith("item_id\t")
    # In a process substitution nobody says when.
    assert sorted(done.stdout.splitlines()) == sorted(copy.read_text().splitlines() * 2)
    assert not [p for p in map(Path, ("/dev/stdout.timing.json",)) if os.path.lexists(p)]
