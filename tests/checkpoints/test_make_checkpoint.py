"""A mini model has the same bytes every time, and loads as what it says it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from zpdbench import files
from zpdbench.checkpoints import make_checkpoint
from zpdbench.study import EmbeddedModel, Upscale


def _spec(architecture: str, upscale: Upscale | None) -> EmbeddedModel:
    return EmbeddedModel(
        source="embedded",
        architecture=architecture,
        layers=2,
        hidden_size=64,
        steps=3,
        upscale=upscale,
    )


@pytest.mark.parametrize(
    ("architecture", "upscale", "layers"),
    [("qwen2", None, 2), ("llama", Upscale(drop=1, steps=2), 2), ("llama", Upscale(drop=0), 4)],
)
def test_two_runs_give_equal_bytes(tmp_path: Path, architecture, upscale, layers) -> None:
    spec = _spec(architecture, upscale)
    first = make_checkpoint.make("m", spec, tmp_path / "a")
    second = make_checkpoint.make("m", spec, tmp_path / "b", threads=2)
    assert first == second == files.check_manifest(tmp_path / "a")
    assert first["layers"] == layers and first["architecture"] == architecture


def test_another_seed_gives_another_model(tmp_path: Path) -> None:
    spec = _spec("qwen2", None)
    first = make_checkpoint.make("m", spec, tmp_path / "a")
    other = make_checkpoint.make("m", spec.model_copy(update={"seed": 1}), tmp_path / "b")
    weights = "model.safetensors"
    assert first["files"][weights] != other["files"][weights]
    assert first["files"]["tokenizer.json"] == other["files"]["tokenizer.json"]
