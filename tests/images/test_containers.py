"""What must be there before a rule runs in an image, and what is told when it is not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from zpdbench import files
from zpdbench.errors import UserError
from zpdbench.images import containers, sif
from zpdbench.study import Hub, Study, load


@pytest.fixture
def study(root: Path) -> Study:
    return load(root / "config/mini.yaml")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    squashfs = tmp_path / "root.sqfs"
    squashfs.write_bytes(b"hsqs" + bytes(4096))
    path = tmp_path / "score-0123456789abcdef.sif"
    sif.write_sif(squashfs, path)
    facts = {"sif_bytes": path.stat().st_size, "sif_sha256": files.sha256_file(path)}
    path.with_suffix(".json").write_text(json.dumps(facts))
    return path


@pytest.fixture
def no_apptainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def fake_apptainer(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "bin/apptainer"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


@pytest.mark.usefixtures("no_apptainer")
def test_without_apptainer(study: Study, root: Path) -> None:
    with pytest.raises(UserError, match="no apptainer on PATH") as raised:
        containers.enter(study, root)
    assert "install-apptainer.sh" in raised.value.fix


def test_a_missing_image_names_the_command_that_builds_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such image") as raised:
        containers.check([str(tmp_path / "stats.sif")])
    assert raised.value.fix == "snakemake --cores all images"


def test_a_whole_image_passes(image: Path) -> None:
    containers.check_image(image)


def test_an_image_of_another_size_than_built_is_told(image: Path) -> None:
    with image.open("ab") as handle:
        handle.write(b"more")
    with pytest.raises(UserError, match="another size"):
        containers.check_image(image)


def test_an_image_of_the_right_size_with_other_bytes_is_told(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZPDBENCH_CACHE", str(tmp_path / "cache"))
    fake_apptainer(tmp_path, monkeypatch, "exit 0")
    containers.check([str(image)])
    hashed: list[Path] = []
    monkeypatch.setattr(files, "sha256_file", lambda path: hashed.append(path) or "0" * 64)
    # Verified once, it is not read again until it changes; a touched file is read, and as built.
    containers.check([str(image)])
    assert not hashed
    monkeypatch.undo()
    monkeypatch.setenv("ZPDBENCH_CACHE", str(tmp_path / "cache"))
    data = bytearray(image.read_bytes())
    data[-1] ^= 1
    image.write_bytes(data)
    with pytest.raises(UserError, match="another SHA-256"):
        containers.check([str(image)])


def test_a_container_that_does_not_start_says_why(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "FATAL:   could not use unprivileged user namespaces"
    fake_apptainer(tmp_path, monkeypatch, f"echo '{reason}' >&2; exit 255")
    with pytest.raises(UserError, match="could not use unprivileged user namespaces") as raised:
        containers.check([str(image)], "--userns")
    assert "docs/clusters.md" in raised.value.fix


def test_images_of_a_registry_are_not_looked_for_here() -> None:
    containers.check(["docker://example.test/score@sha256:" + "0" * 64])


def test_what_lies_outside_the_working_directory_is_bound(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, scratch = tmp_path / "here", tmp_path / "scratch"
    (here / "data").mkdir(parents=True)
    scratch.mkdir()
    (here / "results").symlink_to(scratch)
    monkeypatch.chdir(here)
    monkeypatch.setenv("ZPDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "/broken")
    monkeypatch.delenv("ZPDBENCH_DATA", raising=False)
    given = study.model_copy(update={"data_dir": "data"})
    settings = containers._settings(given, here, Path("/wheel"), dict(os.environ), {})
    binds = settings["APPTAINER_BINDPATH"].split(",")
    assert binds[0] == "/wheel:/opt/zpdbench:ro"
    assert binds[1].endswith(f":{settings['APPTAINERENV_TMPDIR']}")
    assert f"{scratch}:{scratch}" in binds
    assert f"{tmp_path}/cache:{tmp_path}/cache" in binds
    # Inside the working directory, which is bound as it is.
    assert not any("/data" in bind for bind in binds)
    assert settings["APPTAINER_CONTAINALL"] == "1"
    assert settings["APPTAINERENV_HF_TOKEN"] == "secret"
    assert not any("PYTHONPATH" in name for name in settings)
    assert "APPTAINER_NV" not in settings


def test_gpus_are_given_by_configuration(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = study.images.model_copy(update={"nv": True})
    settings = containers._settings(
        study.model_copy(update={"images": images}), tmp_path, Path("/w"), {}, {}
    )
    assert settings["APPTAINER_NV"] == "1"


def test_folders_of_the_hub_are_bound(study: Study, root: Path, tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    hub = Hub(cache=str(tmp_path / "hub"), folder=str(tmp_path / "mirror"))
    given = study.model_copy(update={"hub": hub, "results": str(tmp_path / "results")})
    assert str(tmp_path / "hub") in containers._writable(given)
    assert str(tmp_path / "mirror") in containers._readable(given, root, {})


def test_what_was_recorded_of_an_image_is_bound(study: Study, root: Path, image: Path) -> None:
    """A job inside records its image's digests; of a folder that is not ours nothing else."""
    images = study.images.model_copy(update={"score": str(image)})
    given = study.model_copy(update={"images": images})
    bound = containers._readable(given, root, {})
    assert str(image.with_suffix(".json")) in bound
    assert not {str(image), str(image.parent)} & set(bound)


def test_what_is_verified_is_bound_read_only(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, home = tmp_path / "here", tmp_path / "home"
    (home / "data").mkdir(parents=True)
    here.mkdir()
    for name in ("crate.zip", "crate.zip.sig", "signers", "of-no-use", "other.sig"):
        (home / name).touch()
    (here / "mine.zip").touch()
    monkeypatch.chdir(here)
    monkeypatch.delenv("ZPDBENCH_DATA", raising=False)

    def bound(**given: object) -> set[str]:
        settings = containers._settings(study, here, Path("/wheel"), {}, given)
        binds = settings["APPTAINER_BINDPATH"].split(",")
        return {bind.split(":")[0] for bind in binds if bind.endswith(":ro")} - {"/wheel"}

    # Named from the working directory or not; a signature beside a bundle comes with it.
    assert bound(bundle="../home/crate.zip") == {f"{home}/crate.zip", f"{home}/crate.zip.sig"}
    given = {"data": home / "data", "signers": home / "signers", "signature": home / "other.sig"}
    assert bound(bundle="mine.zip", level=2, **given) == {str(path) for path in given.values()}
    assert bound(bundle=str(home)) == {str(home)}
    # What is not there is left to `verify` to tell: Apptainer would only say that it cannot bind.
    assert bound(bundle="/nowhere/crate.zip") == set()
