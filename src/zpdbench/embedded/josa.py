"""Korean particles, which depend on whether the word before them ends in a consonant."""

from __future__ import annotations

_PAIRS = {"은": "는", "이": "가", "을": "를", "과": "와"}


def josa(word: str, particle: str) -> str:
    """`word` with the fitting form of 은, 이, 을 or 과.

    >>> josa("책", "을"), josa("사과", "을")
    ('책을', '사과를')
    """
    closed = (ord(word[-1]) - 0xAC00) % 28 != 0
    return word + (particle if closed else _PAIRS[particle])
