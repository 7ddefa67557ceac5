"""Reading a stranger's small files: bounded in size, plain values only."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

MAX_JSON = 64 << 20
MAX_YAML = 1 << 20
MAX_HEADER = 16 << 20
_WIDTH = {
    "BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4, "I32": 4,
    "F32": 4, "U64": 8, "I64": 8, "F64": 8, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip


class BadFileError(ValueError):
    """A file that is not what its name says, or that costs too much to read."""


def read_json(path: Path, limit: int = MAX_JSON) -> Any:
    """A JSON value without NaN, infinities or a key given twice.

    Raises:
        BadFileError: too large, too deep, or not that.
    """
    try:
        if path.stat().st_size > limit:
            raise BadFileError(f"is larger than {limit >> 20} MiB")
        return json.loads(
            path.read_bytes().decode("utf-8"),
            parse_constant=_no_constant,
            parse_float=_finite,
            object_pairs_hook=_distinct,
        )
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        if isinstance(error, BadFileError):
            raise
        raise BadFileError(f"no JSON ({error.__class__.__name__})") from error


def _no_constant(text: str) -> Any:
    raise BadFileError(f"holds {text}")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadFileError("holds a number without bounds")
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise BadFileError("gives a key twice")
    return value


def check_yaml(path: Path) -> None:
    """Refuse YAML that is too large or that multiplies itself by aliases, before it is built.

    Raises:
        BadFileError: so it is, or it is no YAML.
    """
    import yaml

    if path.stat().st_size > MAX_YAML:
        raise BadFileError("is larger than 1 MiB")
    try:
        for event in yaml.parse(path.read_text("utf-8"), Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
                raise BadFileError("uses aliases or tags")
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise BadFileError("no YAML") from error


def check_safetensors(path: Path) -> dict[str, tuple[str, list[int]]]:
    """Check that a file is safetensors and nothing else: no gap, no overlap, nothing behind.

    Returns:
        Tensor name -> (dtype, shape).

    Raises:
        BadFileError: it is not.
    """
    size = path.stat().st_size
    with path.open("rb") as handle:
        start = handle.read(8)
        if len(start) < 8:
            raise BadFileError("no safetensors: too short")
        (length,) = struct.unpack("<Q", start)
        if length > min(MAX_HEADER, size - 8):
            raise BadFileError("no safetensors: header too long")
        try:
            header = json.loads(
                handle.read(length).decode("utf-8"),
                parse_constant=_no_constant,
                object_pairs_hook=_distinct,
            )
        except (ValueError, RecursionError) as error:
            raise BadFileError("no safetensors: header is no JSON") from error
    if not isinstance(header, dict):
        raise BadFileError("no safetensors: header is no mapping")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise BadFileError("no safetensors: odd metadata")
    tensors: dict[str, tuple[str, list[int]]] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in header.items():
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            counts = [*shape, begin, end]
            if not all(type(n) is int and n >= 0 for n in counts):
                raise TypeError
            expected = math.prod(shape) * _WIDTH[dtype]
        except (KeyError, TypeError, ValueError) as error:
            raise BadFileError(f"no safetensors: odd entry {name[:60]!r}") from error
        if end - begin != expected:
            raise BadFileError(f"no safetensors: size of {name[:60]!r}")
        spans.append((begin, end))
        tensors[name] = (dtype, list(shape))
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise BadFileError("no safetensors: gap or overlap")
        position = end
    if 8 + length + position != size:
        raise BadFileError("no safetensors: bytes behind the tensors")
    return tensors
