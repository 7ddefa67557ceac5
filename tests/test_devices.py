"""The choice of device and engine, on platforms that are not this one."""

from __future__ import annotations

import os
import subprocess
import sys
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


TAKE = """
import sys, time
from pathlib import Path
from zpdbench import devices
print(*devices.claim(int(sys.argv[2]), cards=["0", "1", "2"], folder=Path(sys.argv[1]),
                     environment={}, patience=0.05), flush=True)
sys.stdin.readline()
"""


def test_jobs_on_one_machine_take_different_cards(tmp_path: Path) -> None:
    def job(count: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", TAKE, str(tmp_path), str(count)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    first, second = job(1), job(1)
    seen = {first.stdout.readline().strip(), second.stdout.readline().strip()}  # type: ignore[union-attr]
    assert seen <= {"0", "1", "2"} and len(seen) == 2
    both = job(2)  # waits: one card is free
    with pytest.raises(subprocess.TimeoutExpired):
        both.wait(timeout=1)
    first.kill()  # its cards are free at once, whatever ended it
    assert len(both.stdout.readline().split()) == 2  # type: ignore[union-attr]
    for process in (first, second, both):
        process.kill()
        process.communicate()


def test_cards_are_claimed_where_no_scheduler_binds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_held", [])
    in_slurm = {"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0,1"}
    assert devices.claim(1, folder=tmp_path, environment=in_slurm) == []
    assert devices.claim(1, cards=[], folder=tmp_path, environment={}) == []
    with pytest.raises(UserError, match="wants 4 GPUs, and there are 2"):
        devices.claim(4, cards=["0", "1"], folder=tmp_path, environment={})
    visible = {"CUDA_VISIBLE_DEVICES": "2,3"}
    assert devices.claim(2, folder=tmp_path, environment=visible) == ["2", "3"]
    visible = {"CUDA_VISIBLE_DEVICES": "5,6"}
    # What this process has, it keeps.
    assert devices.claim(1, folder=tmp_path, environment=visible) == []


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


def test_the_best_device_of_a_machine_without_a_gpu_is_its_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.delenv(devices.VARIABLE, raising=False)
    for cuda, mps, best in ((False, False, "cpu"), (False, True, "mps"), (True, False, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=cuda: found)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda found=mps: found)
        assert devices.best() == best


@pytest.mark.parametrize(("cuda", "chosen"), [(True, "cuda"), (False, "cpu")])
def test_where_the_cpu_will_do_a_gpu_is_taken_if_there_is_one(cuda: bool, chosen: str) -> None:
    assert devices.choose(True, cuda=cuda, mps=False, or_cpu=True, environment={}) == chosen


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags\t\t: fpu sse avx2 avx512f avx512_bf16", True),
        ("flags\t\t: fpu avx2 avx512f amx_bf16 amx_tile", True),
        ("Features\t: fp asimd bf16", True),
        ("flags\t\t: fpu sse avx2 avx512f avx512vl", False),
        ("model name\t: a bf16 of a processor", False),
    ],
)
def test_bfloat16_is_told_without_torch(tmp_path: Path, flags: str, expected: bool) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor : 0\n{flags}\n")
    assert devices.has_bfloat16(tmp_path) is expected


def test_bfloat16_is_told_as_torch_tells_it() -> None:
    if devices.gpu_here() is not None:
        pytest.skip("a GPU has it, whatever the processor has")
    # In a process of its own: one that computes portably has hidden it from torch.
    code = "from zpdbench.adapters import products; print(products.native('cpu'))"
    known = {k: v for k, v in os.environ.items() if k != "ZPDBENCH_ARITHMETIC"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=known, capture_output=True, text=True, check=True
    )
    assert str(devices.has_bfloat16()) == done.stdout.strip()
