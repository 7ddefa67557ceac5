"""Bad adapters and checkpoints: one clear line each, before anything is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import tiny
from tests.engines.conftest import Model
from zpdbench.engines.adapters import (
    CONFIG,
    WEIGHTS,
    checkpoint_shapes,
    read_adapter,
    safetensors_shapes,
)
from zpdbench.errors import UserError


def _truncate(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


def _truncate_header(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:5])


def _no_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def _no_config(folder: Path) -> None:
    (folder / CONFIG).unlink()


def _other_kind(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    (folder / CONFIG).write_text(json.dumps({**config, "peft_type": "PREFIX_TUNING"}))


def _dora(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    (folder / CONFIG).write_text(json.dumps({**config, "use_dora": True}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "truncated or damaged"),
        (_truncate_header, "no readable safetensors file"),
        (_no_weights, "is missing"),
        (_no_config, "no readable adapter configuration"),
        (_other_kind, "PREFIX_TUNING"),
        (_dora, "use_dora"),
    ],
)
def test_a_damaged_adapter_is_refused(
    models: dict[str, Model], tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    model = models["qwen2"]
    folder = tmp_path / "step4"
    shutil.copytree(model.adapters[0].path, folder)
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        read_adapter(folder, checkpoint_shapes(model.checkpoint), 8)
    assert str(folder) in caught.value.where
    assert caught.value.fix


def test_an_adapter_of_another_base_is_refused(models: dict[str, Model], tmp_path: Path) -> None:
    deeper = tiny.save_checkpoint(tmp_path / "deeper", "qwen2", layers=4)
    adapter = tiny.save_adapter(tmp_path / "adapter", deeper, seed=1)
    with pytest.raises(UserError, match="of another base"):
        read_adapter(adapter, checkpoint_shapes(models["qwen2"].checkpoint), 8)


def test_a_rank_above_the_limit_is_refused(models: dict[str, Model], tmp_path: Path) -> None:
    model = models["llama"]
    adapter = tiny.save_adapter(tmp_path / "adapter", model.checkpoint, seed=1, rank=16)
    shapes = checkpoint_shapes(model.checkpoint)
    assert read_adapter(adapter, shapes, 16).rank == 16
    with pytest.raises(UserError, match=r"rank 16.*rank 8"):
        read_adapter(adapter, shapes, 8)


def test_a_truncated_checkpoint_is_refused(models: dict[str, Model], tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(models["llama"].checkpoint, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match="truncated"):
        checkpoint_shapes(folder)
    weights.unlink()
    with pytest.raises(UserError, match="no safetensors weights"):
        checkpoint_shapes(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json"):
        checkpoint_shapes(folder)


def test_shapes_are_those_of_the_tensors(models: dict[str, Model]) -> None:
    from safetensors import safe_open

    path = models["qwen2"].checkpoint / "model.safetensors"
    with safe_open(path, "pt") as tensors:
        expected = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    assert safetensors_shapes(path) == expected


def test_the_digest_is_of_the_content(models: dict[str, Model], tmp_path: Path) -> None:
    model = models["qwen2"]
    shapes = checkpoint_shapes(model.checkpoint)
    shutil.copytree(model.adapters[0].path, tmp_path / "copy")
    assert read_adapter(tmp_path / "copy", shapes, 8).name == model.adapters[0].name
    assert len({a.name for a in model.adapters}) == len(model.adapters)
