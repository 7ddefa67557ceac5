"""Is this folder an adapter, and one of this base? Answered from headers, before any loading."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from zpdbench import files, grid
from zpdbench.engines import Adapter
from zpdbench.errors import UserError

CONFIG, WEIGHTS = grid.ADAPTER_FILES
_REMAKE = "delete the folder; it is trained again"
# What no engine here applies, though the file would load.
_UNSUPPORTED = ("use_dora", "lora_bias", "layer_replication", "modules_to_save", "rank_pattern")

Shapes = dict[str, tuple[int, ...]]


def safetensors_shapes(path: Path) -> Shapes:
    """Tensor name -> shape, from a safetensors header; the data's length is checked.

    Raises:
        UserError: missing, no safetensors file, or shorter or longer than its header says.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if not 2 <= length <= min(size - 8, 100_000_000):
                raise ValueError("its header is damaged")
            header: dict[str, Any] = json.loads(handle.read(length))
        header.pop("__metadata__", None)
        end = max((int(t["data_offsets"][1]) for t in header.values()), default=0)
        shapes = {name: tuple(int(n) for n in t["shape"]) for name, t in header.items()}
    except FileNotFoundError as error:
        raise UserError("is missing", where=str(path), fix=_REMAKE) from error
    except (OSError, ValueError, KeyError, TypeError, IndexError, struct.error) as error:
        raise UserError(
            f"is no readable safetensors file ({error})", where=str(path), fix=_REMAKE
        ) from error
    if size != 8 + length + end:
        raise UserError(
            f"is truncated or damaged: {size} bytes, its header says {8 + length + end}",
            where=str(path),
            fix=_REMAKE,
        )
    return shapes


def checkpoint_shapes(checkpoint: Path) -> Shapes:
    """Tensor name -> shape over all safetensors files of a checkpoint folder.

    Raises:
        UserError: no config, no weights, or a damaged file.
    """
    try:
        if not isinstance(json.loads((checkpoint / "config.json").read_text("utf-8")), dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise UserError(
            f"has no readable config.json ({error})",
            where=str(checkpoint),
            fix="give a checkpoint folder in Hugging Face's layout",
        ) from error
    parts = sorted(checkpoint.glob("*.safetensors"))
    if not parts:
        raise UserError(
            "has no safetensors weights",
            where=str(checkpoint),
            fix="give a checkpoint folder in Hugging Face's layout",
        )
    shapes: Shapes = {}
    for part in parts:
        shapes |= safetensors_shapes(part)
    return shapes


def read_adapter(folder: str | Path, base: Shapes, max_rank: int) -> Adapter:
    """Check an adapter folder against its base and give its digest.

    Args:
        folder: PEFT's layout: adapter_config.json and adapter_model.safetensors.
        base: the base checkpoint's shapes (`checkpoint_shapes`).
        max_rank: the largest rank that the engine will be started for.

    Raises:
        UserError: unreadable, truncated, of another kind or another base, or of too high a rank.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        kind, rank = config["peft_type"], int(config["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"no readable adapter configuration ({type(error).__name__})",
            where=str(folder / CONFIG),
            fix=_REMAKE,
        ) from error
    if kind != "LORA":
        raise UserError(f"is a {kind} adapter", where=str(folder), fix="only LORA is served")
    for key in _UNSUPPORTED:
        if config.get(key):
            raise UserError(
                f"uses {key}, which cannot be served", where=str(folder), fix="train plain LoRA"
            )
    if rank > max_rank:
        raise UserError(
            f"has rank {rank}, the engine is started for rank {max_rank} at most",
            where=str(folder),
            fix="set training.lora.rank to the rank that the adapters were trained with",
        )
    shapes = safetensors_shapes(folder / WEIGHTS)
    if not shapes:
        raise UserError("holds no tensors", where=str(folder / WEIGHTS), fix=_REMAKE)
    for name, shape in sorted(shapes.items()):
        _check_tensor(folder, name, shape, base, rank)
    digest = files.digest({name: files.sha256_file(folder / name) for name in (CONFIG, WEIGHTS)})
    return Adapter(folder, digest, rank)


def read_full(folder: str | Path, base: Shapes) -> Adapter:
    """Check the folder of a run that trained all weights against its base and give its digest.

    Raises:
        UserError: unreadable, truncated, or not of the base's shape.
    """
    folder = Path(folder)
    shapes = checkpoint_shapes(folder)
    # Tied embeddings are stored once or twice, as whoever saved them liked.
    for name in sorted(set(shapes) ^ set(base)):
        if name != "lm_head.weight":
            raise UserError(
                f"is a model of another base: {name} is in one of them only",
                where=str(folder),
                fix=_REMAKE,
            )
    for name, shape in sorted(shapes.items()):
        if base.get(name, shape) != shape:
            raise UserError(
                f"is a model of another base: {name} is {shape}, this base's is {base[name]}",
                where=str(folder),
                fix=_REMAKE,
            )
    digest = files.digest({name: files.sha256_file(folder / name) for name in grid.FULL_FILES})
    return Adapter(folder, digest, 0)


def _check_tensor(folder: Path, name: str, shape: tuple[int, ...], base: Shapes, rank: int) -> None:
    module, _, part = name.removeprefix("base_model.model.").rpartition(".lora_")
    weight = base.get(f"{module}.weight")
    if weight is None or len(weight) != 2:
        raise UserError(
            f"is an adapter of another base: this one has no {module}",
            where=str(folder / WEIGHTS),
            fix="give the checkpoint that it was trained on",
        )
    expected = (rank, weight[1]) if part.startswith("A") else (weight[0], rank)
    if shape != expected:
        raise UserError(
            f"is an adapter of another base: {name} is {shape}, this base needs {expected}",
            where=str(folder / WEIGHTS),
            fix="give the checkpoint that it was trained on",
        )
