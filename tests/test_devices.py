"""The choice of device and engine, on platforms that are not this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from zpdbench import devices, preflight, study
from zpdbench.errors import UserError


@pytest.mark.parametrize(
    ("wants", "cuda", "mps", "chosen"),
    [
        (True, True, False, "cuda"),
        (True, True, True, "cuda"),
        (True, False, True, "mps"),
        # A small model's bytes are promised on the CPU.
        (False, True, True, "cpu"),
    ],
)
def test_device(wants: bool, cuda: bool, mps: bool, chosen: str) -> None:
    assert devices.choose(wants, cuda=cuda, mps=mps, environment={}) == chosen


def test_a_model_that_wants_a_gpu_is_not_trained_on_the_cpu_in_silence() -> None:
    with pytest.raises(UserError, match="wants a GPU") as raised:
        devices.choose(True, cuda=False, mps=False, environment={})
    assert "partition" in raised.value.fix and "nv: true" in raised.value.fix
    meant = {devices.VARIABLE: "cpu"}
    assert devices.choose(True, cuda=False, mps=False, environment=meant) == "cpu"
    assert devices.choose(False, cuda=False, mps=False, environment={}) == "cpu"


def test_gpus_that_show_without_torch(tmp_path: Path) -> None:
    assert devices.gpu_here("Linux", "x86_64", tmp_path) is None
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    assert devices.gpu_here("Linux", "x86_64", tmp_path) == "/dev/nvidia0"
    assert devices.gpu_here("Darwin", "arm64", tmp_path) == "Metal"
    assert devices.gpu_here("Darwin", "x86_64", tmp_path) is None


def test_before_the_first_job(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    r4 = study.load(root / "config/r4.yaml")
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    monkeypatch.setattr(devices, "gpu_here", lambda: None)
    with pytest.raises(UserError, match=r"qwen2\.5-7b wants a GPU, and this machine has none"):
        preflight.check_gpu(r4, ["qwen2.5-7b"])
    preflight.check_gpu(r4, [])
    preflight.check_gpu(study.load(root / "config/mini.yaml"), ["mini-qwen", "mini-solar"])
    monkeypatch.setattr(devices, "gpu_here", lambda: "/dev/nvidia0")
    preflight.check_gpu(r4, ["qwen2.5-7b"])
    with pytest.raises(UserError, match="containers are given none"):
        preflight.check_gpu(r4, ["qwen2.5-7b"], contained=True)
    monkeypatch.setenv(devices.VARIABLE, "cpu")
    preflight.check_gpu(r4, ["qwen2.5-7b"], contained=True)


def test_what_is_too_large_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ladder = study.load(root / "config/ladder.yaml")
    preflight.note_size(ladder, ["qwen2.5-7b", "qwen2.5-72b"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: qwen2.5-72b: training takes about")


def test_the_environment_decides_what_is_there() -> None:
    asked = {devices.VARIABLE: "cpu"}
    assert devices.choose(True, cuda=True, mps=False, environment=asked) == "cpu"
    asked = {devices.VARIABLE: "cuda"}
    assert devices.choose(False, cuda=True, mps=False, environment=asked) == "cuda"
    with pytest.raises(UserError, match=r"no device 'cuda' here \(one of cpu"):
        devices.choose(True, cuda=False, mps=False, environment=asked)
    with pytest.raises(UserError, match="no device 'tpu' here"):
        devices.choose(True, cuda=True, mps=True, environment={devices.VARIABLE: "tpu"})


@pytest.mark.parametrize(
    ("system", "machine", "has", "engine"),
    [
        ("Linux", "x86_64", True, "vllm"),
        ("Linux", "x86_64", False, "transformers"),
        ("Darwin", "arm64", True, "transformers"),
        ("Darwin", "arm64", False, "transformers"),
        ("Windows", "AMD64", True, "transformers"),
    ],
)
def test_engine(system: str, machine: str, has: bool, engine: str) -> None:
    assert devices.engine_for(system, machine, lambda name: has) == engine
