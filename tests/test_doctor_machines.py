"""What doctor says of machines, this one and others."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from zpdbench import devices, doctor
from zpdbench.errors import UserError


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder of data, no wish of the environment, and a sandbox that needs no start."""
    monkeypatch.delenv("ZPDBENCH_DATA", raising=False)
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    monkeypatch.setattr(devices, "find", lambda wants, count=1: "cpu")
    monkeypatch.setattr("zpdbench.sandbox.layers", lambda: [("namespaces", True, "")])


def finding(folder: Path, what: str) -> doctor.Finding:
    return next(f for f in doctor.examine(folder) if f.what == what)


@pytest.mark.parametrize(
    ("device", "memory", "said"),
    [("cuda", 24e9, "cuda, 24 GB"), ("mps", 17.2e9, "mps, 17 GB"), ("cpu", 25.3e9, "cpu, 25 GB")],
)
def test_the_device_that_is_chosen_and_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, memory: float, said: str
) -> None:
    monkeypatch.setattr(devices, "find", lambda wants, count=1: device)
    monkeypatch.setattr(devices, "memory_gb", lambda name: memory / 1e9)
    assert finding(tmp_path, "device of real models").detail == said


def test_a_device_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(wants: bool, count: int = 1) -> str:
        raise UserError("no device 'cuda' here", where=devices.VARIABLE, fix="unset it")

    monkeypatch.setattr(devices, "find", refuse)
    found = finding(tmp_path, "device of real models")
    assert not found.ok and not found.needed
    monkeypatch.setenv(devices.VARIABLE, "cuda")
    found = finding(tmp_path, "device of real models")
    assert found.needed and "unset it" in found.fix


def test_on_a_mac_programs_are_not_run_and_all_else_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    found = finding(tmp_path, "model-written programs")
    assert not found.ok and not found.needed and "humaneval" in found.fix
    assert finding(tmp_path, "engine").detail == "transformers"


def test_data_are_where_they_are_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared/data").mkdir(parents=True)
    (tmp_path / "clone").mkdir()
    monkeypatch.chdir(tmp_path / "clone")
    assert not finding(tmp_path, "local data sets").ok
    monkeypatch.setenv("ZPDBENCH_DATA", str(tmp_path / "shared/data"))
    assert finding(tmp_path, "local data sets").ok


def test_only_what_is_needed_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = doctor.Finding("sandbox", "namespaces", False, "-", "allow them", needed=True)
    nice = doctor.Finding("cluster", "Slurm", False, "-", "docs/clusters.md")
    monkeypatch.setattr(doctor, "examine", lambda folder, study=None: [nice])
    assert doctor.main(argparse.Namespace(configfile=None)) == 0
    monkeypatch.setattr(doctor, "examine", lambda folder, study=None: [nice, needed])
    assert doctor.main(argparse.Namespace(configfile=None)) == 1
    said = capsys.readouterr().out
    assert "MISSING" in said and "allow them" in said


def test_this_machine_s_memory() -> None:
    assert devices.memory_gb("cpu") > 1
