"""Plain values as bytes, and back, and nothing else.

Arguments and results cross between the candidate's process and the tests' in this form. Only values
of these exact types are written: None, bool, int, float, complex, str, bytes, bytearray, range,
list, tuple, dict, set, frozenset. What is read is built from those types' own constructors, so no
bytes, however made, give an object with behaviour of its own. There are no references: a value is a
tree, copied whole.

One value is a tag byte, then for scalars the content, for containers a count and the items:

    N T F                None, True, False
    i + 8 bytes          int that fits 64 bits        I + length + bytes    any other int
    f + 8 bytes          float                        c + 16 bytes          complex
    s b y + length       str (UTF-8), bytes, bytearray
    r + three ints       range
    l t S Z + count      list, tuple, set, frozenset  d + count + pairs     dict
    p + l|t + i|f + count + 8 bytes each              list or tuple of such ints or floats only

Lengths and counts are unsigned 32-bit, all numbers little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 100
_PACK_FROM = 16  # items; shorter lists gain nothing
_LENGTH = struct.Struct("<I")
_INT = struct.Struct("<q")
_FLOAT = struct.Struct("<d")
_COMPLEX = struct.Struct("<dd")
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1


class NotPlainError(Exception):
    """The value (or one inside it) is of no plain built-in type, or nests too deeply."""


class TooLargeError(Exception):
    """The encoded value is above the size limit."""


class MalformedError(Exception):
    """The bytes are no encoding of a value."""


def encode(value: Any, limit: int) -> bytes:
    """The bytes of `value`.

    Raises:
        NotPlainError: a type other than the plain ones, or more than `MAX_DEPTH` levels (a cycle).
        TooLargeError: more than `limit` bytes.
    """
    out = bytearray()
    _encode(value, out, limit, 0)
    if len(out) > limit:
        raise TooLargeError(f"more than {limit} bytes")
    return bytes(out)


def _encode(value: Any, out: bytearray, limit: int, depth: int) -> None:
    if len(out) > limit:
        raise TooLargeError(f"more than {limit} bytes")
    if depth > MAX_DEPTH:
        raise NotPlainError(f"nested more than {MAX_DEPTH} deep")
    kind = type(value)
    if kind is int:
        if _INT_MIN <= value <= _INT_MAX:
            out += b"i" + _INT.pack(value)
        else:
            size = value.bit_length() // 8 + 1
            if size > limit:
                raise TooLargeError(f"more than {limit} bytes")
            out += b"I" + _LENGTH.pack(size) + value.to_bytes(size, "little", signed=True)
    elif kind is str:
        data = value.encode("utf-8", "surrogatepass")
        if len(data) > limit:
            raise TooLargeError(f"more than {limit} bytes")
        out += b"s" + _LENGTH.pack(len(data)) + data
    elif kind is bool:
        out += b"T" if value else b"F"
    elif value is None:
        out += b"N"
    elif kind is float:
        out += b"f" + _FLOAT.pack(value)
    elif kind in _SEQUENCE_TAGS:
        if len(value) > limit:
            raise TooLargeError(f"more than {limit} bytes")
        if len(value) >= _PACK_FROM and (packed := _pack(value)):
            out += packed
            return
        out += _SEQUENCE_TAGS[kind] + _LENGTH.pack(len(value))
        for item in value:
            _encode(item, out, limit, depth + 1)
    elif kind is dict:
        if len(value) > limit:
            raise TooLargeError(f"more than {limit} bytes")
        out += b"d" + _LENGTH.pack(len(value))
        for key, item in value.items():
            _encode(key, out, limit, depth + 1)
            _encode(item, out, limit, depth + 1)
    elif kind is bytes or kind is bytearray:
        if len(value) > limit:
            raise TooLargeError(f"more than {limit} bytes")
        out += (b"b" if kind is bytes else b"y") + _LENGTH.pack(len(value)) + value
    elif kind is complex:
        out += b"c" + _COMPLEX.pack(value.real, value.imag)
    elif kind is range:
        out += b"r"
        for item in (value.start, value.stop, value.step):
            _encode(item, out, limit, depth + 1)
    else:
        raise NotPlainError(f"a value of type {kind.__name__}")


def _pack(value: list[Any] | tuple[Any, ...]) -> bytes | None:
    """The packed form of a list or tuple, if all its items are small ints or all are floats."""
    kinds = set(map(type, value))
    if kinds == {int}:
        item, code = b"i", "q"
    elif kinds == {float}:
        item, code = b"f", "d"
    else:
        return None
    try:
        data = struct.pack(f"<{len(value)}{code}", *value)
    except struct.error:
        return None
    return b"p" + _SEQUENCE_TAGS[type(value)] + item + _LENGTH.pack(len(value)) + data


_SEQUENCE_TAGS: dict[type, bytes] = {list: b"l", tuple: b"t", set: b"S", frozenset: b"Z"}
_SEQUENCE_TYPES: dict[int, Callable[[list[Any]], Any]] = {
    ord("l"): list,
    ord("t"): tuple,
    ord("S"): set,
    ord("Z"): frozenset,
}


def decode(data: bytes, limit: int) -> Any:
    """The value of `data`, all of which must be used.

    Raises:
        MalformedError: anything else than what `encode` writes, and more than `limit` bytes.
    """
    if len(data) > limit:
        raise MalformedError(f"more than {limit} bytes")
    value, end = _decode(data, 0, 0)
    if end != len(data):
        raise MalformedError("bytes after the value")
    return value


def _decode(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise MalformedError(f"nested more than {MAX_DEPTH} deep")
    try:
        tag = data[at]
        at += 1
        if tag == 0x69:  # i
            return _INT.unpack_from(data, at)[0], at + 8
        if tag == 0x73:  # s
            content, at = _content(data, at)
            return content.decode("utf-8", "surrogatepass"), at
        if tag == 0x54:  # T
            return True, at
        if tag == 0x46:  # F
            return False, at
        if tag == 0x4E:  # N
            return None, at
        if tag == 0x66:  # f
            return _FLOAT.unpack_from(data, at)[0], at + 8
        if tag in _SEQUENCE_TYPES:
            count, at = _count(data, at)
            items = []
            for _ in range(count):
                item, at = _decode(data, at, depth + 1)
                items.append(item)
            made = _SEQUENCE_TYPES[tag](items)
            if len(made) != count:
                raise MalformedError("a set with equal members")
            return made, at
        if tag == 0x64:  # d
            count, at = _count(data, at)
            mapping = {}
            for _ in range(count):
                key, at = _decode(data, at, depth + 1)
                mapping[key], at = _decode(data, at, depth + 1)
            if len(mapping) != count:
                raise MalformedError("a dictionary with equal keys")
            return mapping, at
        if tag == 0x49:  # I
            content, at = _content(data, at)
            return int.from_bytes(content, "little", signed=True), at
        if tag == 0x62:  # b
            return _content(data, at)
        if tag == 0x79:  # y
            content, at = _content(data, at)
            return bytearray(content), at
        if tag == 0x63:  # c
            return complex(*_COMPLEX.unpack_from(data, at)), at + 16
        if tag == 0x70:  # p
            container, item = data[at : at + 1], data[at + 1 : at + 2]
            count, at = _count(data, at + 2)
            if container not in (b"l", b"t") or item not in (b"i", b"f"):
                raise MalformedError("a packed list of something else")
            end = at + 8 * count
            if end > len(data):
                raise MalformedError("a count beyond the end")
            numbers = struct.unpack_from(f"<{count}{'q' if item == b'i' else 'd'}", data, at)
            return (numbers if container == b"t" else list(numbers)), end
        if tag == 0x72:  # r
            bounds = []
            for _ in range(3):
                bound, at = _decode(data, at, depth + 1)
                if type(bound) is not int:
                    raise MalformedError("a range of something else than ints")
                bounds.append(bound)
            return range(*bounds), at
    except MalformedError:
        raise
    except (IndexError, struct.error, TypeError, ValueError) as error:
        raise MalformedError(str(error)) from None
    raise MalformedError(f"unknown tag {tag}")


def _content(data: bytes, at: int) -> tuple[bytes, int]:
    """Length and content at `at`, and where the next value begins."""
    length = _LENGTH.unpack_from(data, at)[0]
    at += 4
    if length > len(data) - at:
        raise MalformedError("a length beyond the end")
    return data[at : at + length], at + length


def _count(data: bytes, at: int) -> tuple[int, int]:
    """Number of items at `at` (each takes a byte at least), and where the first begins."""
    count = _LENGTH.unpack_from(data, at)[0]
    at += 4
    if count > len(data) - at:
        raise MalformedError("a count beyond the end")
    return count, at
