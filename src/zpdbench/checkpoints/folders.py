"""Checkpoint folders in Hugging Face's layout: what must be there before anything is loaded."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from zpdbench.errors import UserError

SMALLEST_HEAD = 32
"""vLLM on CPU answers wrongly or not at all with smaller heads."""

_DTYPE_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16,
    "I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8,
}  # fmt: skip
_KEPT = (".safetensors", ".safetensors.index.json")
_KEPT_NAMES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja", "chat_template.json",
)  # fmt: skip


def kept_files(folder: Path) -> list[Path]:
    """The files of a checkpoint folder that matter, sorted by name."""
    return sorted(
        p
        for p in folder.iterdir()
        if p.is_file() and (p.name in _KEPT_NAMES or p.name.endswith(_KEPT))
    )


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: tensor name -> dtype, shape, data_offsets.

    Format: 8 bytes little-endian header length, that much JSON, then the tensors' bytes.

    Raises:
        UserError: no such header, or the file is shorter or longer than the header says.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > size - 8:
                raise ValueError
            header = json.loads(handle.read(length))
        tensors = {k: v for k, v in header.items() if k != "__metadata__"}
        end = max((v["data_offsets"][1] for v in tensors.values()), default=0)
        for name, value in tensors.items():
            count = 1
            for extent in value["shape"]:
                count *= extent
            begin, stop = value["data_offsets"]
            bits = _DTYPE_BITS.get(value["dtype"])
            if bits and (stop - begin) * 8 != count * bits:
                raise UserError(
                    f"tensor {name} has not the bytes of its shape",
                    where=str(path),
                    fix="get the file again",
                )
    except (struct.error, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            "no readable safetensors header (truncated, or another format)",
            where=str(path),
            fix="get the file again",
        ) from error
    if size != 8 + length + end:
        raise UserError(
            f"has {size} bytes where its header says {8 + length + end} (truncated?)",
            where=str(path),
            fix="get the file again",
        )
    return tensors


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a decoder model.

    Raises:
        UserError: missing, no JSON object, without what every decoder has, or heads too small.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
        if not isinstance(config, dict):
            raise ValueError
    except OSError as error:
        raise UserError(
            "no readable config.json", where=str(path), fix="give a folder in Hugging Face's layout"
        ) from error
    except ValueError as error:
        raise UserError("is no JSON object", where=str(path), fix="get the file again") from error
    for key in ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads"):
        if key not in config:
            raise UserError(f"has no {key!r}", where=str(path), fix="give a decoder-only model")
    if "auto_map" in config:
        raise UserError(
            "needs code from the checkpoint, which is never run",
            where=str(path),
            fix="use a model whose architecture transformers and vLLM know",
        )
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    if head < SMALLEST_HEAD:
        raise UserError(
            f"heads of size {head}; the engine needs {SMALLEST_HEAD} or more",
            where=str(path),
            fix="use fewer heads or another model",
        )
    return config


def check(folder: Path) -> dict[str, Any]:
    """Check a folder (config, weights whole, tokenizer there) and return its config.json.

    Raises:
        UserError: the first thing that is wrong.
    """
    if not folder.is_dir():
        raise UserError("is no folder", where=str(folder), fix="mend `path` in the configuration")
    config = read_config(folder)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, OSError) as error:
            raise UserError(
                "is no readable index of weights", where=str(index), fix="get the file again"
            ) from error
    else:
        names = ["model.safetensors"]
    for name in names:
        path = folder / name
        if not path.is_file():
            pickled = sorted(
                p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth")
            )
            raise UserError(
                f"{name} is missing"
                + (f"; {pickled[0]} is a pickle, which can run code" if pickled else ""),
                where=str(folder),
                fix="give the weights as safetensors",
            )
        read_header(path)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise UserError(
            "no tokenizer.json or tokenizer.model",
            where=str(folder),
            fix="put the model's tokenizer beside its weights",
        )
    return config
