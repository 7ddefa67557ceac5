"""What an image is called changes with what goes into it, and with nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from zpdbench.errors import UserError
from zpdbench.images import containers, names
from zpdbench.study import Images


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """A copy of the files that go into images."""
    for folder in ("containers", "envs"):
        shutil.copytree(root / folder, tmp_path / folder)
    return tmp_path


def all_names(project: Path) -> dict[str, str]:
    names.read_debian_lock.cache_clear()
    return {stage: names.image_name(project, stage) for stage in names.STAGES}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def test_each_stage_has_a_name_of_its_own(root: Path) -> None:
    found = [names.image_name(root, stage) for stage in names.STAGES]
    assert len(set(found)) == 4
    assert all(n.startswith(f"{s}-") for n, s in zip(found, names.STAGES, strict=True))


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("envs/score.txt", "polars==", "# a remark\npolars==", set()),
        ("envs/score.txt", "--hash=sha256:", "--hash=sha256:0", {"score"}),
        ("envs/dev.txt", "==", "==9", set()),
        ("containers/README.md", "#", "# Other", set()),
        ("containers/debian.lock", "libnuma1 ", "libnuma1 9:", {"serve"}),
        ("containers/debian.lock", "bash ", "bash 9:", set(names.STAGES)),
        ("containers/rootfs.sh", "set -eu", "set -eux", set(names.STAGES)),
        ("containers/zpdbench", "exec ", "exec -a x ", set(names.STAGES)),
    ],
)
def test_a_change_renames_just_what_holds_it(
    project: Path, file: str, old: str, new: str, changed: set[str]
) -> None:
    before = all_names(project)
    edit(project / file, old, new)
    after = all_names(project)
    assert {stage for stage in names.STAGES if before[stage] != after[stage]} == changed


def locked(path: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """Package -> (its pin, the hashes that are taken for it)."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for entry in path.read_text("utf-8").replace("\\\n", " ").splitlines():
        if entry and not entry.startswith("#"):
            pin, *hashes = entry.split(" --hash=")
            found[pin.split("==")[0]] = (pin.strip(), frozenset(h.strip() for h in hashes))
    return found


def test_one_host_environment_satisfies_all_stages(root: Path) -> None:
    host = locked(root / "envs/all.txt")
    parts = {p: locked(root / f"envs/{p}.txt") for p in (*names.STAGES, "workflow", "dev")}
    for part, pins in parts.items():
        assert pins and all("==" in pin and hashes for pin, hashes in pins.values()), part
        # The very files: a version alone may have several builds.
        assert {name: host.get(name) for name in pins} == pins, part
    assert set(host) == {name for pins in parts.values() for name in pins}


def test_cuda_is_another_image_where_it_is_another_lock(root: Path) -> None:
    for stage in names.STAGES:
        cpu, cuda = (names.image_name(root, stage, f) for f in ("cpu", "cuda"))
        assert (cpu != cuda) == (stage in ("train", "serve"))


def test_the_lock_holds_what_is_wanted_with_all_that_it_needs(root: Path) -> None:
    for stage in names.STAGES:
        packages = {p.name for p in names.debian_packages(root, stage)}
        assert {"python3.11-minimal", "libc6", "bash", "usr-is-merged"} <= packages
        assert not packages & {"apt", "perl", "gcc-12", "systemd"}
    assert "libnuma1" in {p.name for p in names.debian_packages(root, "serve")}
    assert "libnuma1" not in {p.name for p in names.debian_packages(root, "score")}


def test_a_malformed_lock_names_its_line(project: Path) -> None:
    (project / "containers/debian.lock").write_text("# fine\nbash 5.2 amd64 short score\n")
    names.read_debian_lock.cache_clear()
    with pytest.raises(UserError, match=r"debian\.lock:2"):
        names.image_name(project, "score")


def test_files_follow_the_configuration(root: Path) -> None:
    digest = "sha256:" + "0" * 64
    images = Images(folder="elsewhere", score=f"docker://example.test/score@{digest}")
    chosen = containers.image_files(images, root)
    assert chosen["score"] == f"docker://example.test/score@{digest}"
    assert chosen["stats"] == f"elsewhere/{names.image_name(root, 'stats')}.sif"


def test_an_address_without_a_digest_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a digest"):
        Images(score="docker://example.test/score:latest")
