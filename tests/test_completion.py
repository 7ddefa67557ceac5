"""The completion script, asked as bash asks it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from zpdbench import cli, completion


def complete(*words: str) -> list[str]:
    """What bash offers for the last of these words."""
    listed = " ".join(f"'{w}'" for w in words)
    code = (
        f"{completion.script('bash')}\nCOMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; "
        '_zpdbench; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run([bash, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_verbs() -> None:
    assert complete("zpdbench", "pl") == ["plan"]
    assert set(cli.VERBS) <= set(complete("zpdbench", ""))


def test_options_of_the_verb() -> None:
    assert complete("zpdbench", "plan", "--conf") == ["--configfile"]
    assert "--price" in complete("zpdbench", "plan", "--")
    assert "--price" not in complete("zpdbench", "doctor", "--")


def test_files(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert complete("zpdbench", "plan", "--configfile", "mi") == ["mine.yaml"]
