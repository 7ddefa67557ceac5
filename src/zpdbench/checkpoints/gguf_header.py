"""The header of a GGUF file, read with every length checked, and what of it must be right.

Pure Python on a memory map: `preflight` looks at a model of gigabytes before the first job, where
neither torch nor transformers need be. Format: https://github.com/ggml-org/ggml/blob/master/docs/
gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import itertools
import math
import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zpdbench.checkpoints.folders import SMALLEST_HEAD
from zpdbench.errors import UserError

ARCHITECTURES = {
    "bloom", "falcon", "gemma2", "gemma3", "gpt2", "lfm2", "llama", "nemotron", "phi3", "qwen2",
    "qwen2moe", "qwen3", "qwen3moe", "stablelm", "starcoder2",
}  # fmt: skip
"""Decoders that transformers makes of a GGUF file, by llama.cpp's names (a test compares them)."""

USUAL_SPLIT = {
    "qwen2": "qwen2", "qwen2moe": "qwen2", "qwen3": "qwen2", "qwen3moe": "qwen2", "gpt2": "gpt-2",
    "starcoder2": "starcoder", "falcon": "falcon", "bloom": "bloom",
}  # fmt: skip
"""How text is split before merging where the file does not say, of architectures with one way."""

SPLITS = {
    # As transformers has them by the same name.
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
    "dbrx", "smaug-bpe", "tekken", "qwen2", "deepseek-r1-qwen", "kormo", "megrez", "gpt-4o",
    "llama4", "kanana2",
    # Ours: zpdbench.checkpoints.gguf_tokenizer.
    "stablelm2", "gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "a.x-4.0", "mellum",
    "exaone4", "starcoder", "smollm", "refact", "codeshell", "exaone", "minerva-7b", "falcon",
    "bloom",
}  # fmt: skip
"""Values of tokenizer.ggml.pre that are known here: another would be split otherwise in silence."""

_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66),
}  # fmt: skip
"""A tensor's type -> values a block and bytes of it, as the gguf package has them (tested)."""

_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
CONTROL = 3
"""A token's type: one that no text is written with."""

_TEXT, _ARRAY = 8, 9
_MOST_KEYS = 1 << 16
_MOST_VALUES = 1 << 23
"""Values in a file's arrays: a vocabulary of 262,144 words has four arrays of that length."""


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself.

    Attributes:
        fields: key -> number, text, truth value, or a list of them.
        tensors: name -> shape, slowest first.
    """

    path: Path
    fields: dict[str, Any]
    tensors: dict[str, tuple[int, ...]]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of it."""
        return str(self.fields.get("general.architecture"))

    def of_model(self, key: str, default: Any = None) -> Any:
        """A value whose key begins with the architecture's name."""
        return self.fields.get(f"{self.architecture}.{key}", default)

    def of_tokenizer(self, key: str, default: Any = None) -> Any:
        """A value of `tokenizer.ggml.`."""
        return self.fields.get(f"tokenizer.ggml.{key}", default)

    @property
    def split(self) -> str | None:
        """tokenizer.ggml.pre, or what the architecture always has; None: neither is known."""
        said = self.of_tokenizer("pre")
        return USUAL_SPLIT.get(self.architecture) if said in (None, "default") else str(said)

    @property
    def head_size(self) -> int:
        """Width of an attention head; of several sorts the smallest."""
        heads = self.of_model("attention.head_count")
        width = self.of_model("embedding_length") // max(_all(heads))
        return int(self.of_model("attention.key_length") or width)

    @property
    def kv_width(self) -> int:
        """Values that a layer keeps of a token for its keys; as many for its values."""
        heads = self.of_model("attention.head_count")
        return int(max(_all(self.of_model("attention.head_count_kv", heads)))) * self.head_size


def read(path: Path) -> Header:
    """The header of a whole GGUF file.

    Raises:
        UserError: no such file or header, or tensors that are not wholly in the file.
    """
    try:
        with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as m:
            return _Reader(m, path).header()
    except OSError as error:
        raise UserError(
            f"cannot be read ({error.strerror})", where=str(path), fix="correct path:"
        ) from error
    except (ValueError, struct.error, OverflowError) as error:
        said = str(error) if isinstance(error, _DamagedError) else "truncated, or another format"
        raise UserError(
            f"no readable GGUF model ({said})", where=str(path), fix="get the file again"
        ) from error


def check(path: Path) -> Header:
    """The header of a GGUF file that can be made a checkpoint, as far as a header tells.

    Raises:
        UserError: as `read`; an architecture or tokenizer that is not known or not there, or a
            header whose numbers do not fit its tensors.
    """
    header = read(path)
    if header.architecture not in ARCHITECTURES:
        raise UserError(
            f"GGUF of an unknown architecture {header.architecture[:40]!r}; known are "
            f"{', '.join(sorted(ARCHITECTURES))}",
            where=str(path),
            fix="give the model as a safetensors folder",
        )
    _check_tokenizer(header)
    _check_shape(header)
    return header


class _DamagedError(ValueError):
    """What is wrong with a file, in words for the user."""


class _Reader:
    """A position in a mapped file."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0
        self.values_left = _MOST_VALUES

    def header(self) -> Header:
        if self.data[:4] != b"GGUF":
            raise _DamagedError("another format")
        self.at = 4
        version, tensors, keys = self.take("IQQ")
        if version not in (2, 3):
            raise _DamagedError(f"version {version}, where 2 and 3 are read")
        if max(tensors, keys) > _MOST_KEYS:
            raise _DamagedError(f"{tensors} tensors and {keys} keys")
        fields: dict[str, Any] = {}
        for _ in range(keys):
            key = self.text()
            if key in fields:
                raise _DamagedError(f"key {key[:60]!r} twice")
            fields[key] = self.value(*self.take("I"))
        alignment = fields.get("general.alignment", 32)
        if alignment not in {1 << power for power in range(3, 17)}:
            raise _DamagedError(f"an alignment of {alignment}")
        return Header(self.path, fields, self.tensors(tensors, alignment))

    def tensors(self, count: int, alignment: int) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        spans: list[tuple[int, int]] = []
        for _ in range(count):
            name = self.text()
            (dimensions,) = self.take("I")
            if name in found or not 1 <= dimensions <= 4:
                raise _DamagedError(f"tensor {name[:60]!r} twice, or of {dimensions} dimensions")
            extents = self.take(f"{dimensions}Q")
            kind, offset = self.take("IQ")
            block, width = _BLOCKS.get(kind, (0, 0))
            if not block:
                raise _DamagedError(f"tensor {name[:60]!r} is of a type {kind} that is not known")
            if extents[0] % block or not all(extents) or offset % alignment:
                raise _DamagedError(f"tensor {name[:60]!r} has no possible shape or place")
            spans.append((offset, offset + math.prod(extents) // block * width))
            found[name] = tuple(reversed(extents))
        start = -(-self.at // alignment) * alignment
        spans.sort()
        if start + max((end for _, end in spans), default=0) > len(self.data):
            raise _DamagedError("truncated: its last tensors are missing")
        if any(begin < end for (_, end), (begin, _) in itertools.pairwise(spans)):
            raise _DamagedError("tensors lie one over the other")
        return found

    def take(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return found

    def text(self) -> str:
        (length,) = self.take("Q")
        if length > len(self.data) - self.at:
            raise ValueError
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.take(_SCALARS[kind])[0]
        if kind == _TEXT:
            return self.text()
        if kind != _ARRAY:
            raise _DamagedError(f"a value of an unknown type {kind}")
        inner, count = self.take("IQ")
        self.values_left -= count
        if self.values_left < 0:
            raise _DamagedError(f"an array of {count} values")
        if inner in _SCALARS:
            return list(self.take(f"{count}{_SCALARS[inner]}"))
        if inner != _TEXT:
            raise _DamagedError(f"an array of type {inner}")
        return [self.text() for _ in range(count)]


def _check_tokenizer(header: Header) -> None:
    kind, tokens = header.of_tokenizer("model"), header.of_tokenizer("tokens")
    folder = "give the model as a safetensors folder"

    def refuse(what: str, fix: str = "get another conversion of the model, or " + folder) -> None:
        raise UserError(what, where=str(header.path), fix=fix)

    if kind in (None, "none", "no_vocab") or not tokens:
        refuse("holds no tokenizer")
    if kind not in ("gpt2", "llama"):
        refuse(f"tokenizer {str(kind)[:40]!r} is not converted (gpt2 and llama are)", folder)
    if not _texts(tokens) or len(set(tokens)) != len(tokens):
        refuse("its tokens are no texts, or not different from each other")
    for key, wanted in (("token_type", int), ("scores", float)):
        said = header.of_tokenizer(key)
        if said is not None and not (
            isinstance(said, list)
            and len(said) == len(tokens)
            and all(isinstance(v, wanted) for v in said)
        ):
            refuse(f"tokenizer.ggml.{key} is not one value a token")
    merges = header.of_tokenizer("merges")
    if merges is not None and not (_texts(merges) and all(len(m.split(" ")) == 2 for m in merges)):
        refuse("tokenizer.ggml.merges are no pairs of tokens")
    if kind == "gpt2" and not merges:
        refuse("holds no tokenizer (no merges)")
    if kind == "llama" and not merges and header.of_tokenizer("scores") is None:
        refuse("holds no tokenizer (neither scores nor merges)")
    if kind == "gpt2" and header.split not in SPLITS:
        said = header.of_tokenizer("pre")
        refuse(
            f"tokenizer.ggml.pre is {said!r}: it is not known how text is split before merging"
            if said
            else "does not say how text is split before merging (tokenizer.ggml.pre)",
        )
    for key in ("bos", "eos", "eot", "eom", "unknown", "padding"):
        value = header.of_tokenizer(f"{key}_token_id")
        if value is not None and not (_whole(value) and value < len(tokens)):
            refuse(f"tokenizer.ggml.{key}_token_id is {value!r} of {len(tokens)} tokens")
    if header.of_tokenizer("eos_token_id") is None:
        refuse("names no end token (tokenizer.ggml.eos_token_id)")
    for key in ("add_bos_token", "add_eos_token", "add_space_prefix"):
        if not isinstance(header.of_tokenizer(key, False), bool):
            refuse(f"tokenizer.ggml.{key} is no truth value")
    if not isinstance(header.fields.get("tokenizer.chat_template", ""), str):
        refuse("tokenizer.chat_template is no text")


def _check_shape(header: Header) -> None:
    """What decides how large a model is made: numbers that must be those of the tensors."""

    def refuse(what: str) -> None:
        raise UserError(what, where=str(header.path), fix="get the file again")

    table = header.tensors.get("token_embd.weight", ())
    vocabulary = len(header.of_tokenizer("tokens"))
    blocks = {name.split(".")[1] for name in header.tensors if name.startswith("blk.")}
    for key, there in (
        ("block_count", len(blocks)),
        ("embedding_length", table[1] if len(table) == 2 else 0),
        ("vocab_size", table[0] if table else 0),
    ):
        said = header.of_model(key, vocabulary if key == "vocab_size" else None)
        if not _whole(said) or said != there or not there:
            refuse(f"{header.architecture}.{key} is {said!r}, its tensors say {there}")
    if vocabulary != table[0]:
        refuse(f"{vocabulary} tokens, and {table[0]} embeddings")
    if blocks != {str(i) for i in range(len(blocks))}:
        refuse("blocks are missing")
    width = header.of_model("embedding_length")
    for key in ("attention.head_count", "attention.head_count_kv", "attention.key_length"):
        said = header.of_model(key, 1 if key != "attention.head_count" else None)
        values = _all(said)
        if not all(_whole(v) and v <= width for v in values) or not max(values, default=0):
            refuse(f"{header.architecture}.{key} is {said!r}")
    if not _whole(header.of_model("context_length", 2048)):
        refuse(f"{header.architecture}.context_length is {header.of_model('context_length')!r}")
    if header.head_size < SMALLEST_HEAD:
        raise UserError(
            f"heads of size {header.head_size}; the engine needs {SMALLEST_HEAD} or more",
            where=str(header.path),
            fix="use another model",
        )


def _all(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)
