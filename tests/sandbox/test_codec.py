"""The codec: exact round trips of plain values, and no other."""

from __future__ import annotations

import collections
import math
import random
import struct

import pytest

from zpdbench.sandbox import codec

LIMIT = 1 << 20
VALUES = [
    None, True, False, 0, 1, -1, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 10**300, -(10**300),
    0.0, -0.0, 1.5, math.inf, -math.inf, 5e-324, 1j, complex(-0.0, math.inf),
    "", "a", "가나다", "\x00", "\ud800", "😀" * 100, b"", b"\xff\x00", bytearray(b"xy"),
    range(3), range(10, -5, -3), range(0), [], (), {}, set(), frozenset(),
    [1, [2, (3, {4: {5, 6}})]], {(1, 2): [None], "k": {"n": ()}}, {1.5: frozenset({b"x"})},
    list(range(100)), tuple(range(100)), [0.5] * 100, (math.inf,) * 16, [2**63] * 20,
    [True] * 20, [1, 2.0] * 20, [[]] * 50,
]  # fmt: skip


def same(a: object, b: object) -> bool:
    """Equal with equal types at every level, and in the same order."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))  # type: ignore[arg-type]
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))  # type: ignore[attr-defined]
    if isinstance(a, float):
        return struct.pack("<d", a) == struct.pack("<d", b)
    return repr(a) == repr(b) if isinstance(a, complex) else a == b


@pytest.mark.parametrize("value", VALUES, ids=lambda v: repr(v)[:30])
def test_round_trip(value: object) -> None:
    assert same(codec.decode(codec.encode(value, LIMIT), LIMIT), value)


def test_nan_stays_nan() -> None:
    assert math.isnan(codec.decode(codec.encode(math.nan, LIMIT), LIMIT))


def test_booleans_are_not_packed_as_ints() -> None:
    out = codec.decode(codec.encode([True, 2] * 16, LIMIT), LIMIT)
    assert [type(x) for x in out] == [bool, int] * 16


class Integer(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


@pytest.mark.parametrize(
    "value",
    [
        Integer(3), [Integer(3)], {Integer(1): 1}, (Integer(1),) * 20, object(), len, lambda: 0,
        int, Ellipsis, NotImplemented, collections.Counter("a"), iter([]), {}.keys(),
        (i for i in ()),
        memoryview(b""), slice(1), math, ValueError("x"),
    ],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_nothing_but_plain_values(value: object) -> None:
    with pytest.raises(codec.NotPlainError):
        codec.encode(value, LIMIT)


def test_cycles_and_depth_are_refused_not_followed() -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    deep: object = 0
    for _ in range(codec.MAX_DEPTH + 1):
        deep = [deep]
    for value in (cycle, deep):
        with pytest.raises(codec.NotPlainError):
            codec.encode(value, LIMIT)


@pytest.mark.parametrize(
    "value", ["x" * 200, b"x" * 200, [0] * 200, 1 << 5000, {i: i for i in range(99)}]
)
def test_size_limit(value: object) -> None:
    with pytest.raises(codec.TooLargeError):
        codec.encode(value, 100)
    with pytest.raises(codec.MalformedError):
        codec.decode(codec.encode(value, LIMIT), 100)


def test_every_cut_and_every_extra_byte_is_refused() -> None:
    for value in VALUES:
        data = codec.encode(value, LIMIT)
        for end in range(0, len(data), max(1, len(data) // 50)):
            with pytest.raises(codec.MalformedError):
                codec.decode(data[:end], LIMIT)
        with pytest.raises(codec.MalformedError):
            codec.decode(data + b"N", LIMIT)


def test_rubbish_gives_plain_values_or_an_error() -> None:
    """Fuzz: random bytes, and valid ones with bytes changed, never do anything else."""
    source = random.Random(7)
    plain = {type(v) for v in VALUES}
    tags = b"NTFiIfcsbyrltSZdp"
    for round_ in range(20000):
        if round_ % 2:
            data = bytearray(codec.encode(source.choice(VALUES), LIMIT))
            for _ in range(source.randint(1, 3)):
                data[source.randrange(len(data))] = source.choice((source.randrange(256), *tags))
        else:
            data = bytearray(source.choice((source.randrange(256), 0, *tags)) for _ in range(30))
        try:
            value = codec.decode(bytes(data), LIMIT)
        except codec.MalformedError:
            continue
        assert type(value) in plain


@pytest.mark.parametrize(
    "data",
    [
        b"", b"?", b"l\xff\xff\xff\xff", b"s\x01\0\0\0\xff", b"S\x02\0\0\0TT",
        b"S\x01\0\0\0l\0\0\0\0",
        b"d\x02\0\0\0TNTN", b"rNNN", b"riTTT", b"pSi\x01\0\0\0" + bytes(8),
        b"pls\x01\0\0\0" + bytes(8),
        b"pli\xff\xff\xff\x0f", b"r" + (b"i" + bytes(8)) * 3, (b"l\x01\0\0\0" * 5000) + b"N",
    ],
)  # fmt: skip
def test_malformed(data: bytes) -> None:
    with pytest.raises(codec.MalformedError):
        codec.decode(data, LIMIT)
