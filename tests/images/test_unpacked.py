"""Images unpacked on one machine: the same files, once, and never in the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.installed import install
from zpdbench import files
from zpdbench.images import containers, sif, unpacked
from zpdbench.images.facts import facts_file, read_facts


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A real, small image with its record."""
    if shutil.which("mksquashfs") is None:
        if "apptainer" not in os.environ.get("ZPDBENCH_REQUIRE", ""):
            pytest.skip("needs mksquashfs (squashfs-tools); make test-cluster installs it")
        install("apptainer", "squashfs-tools")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/issue").write_text("ours\n")
    (root / "etc/link").symlink_to("issue")
    squashfs = tmp_path / "root.sqfs"
    subprocess.run(
        ["mksquashfs", root, squashfs, "-quiet", "-no-progress"], check=True, capture_output=True
    )
    path = tmp_path / "images/score-0123456789abcdef.sif"
    path.parent.mkdir()
    sif.write_sif(squashfs, path)
    facts = {"sif_bytes": path.stat().st_size, "sif_sha256": files.sha256_file(path)}
    path.with_suffix(".json").write_text(json.dumps(facts))
    return path


def test_once_and_named_as_the_image(
    image: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unpacked.unpack(image)
    target = unpacked.place(image)
    assert target is not None and target.name == image.name
    assert (target / "etc/link").read_text() == "ours\n"
    # What a job records of its image is the same in both forms.
    assert read_facts(target) == read_facts(image)
    assert "once" in capsys.readouterr().err
    (target / "etc/issue").write_text("kept\n")
    unpacked.unpack(image)
    assert (target / "etc/issue").read_text() == "kept\n"
    assert capsys.readouterr().err == ""

    monkeypatch.delenv(unpacked.VARIABLE, raising=False)
    assert unpacked.found(str(image)) == str(image)
    monkeypatch.setenv(unpacked.VARIABLE, "1")
    assert unpacked.found(str(image)) == str(target)
    # Another build of that name is another image.
    facts_file(image).write_text(json.dumps({"sif_sha256": "0" * 64}))
    assert unpacked.found(str(image)) == str(image)


def test_what_stands_in_the_way_is_said_and_leaves_nothing(
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with image.open("r+b") as handle:
        handle.truncate(sif.DATA + 200)
    unpacked.unpack(image)
    assert f"{image.name} is read as it is" in capsys.readouterr().err
    assert list((image.parent / unpacked.FOLDER).iterdir()) == []
    monkeypatch.setenv("PATH", str(tmp_path))
    unpacked.unpack(image)
    assert "there is no unsquashfs" in capsys.readouterr().err
    # Nothing is recorded of a foreign image, so nothing tells which one was unpacked.
    facts_file(image).unlink()
    assert unpacked.place(image) is None


def test_only_a_run_on_one_machine_uses_it(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Slurm jobs run elsewhere: a variable left in the shell must not reach them."""
    monkeypatch.setattr(containers, "_program", lambda: "true")
    monkeypatch.setenv("ZPDBENCH_CACHE", str(image.parent / "cache"))
    started: list[str] = []
    monkeypatch.setattr(containers, "_try", lambda _program, _args, what: started.append(what))
    containers.check([str(image)], unpack=image.parent)
    monkeypatch.setenv(unpacked.VARIABLE, "1")
    containers.check([str(image)])
    assert started == [str(unpacked.place(image)), str(image)]
    # A study's own image is not where the images are: nothing is written beside it.
    other = image.parents[1] / "theirs" / image.name
    shutil.copytree(image.parent, other.parent, ignore=shutil.ignore_patterns("unpacked", "cache"))
    containers.check([str(other)], unpack=image.parent)
    assert started[-1] == str(other)
    assert not (other.parent / unpacked.FOLDER).exists()


def test_snakemake_still_compares_the_image_s_file(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Image:
        def __init__(self, url: str) -> None:
            self.url, self.is_local = url, "://" not in url

        @property
        def path(self) -> str:
            return self.url

    unpacked.unpack(image)
    for _ in range(2):
        unpacked.substitute(Image)
    monkeypatch.setenv(unpacked.VARIABLE, "1")
    made = Image(str(image))
    assert made.url == str(image) and Path(made.path, "etc/issue").is_file()
    assert Image("docker://somewhere/else").path == "docker://somewhere/else"
    monkeypatch.delenv(unpacked.VARIABLE)
    assert made.path == str(image)
