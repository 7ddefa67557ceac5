"""The choice of device and engine, on platforms that are not this one."""

from __future__ import annotations

import pytest

from zpdbench import devices
from zpdbench.errors import UserError


@pytest.mark.parametrize(
    ("wants", "cuda", "mps", "chosen"),
    [
        (True, True, False, "cuda"),
        (True, True, True, "cuda"),
        (True, False, True, "mps"),
        (True, False, False, "cpu"),
        # A small model's bytes are promised on the CPU.
        (False, True, True, "cpu"),
    ],
)
def test_device(wants: bool, cuda: bool, mps: bool, chosen: str) -> None:
    assert devices.choose(wants, cuda=cuda, mps=mps, environment={}) == chosen


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
