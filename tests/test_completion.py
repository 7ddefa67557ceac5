"""The completion script, asked as bash asks it."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installed import install
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


class Zsh:
    """An interactive zsh of its own on a terminal, without anybody's start-up files."""

    def __init__(self, folder: Path, shell: str) -> None:
        self.process, self.terminal = pty.fork()
        if self.process == 0:
            os.chdir(folder)
            environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(folder)}
            os.execve(shell, ["zsh", "-f", "-i"], environment)
        self.said = ""
        (folder / "completion").write_text(completion.script("zsh"), "utf-8")
        self.type("PS1='> '; unsetopt zle_bracketed_paste; setopt no_list_ambiguous\n")
        self.type("autoload -U compinit && compinit -u && . ./completion && echo re''ady\n")
        self.wait("ready")

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def wait(self, wanted: str, seconds: float = 60) -> str:
        """Read until the shell has said something; what it said up to there."""
        end = time.monotonic() + seconds
        while wanted not in self.said:
            assert time.monotonic() < end, self.said[-2000:]
            if select.select([self.terminal], [], [], 0.2)[0]:
                self.said += os.read(self.terminal, 65536).decode("utf-8", "replace")
        before, self.said = self.said.split(wanted, 1)
        return before + wanted

    def close(self) -> None:
        os.close(self.terminal)
        os.waitpid(self.process, 0)


@pytest.fixture
def zsh(tmp_path: Path) -> Iterator[Zsh]:
    if shutil.which("zsh") is None:
        install("zsh", "zsh")
    shell = shutil.which("zsh")
    assert shell is not None
    running = Zsh(tmp_path, shell)
    yield running
    running.close()


def test_zsh_completes_verbs_options_and_files(zsh: Zsh, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("")
    # ^A goes to the line's start, and printf shows the words that the line came to.
    for typed, wanted in (
        ("zpdbench pla\t", "[zpdbench][plan]"),
        ("zpdbench plan --conf\t", "[zpdbench][plan][--configfile]"),
        ("zpdbench plan --configfile mi\t", "[zpdbench][plan][--configfile][mine.yaml]"),
        ("zpdbench doctor --pri\t", "[zpdbench][doctor][--pri]"),
    ):
        zsh.type(typed + "\x01printf '[%s]' \n")
        zsh.wait(wanted)
