"""`make venv` on machines that lack something: one line each, and nothing half done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = ("bash", "df", "tail", "awk", "grep", "cat", "env")


class Machine:
    """A copy of the project's set-up in a folder, and a PATH with nothing but what is put there."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.project, self.bin = folder / "a b", folder / "bin"
        (self.project / "envs").mkdir(parents=True)
        self.bin.mkdir()
        for name in ("envs/python.sh", "envs/uv.txt"):
            shutil.copy(root / name, self.project / name)
        for tool in TOOLS:
            (self.bin / tool).symlink_to(str(shutil.which(tool)))
        self.program("git", "exit 0")

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def python(self, name: str, *, without: str = "", version: str = "") -> None:
        """This interpreter under another name, without some modules or with another version."""
        lines = [f"import sys; sys.modules.update(dict.fromkeys({without.split()!r}))"]
        if version:
            lines.append(f"sys.version_info = {version}")
        start = self.bin.parent / f"start-{name}.py"
        start.write_text(
            "\n".join(lines) + "\nif sys.argv[1] == '-c': exec(sys.argv[2])\nelse: sys.exit(7)\n"
        )
        self.program(name, f'exec {sys.executable} "{start}" "$@"')

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["envs/python.sh", *arguments],
            cwd=self.project,
            env={"PATH": str(self.bin), "HOME": str(self.project)},
            capture_output=True,
            text=True,
            check=False,
        )

    def refuses(self, what: str, *arguments: str) -> None:
        before = sorted(self.project.rglob("*"))
        done = self.run(*arguments)
        assert done.returncode == 2 and done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("make: ") and what in line and line.endswith(")")
        assert sorted(self.project.rglob("*")) == before


@pytest.fixture
def machine(tmp_path: Path, root: Path) -> Machine:
    return Machine(tmp_path, root)


def test_the_machine_s_own_is_taken(machine: Machine) -> None:
    machine.python("python3", version="(3, 13)")
    machine.python("python3.11")
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{machine.bin / 'python3.11'}\n"
    machine.python("other")
    assert machine.run("other").stdout == f"{machine.bin / 'other'}\n"


def test_what_is_lacking_is_one_line(machine: Machine) -> None:
    machine.refuses("no Python 3.11 here, and no python3")
    # Debian's without python3-venv, even if it is a 3.11.
    machine.python("python3.11", without="ensurepip")
    machine.python("python3", without="ensurepip", version="(3, 13)")
    machine.refuses("apt-get install python3-venv")
    machine.python("python3", version="(3, 7)")
    machine.refuses("3.8 or newer")
    machine.python("python3", version="(3, 12)")
    machine.refuses("PYTHON=python3 is no CPython 3.11", "python3")
    machine.refuses("PYTHON=/none is no CPython 3.11", "/none")
    machine.python("python3.11")
    (machine.bin / "git").unlink()
    machine.refuses("no git here")
    machine.program("git", "exit 0")
    machine.program("df", "echo head; echo /dev/a b 9 9 5859374 9% /")
    machine.refuses("6 GB are needed")
    machine.program("df", "echo head; echo /dev/a b 9 9 5859375 9% /")
    assert machine.run().returncode == 0


@pytest.mark.parametrize("name", ["it's", 'a"b', "a$b", "a`b", "a\\b", "a{b}", "a:b", "a\nb"])
def test_a_folder_that_others_would_misread(tmp_path: Path, root: Path, name: str) -> None:
    machine = Machine(tmp_path / "x", root)
    machine.python("python3.11")
    assert machine.run().returncode == 0
    machine.project = machine.project.rename(tmp_path / name)
    done = machine.run()
    assert done.returncode == 2 and "this folder's path holds" in done.stderr


def test_what_cannot_be_fetched_is_one_line(machine: Machine) -> None:
    """With a uv that is there: what it says last is told."""
    machine.python("python3", version="(3, 13)")
    uv = machine.project / ".venv-uv/bin/uv"
    uv.parent.mkdir(parents=True)
    uv.write_text("#!/bin/sh\necho error: first >&2; echo '  cause: no network' >&2; exit 1\n")
    uv.chmod(0o755)
    done = machine.run()
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "no network" in line and "UV_PYTHON_INSTALL_MIRROR" in line


@pytest.mark.slow
def test_uv_brings_python_from_a_folder(root: Path, tmp_path: Path) -> None:
    """From a mirror that is a folder and holds this machine's own CPython; in one with a space."""
    import hashlib
    import json
    import tarfile

    base = Path(sys.base_prefix)
    if not (base / "bin/python3.11").is_file() or base in (Path("/usr"), Path("/usr/local")):
        pytest.skip("this interpreter has no folder of its own, to be packed")
    project, mirror = tmp_path / "a b", tmp_path / "mirror"
    (project / "envs").mkdir(parents=True)
    (mirror / "1").mkdir(parents=True)
    for name in ("envs/python.sh", "envs/uv.txt"):
        shutil.copy(root / name, project / name)
    # The uv of envs/uv.txt: what installs it is not what is shown here.
    (project / ".venv-uv/bin").mkdir(parents=True)
    (project / ".venv-uv/bin/uv").symlink_to(Path(sys.executable).parent / "uv")
    archive = mirror / "1/cpython.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as packed:

        def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
            left_out = ("/site-packages/", "/test/", "/__pycache__")
            return None if any(part in entry.name for part in left_out) else entry

        for part in ("bin", "lib"):
            packed.add(base / part, f"python/{part}", filter=kept)
    version = ".".join(map(str, sys.version_info[:3]))
    release = "https://github.com/astral-sh/python-build-standalone/releases/download"
    facts = {
        "name": "cpython",
        "arch": {"family": os.uname().machine, "variant": None},
        "os": "linux",
        "libc": "gnu",
        **dict(zip(("major", "minor", "patch"), sys.version_info[:3], strict=True)),
        "prerelease": "",
        "url": f"{release}/1/{archive.name}",
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "variant": None,
        "build": "1",
    }
    known = tmp_path / "known.json"
    key = f"cpython-{version}-linux-{os.uname().machine}-gnu"
    known.write_text(json.dumps({key: facts}))
    machine_bin = tmp_path / "bin"
    machine_bin.mkdir()
    for tool in (*TOOLS, "git"):
        (machine_bin / tool).symlink_to(str(shutil.which(tool)))
    # An older Python with venv is all that this machine has.
    python3 = machine_bin / "python3"
    python3.write_text(
        f"#!/bin/sh\ncase $2 in *'(3, 11)'*) exit 1;; esac\nexec {sys.executable} \"$@\"\n"
    )
    python3.chmod(0o755)
    environment = {
        "PATH": str(machine_bin),
        "HOME": str(tmp_path),
        "UV_PYTHON_INSTALL_MIRROR": mirror.as_uri(),
        "UV_PYTHON_DOWNLOADS_JSON_URL": str(known),
        "LD_LIBRARY_PATH": str(base / "lib"),
    }

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["envs/python.sh"],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    done = run()
    assert done.returncode == 0, done.stderr
    found = Path(done.stdout.removesuffix("\n"))
    assert found.is_relative_to(project / ".venv-uv/python")
    said = subprocess.check_output([found, "-c", "import sys; print(sys.version_info[:2])"])
    assert said == b"(3, 11)\n"
    # What is there is not fetched again; other bytes than those known are refused.
    archive.write_bytes(b"other")
    assert run().stdout == done.stdout
    shutil.rmtree(project / ".venv-uv/python")
    refused = run()
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
