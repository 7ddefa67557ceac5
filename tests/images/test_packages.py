"""Packages on their way into an image: by hash, without a trace of this machine."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from zpdbench import files, records
from zpdbench.errors import UserError
from zpdbench.images import debian, names, wheel, wheels
from zpdbench.images.names import DebianPackage

LOCK = """\
alpha==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
beta-x==2.0+cpu \\
    --hash=sha256:cc
gamma==3.0
"""


def test_a_lock_without_a_package_has_none_of_its_lines() -> None:
    assert wheels.without(LOCK, frozenset({"beta-x"})) == LOCK.replace(
        "beta-x==2.0+cpu \\\n    --hash=sha256:cc\n", ""
    )
    assert wheels.without(LOCK, frozenset({"beta"})) == LOCK


def test_every_exception_is_of_a_locked_package(root: Path) -> None:
    special = names.read_exceptions(root / "containers/exceptions.txt")
    locks = "".join(names.python_lock(root, s).read_text("utf-8") for s in names.STAGES)
    assert special and set(special) <= set(wheels.packages(locks))
    for how in special.values():
        assert how == ("left-out",) or all("==" in requirement for requirement in how[1:])


def test_a_malformed_exception_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "exceptions.txt"
    path.write_text("# fine\nalpha left-out\nbeta skip\n")
    with pytest.raises(UserError, match=r"exceptions\.txt:3"):
        names.read_exceptions(path)


def test_an_installed_package_keeps_no_trace_of_the_installer(tmp_path: Path) -> None:
    info = tmp_path / "alpha-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: Alpha_X\nVersion: 1.0\nLicense-Expression: MIT\n")
    (info / "INSTALLER").write_text("uv")
    (info / "direct_url.json").write_text("{}")
    (info / "RECORD").write_text(
        "bin/alpha,sha256=x,10\nalpha/__init__.py,sha256=y,5\n"
        "alpha-1.0.dist-info/INSTALLER,sha256=z,2\nalpha-1.0.dist-info/RECORD,,\n"
    )
    package = wheels._normalise(info)
    assert (package.name, package.version, package.license) == ("alpha-x", "1.0", "MIT")
    assert package.size == 5
    assert sorted(p.name for p in info.iterdir()) == ["METADATA", "RECORD"]
    assert (info / "RECORD").read_text() == (
        "alpha-1.0.dist-info/RECORD,,\nalpha/__init__.py,sha256=y,5\n"
    )


@pytest.fixture
def deb(tmp_path: Path) -> Path:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb: this is no Debian")
    tree = tmp_path / "tree/DEBIAN"
    tree.mkdir(parents=True)
    (tree / "control").write_text(
        "Package: tiny\nVersion: 1:1.0\nArchitecture: all\nMaintainer: T <t@example.test>\n"
        "Description: nothing\n"
    )
    path = tmp_path / "debs/tiny_1%3a1.0_all.deb"
    path.parent.mkdir()
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", str(tree.parent), str(path)],
        check=True,
        capture_output=True,
    )
    return path


def package(sha256: str) -> DebianPackage:
    return DebianPackage("tiny", "1:1.0", "all", sha256, ("score",))


def test_a_cached_package_is_used_only_with_the_locked_hash(deb: Path, tmp_path: Path) -> None:
    right = files.sha256_file(deb)
    assert debian.fetch([package(right)], deb.parent, tmp_path / "apt") == [deb]
    with pytest.raises(UserError, match="another hash"):
        debian.fetch([package("0" * 64)], deb.parent, tmp_path / "apt")
    assert not deb.exists()


def test_the_repository_offers_just_what_is_given(deb: Path, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    debian.write_repository([deb], folder)
    packages = folder / "dists/bookworm/main/binary-amd64/Packages"
    text = packages.read_text("utf-8")
    assert text.count("Package: ") == 1
    assert f"SHA256: {files.sha256_file(deb)}" in text
    named = re.search(r"^Filename: (.*)$", text, re.M)
    assert named and (folder / named[1]).read_bytes() == deb.read_bytes()
    release = (folder / "dists/bookworm/Release").read_text("utf-8")
    assert hashlib.sha256(packages.read_bytes()).hexdigest() in release


def test_a_missing_tool_names_the_package_that_has_it() -> None:
    with pytest.raises(UserError, match="mmdebstrap is not installed") as raised:
        debian.run(["mmdebstrap"], env={"PATH": "/nonexistent"})
    assert "apt-get install mmdebstrap" in raised.value.fix


def test_a_failing_tool_says_its_last_words() -> None:
    with pytest.raises(UserError, match="exit code 3: last words"):
        debian.run(["sh", "-c", "echo last words >&2; exit 3"])


def test_the_wheel_is_the_package_and_the_same_each_time(root: Path, tmp_path: Path) -> None:
    first, second = (wheel.unpacked(root, tmp_path / name) for name in ("a", "b"))
    assert first.name == second.name == f"wheel-{wheel.source_digest(root)}"
    digests = [(f / "WHEEL.sha256").read_text("utf-8") for f in (first, second)]
    assert digests[0] == digests[1]
    ours = root / "src/zpdbench"
    assert records.code_files(first / "zpdbench") == records.code_files(ours)
    compiled = list(first.glob("zpdbench/**/*.pyc"))
    assert len(compiled) >= len(list(ours.rglob("*.py")))
    # Asked again it is there already.
    assert wheel.unpacked(root, tmp_path / "a") == first
