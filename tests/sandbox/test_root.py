"""The minimal root: found by reading ELF headers, complete, and with nothing else in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zpdbench.sandbox import Limits, Pool, Program, root

LIST = """    pass

import os
def f(x):
    found = []
    for folder, folders, files in os.walk('/'):
        if folder.startswith('/python/lib/python3'):
            continue
        found += [os.path.join(folder, n) for n in files]
    return found
"""


def test_libraries_are_those_that_the_loader_takes() -> None:
    """What the headers say against what the dynamic loader itself lists."""
    executable = os.path.realpath(sys._base_executable)  # type: ignore[attr-defined]
    loader, needed, _ = root.read_elf(executable)
    assert Path(loader).is_file()
    listed = subprocess.run(
        [loader, "--list", executable], capture_output=True, text=True, check=True
    ).stdout
    names = {line.split()[0] for line in listed.splitlines() if "=>" in line}
    # A library that this machine loads into every program (LD_PRELOAD) is listed by its path,
    # and what it needs beside the rest; inside the sandbox there is no such library.
    rest = [line.split()[0] for line in listed.splitlines() if line and "=>" not in line]
    for path in rest:
        if path.startswith("/") and os.path.realpath(path) != os.path.realpath(loader):
            names -= set(root.read_elf(path)[1]) - set(needed)
    bound = {Path(place).name for _, place in root.minimal_root().binds}
    assert set(needed) - {Path(loader).name} <= names <= bound | {Path(loader).name}


def test_files_that_are_no_elf_name_nothing(tmp_path: Path) -> None:
    for content in (b"", b"x", b"\x7fELF\x01\x01" + bytes(100), b"#!/bin/sh\n"):
        path = tmp_path / "file"
        path.write_bytes(content)
        assert root.read_elf(str(path)) == ("", [], [])


def test_every_module_of_the_standard_library_that_can_be_imported_is() -> None:
    """Each extension module finds its libraries inside."""
    source = (
        "    pass\n\nimport importlib, os\ndef f(x):\n    missing = []\n"
        "    folder = os.path.join(os.path.dirname(os.__file__), 'lib-dynload')\n"
        "    for name in sorted({n.split('.')[0] for n in x}):\n"
        "        try:\n            importlib.import_module(name)\n"
        "        except ImportError as e:\n            missing.append(str(e))\n"
        "    return missing\n"
    )
    library = Path(os.__file__).parent / "lib-dynload"
    names = [p.name for p in library.glob("*.so") if not p.name.startswith(("_tkinter", "_test"))]
    test = f"def check(c):\n    out = c({names!r})\n    assert out == [], out\n"
    with Pool(limits=Limits(cpu_seconds=20.0, wall_seconds=120.0)) as pool:
        verdict = pool.judge([Program("k", "def f(x):\n", source, test, "f")])[0]
    assert verdict.passed, verdict


@pytest.mark.parametrize("waive", [[], ["landlock"]])
def test_nothing_else_is_there(waive: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """All files that a program finds: the interpreter, its libraries, four devices."""
    settings = "zpdbench.sandbox.pool.Server._settings"
    if waive:
        # Without Landlock's rules the whole root can be listed.
        from zpdbench.sandbox.pool import Server

        original = Server._settings
        wide = lambda self, limits: {**original(self, limits), "readable": ["/missing"]}  # noqa: E731
        monkeypatch.setattr(settings, wide)
    test = (
        "def check(c):\n"
        "    for path in c(0):\n"
        "        assert path.startswith(('/python/bin/', '/python/lib/', '/lib', '/dev/')), path\n"
        "        assert not path.startswith('/dev/') or path[5:] in "
        "('null', 'zero', 'random', 'urandom'), path\n"
    )
    with Pool(waive=waive) as pool:
        verdict = pool.judge([Program("k", "def f(x):\n", LIST, test, "f")])[0]
    assert verdict.passed, verdict
