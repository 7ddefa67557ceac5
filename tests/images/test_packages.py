"""Packages on their way into an image: by hash, without a trace of this machine."""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from zpdbench import files, records
from zpdbench.errors import UserError
from zpdbench.images import build_image, debian, names, wheel, wheels
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


@pytest.mark.parametrize(
    ("flavour", "find_links", "backend"),
    [("cpu", None, True), ("cuda", None, False), ("cpu", "/wheels", False)],
)
def test_each_flavour_asks_for_its_own_torch(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flavour: names.Flavour,
    find_links: str | None,
    backend: bool,
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(wheels, "run", lambda command, **_: commands.append(command) or "")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    if find_links:
        monkeypatch.setenv("PIP_FIND_LINKS", find_links)
    (tmp_path / "lock.txt").write_text(LOCK)
    (tmp_path / "site").mkdir()
    wheels.install(tmp_path / "lock.txt", {}, tmp_path / "site", flavour)
    (install,) = [c for c in commands if "install" in c]
    assert ("--torch-backend" in install) == backend
    assert ("--find-links" in install) == bool(find_links)


def test_a_full_disk_is_told_as_one() -> None:
    for stream in ("", ">&2"):
        command = ["sh", "-c", f"echo 'x: No space left on device (os error 28)' {stream}; exit 2"]
        with pytest.raises(UserError, match="the disk is full") as raised:
            debian.run(command)
        assert "TMPDIR" in raised.value.fix


def test_a_full_disk_at_the_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "x.sif")

    monkeypatch.setattr(build_image, "build_image", full)
    arguments = argparse.Namespace(project=str(tmp_path), stage="s", flavour="cpu", out="x.sif")
    with pytest.raises(UserError, match="No space left") as raised:
        build_image.main(arguments)
    assert raised.value.fix == debian.FREE


@pytest.mark.parametrize(
    ("script", "passes"),
    [
        ("exit 0", True),
        ("echo \"*** Error compiling 'x.py'...\nSyntaxError: invalid\"; exit 1", True),
        ("echo '*** OSError: [Errno 28] No space left on device'; exit 1", False),
        ("echo 'no such file' >&2; exit 127", False),
        ("exit 9", False),
    ],
)
def test_byte_code_that_was_not_compiled_is_no_image(
    root: Path, tmp_path: Path, script: str, passes: bool
) -> None:
    """rootfs.sh, with a chroot of ours in place of the real one."""
    new, site = tmp_path / "new", tmp_path / "site"
    for folder in ("usr/bin", "usr/local/bin", "etc/apt/sources.list.d", "var", "tmp"):
        (new / folder).mkdir(parents=True)
    site.mkdir()
    chroot = tmp_path / "bin/chroot"
    chroot.parent.mkdir()
    chroot.write_text(f"#!/bin/sh\n{script}\n")
    chroot.chmod(0o755)
    done = subprocess.run(
        [str(root / "containers/rootfs.sh"), str(new), str(site), str(root / "containers")],
        env={"PATH": f"{chroot.parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == passes, done.stderr
    assert passes or "byte code cannot be compiled" in done.stderr


def test_a_record_names_the_wheel_it_ran_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert records.machine()["wheel"] is None
    (tmp_path / "zpdbench").mkdir()
    (tmp_path / "WHEEL.sha256").write_text("abc  zpdbench-0.1.0-py3-none-any.whl\n")
    monkeypatch.setattr(records, "__file__", str(tmp_path / "zpdbench/records.py"))
    assert records.machine()["wheel"] == "abc"


def test_a_record_names_the_digests_of_its_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert records.machine()["image"] is None and records.machine()["image_digests"] is None
    monkeypatch.setenv("APPTAINER_CONTAINER", str(tmp_path / "score-0123456789abcdef.sif"))
    assert records.machine()["image_digests"] is None
    digests = {"sif_sha256": "a", "rootfs_sha256": "b", "oci_manifest": "sha256:c"}
    facts = tmp_path / "score-0123456789abcdef.json"
    facts.write_text(json.dumps({**digests, "sif_bytes": 4096}), "utf-8")
    assert records.machine()["image"] == "score-0123456789abcdef.sif"
    assert records.machine()["image_digests"] == digests
    facts.write_text("[]", "utf-8")
    assert records.machine()["image_digests"] is None


def test_apt_is_told_absolute_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule names its output relative to the working directory; apt would look below /etc/apt."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.sources").write_text("Types: deb\n")
    apt = debian.Apt(Path("images/apt"), Path("own.sources"))
    folders = [o.split("=", 1)[1] for o in apt._options if o.startswith("Dir::")]
    assert folders and all(Path(folder).is_absolute() for folder in folders)
