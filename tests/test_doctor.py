"""What `zpdbench doctor` looks for beyond the machine itself: a study's images, GPUs, a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from zpdbench import cluster, devices, doctor, study
from zpdbench.doctor import Finding


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def look(folder: Path, *configs: Path) -> dict[str, Finding]:
    given = study.load(*configs) if configs else None
    return {finding.what: finding for finding in doctor.examine(folder, given)}


def test_a_studys_images_and_gpus(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "gpu_here", lambda: None)
    (tmp_path / "own.yaml").write_text("images: {folder: shared}\n")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/old.sif").write_bytes(b"no image")
    found = look(tmp_path, root / "config/r4.yaml", tmp_path / "own.yaml")
    for stage in ("train", "serve", "score", "stats"):
        image = found[f"image of {stage}"]
        assert not image.ok and image.detail.startswith("shared/")
        assert "snakemake --cores all images" in image.fix
    assert not found["old.sif"].ok
    gpu = found["GPU"]
    assert not gpu.ok and "qwen2.5-7b, solar-10.7b want one" in gpu.fix
    assert look(tmp_path, root / "config/mini.yaml")["GPU"].ok
    assert {"mmdebstrap", "mksquashfs"} <= set(found)
    monkeypatch.setattr(devices, "gpu_here", lambda: "/dev/nvidia0")
    assert look(tmp_path, root / "config/r4.yaml")["GPU"].ok


def test_looking_claims_no_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def claim(count: int) -> None:
        raise AssertionError("a card was claimed")

    monkeypatch.setattr(devices, "claim", claim)
    assert "device of real models" in look(tmp_path)


def test_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}")
    assert [ok for _, ok, _, _ in cluster.examine()] == [False]
    program(tmp_path, "sbatch", "exit 0")
    program(tmp_path, "scontrol", "exit 1")
    assert [ok for _, ok, _, _ in cluster.examine()] == [True, False]
    program(tmp_path, "scontrol", "echo 'Slurmctld(primary) at head is UP'")
    program(tmp_path, "sinfo", "echo 'cpu* up infinite (null)'; echo 'gpu up 1-00:00:00 gpu:4'")
    found = cluster.examine()
    assert [ok for _, ok, _, _ in found] == [True, True, True]
    assert "gpu up 1-00:00:00 gpu:4" in found[-1][2]
