"""What is done to examples before they are used: defects, language, length, near-duplicates.

Pure functions over rows; nothing is done unless `corpus.prepare` asks for it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from zpdbench.study import Preparation
from zpdbench.text.unicode import fold, fold_spaces

Row = dict[str, str]

SHINGLE = 5
"""Characters of a shingle: short enough for Korean, where a syllable is one character."""
BANDS, BAND_ROWS = 21, 6
"""MinHash signature of 126 values; a pair of Jaccard 0.8 shares a band with probability 0.998."""

# Placeholders that stand where nothing should, in Alpaca's data.
_NOTHING = frozenset(
    {"noinput", "no input", "none", "n/a", "na", "nooutput", "no output", "null", "-", "."}
)
_PLACEHOLDER = re.compile(r"^[<\[(]?\s*(?P<word>[a-z/.\- ]+?)\s*[>\])]?\.?$", re.IGNORECASE)
_ADDRESS = re.compile(r"https?://|www\.", re.IGNORECASE)
_PICTURE = re.compile(
    r"\b(?:draw|sketch|paint|photoshop|(?:generate|create|design|produce)\s+(?:an?|the)\s+"
    r"(?:image|picture|photo|drawing|painting|illustration|logo|infographic|video))\b",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd]")


def is_placeholder(text: str) -> bool:
    """Whether a text is only a word for nothing, such as `<noinput>` or `N/A`."""
    found = _PLACEHOLDER.match(text.strip())
    return found is not None and found["word"].lower() in _NOTHING


def defect(prompt: str, response: str) -> str | None:
    """What is known to be broken about an example of Alpaca's kind; None if nothing is.

    The kinds are those that the data's later cleaners list (AlpacaDataCleaned, 2023): answers that
    are placeholders, instructions about an address that nobody read, pictures asked of a text
    model, control and replacement characters. Wrong answers are not found by rules.
    """
    if is_placeholder(response):
        return "placeholder as response"
    if _ADDRESS.search(prompt):
        return "instruction about an address on the web"
    if _PICTURE.search(prompt) and len(response) < 200:
        return "picture asked for"
    if _CONTROL.search(prompt) or _CONTROL.search(response):
        return "control or replacement characters"
    return None


def scripts(text: str) -> dict[str, float]:
    """Shares of a text's letters by script: hangul, latin, other. Empty without letters."""
    counts: Counter[str] = Counter()
    for c in fold(text):
        if not c.isalpha():
            continue
        if "가" <= c <= "힣" or "ᄀ" <= c <= "ᇿ" or "ꥠ" <= c <= "ꥼ" or "ힰ" <= c <= "ퟻ":
            counts["hangul"] += 1
        elif c < "ɐ" or "Ḁ" <= c <= "ỿ":
            counts["latin"] += 1
        else:
            counts["other"] += 1
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()} if total else {}


def is_language(text: str, language: str) -> bool:
    """Whether a text's script is that of `ko` or `en`; without letters it fits any.

    By script alone: English is not told from French.
    """
    shares = scripts(text)
    if not shares:
        return True
    if language == "ko":
        return shares.get("hangul", 0.0) >= 0.1
    return shares.get("latin", 0.0) >= 0.5 and shares.get("hangul", 0.0) < 0.1


def shingles(text: str) -> NDArray[np.uint64]:
    """Sorted distinct hashes of the runs of 5 characters of a text as it is compared."""
    normal = fold_spaces(text)
    codes = np.frombuffer(normal.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    values = codes.astype(np.uint64)
    n = max(len(values) - SHINGLE + 1, 1)
    if len(values) < SHINGLE:
        values = np.pad(values, (0, SHINGLE - len(values)))
    with np.errstate(over="ignore"):
        h = np.zeros(n, dtype=np.uint64)
        for k in range(SHINGLE):
            h = _mix(h + values[k : k + n] + np.uint64(0x9E3779B97F4A7C15))
    return np.unique(h)


def _mix(h: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele et al. 2014): spreads every bit over all."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


_SALTS = _mix(np.arange(1, BANDS * BAND_ROWS + 1, dtype=np.uint64) << np.uint64(17))
_ADDENDS = _mix(_SALTS)


def signature(hashes: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """MinHash signature (Broder 1997) of a set of hashes, shape (126,).

    Equal entries of two signatures estimate the sets' Jaccard similarity.
    """
    with np.errstate(over="ignore"):
        table = (hashes[:, None] * (_SALTS | np.uint64(1)) + _ADDENDS) >> np.uint64(32)
    return table.min(axis=0).astype(np.uint32)


def jaccard(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> float:
    """Jaccard similarity of two sorted sets of hashes."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def near_duplicates(texts: Sequence[str], threshold: float) -> list[tuple[int, int, float]]:
    """(position, position of the earlier one it is like, Jaccard) of texts that should go.

    Candidates are pairs that share a band of their MinHash signatures (locality-sensitive hashing,
    Indyk and Motwani 1998); each is then checked on the shingles themselves, so that nothing goes
    by estimate. A text is compared with those that stay.
    """
    buckets: list[dict[bytes, list[int]]] = [{} for _ in range(BANDS)]
    gone: list[tuple[int, int, float]] = []
    for position, text in enumerate(texts):
        hashes = shingles(text)
        bands = signature(hashes).reshape(BANDS, BAND_ROWS)
        keys = [band.tobytes() for band in bands]
        candidates = sorted({c for b, k in zip(buckets, keys, strict=True) for c in b.get(k, ())})
        for candidate in candidates:
            other = shingles(texts[candidate])
            # No pair is alike whose sizes differ by more.
            if min(len(hashes), len(other)) < threshold * max(len(hashes), len(other)):
                continue
            alike = jaccard(hashes, other)
            if alike >= threshold:
                gone.append((position, candidate, alike))
                break
        else:
            for bucket, key in zip(buckets, keys, strict=True):
                bucket.setdefault(key, []).append(position)
    return gone


def clean(rows: Sequence[Row], how: Preparation) -> tuple[list[Row], list[str]]:
    """(rows that stay, notes) of one source, by everything that looks at one example alone."""
    checks: list[Callable[[Row], str | None]] = []
    if how.drop_defects:
        checks.append(lambda row: defect(row["prompt"], row["response"]))
    if how.check_language:
        checks.append(
            lambda row: (
                None
                if is_language(f"{row['prompt']}\n{row['response']}", row["language"])
                else f"not {row['language']}"
            )
        )
    least, most = how.min_characters, how.max_characters
    if least:
        checks.append(
            lambda row: (
                f"response under {least} characters" if len(row["response"]) < least else None
            )
        )
    if most is not None:
        checks.append(
            lambda row: (
                f"over {most} characters"
                if len(row["prompt"]) + len(row["response"]) > most
                else None
            )
        )
    kept: list[Row] = []
    reasons: Counter[str] = Counter()
    for row in rows:
        why = next((said for check in checks if (said := check(row))), None)
        if why is None:
            kept.append(row)
        else:
            reasons[f"{row['source']}: {{}} examples left out ({why})"] += 1
    return kept, [text.format(count) for text, count in sorted(reasons.items())]


def without_equal(
    rows: Sequence[Row], seen: dict[tuple[str, str], str]
) -> tuple[list[Row], list[str]]:
    """(rows that stay, notes): of examples that are equal as texts are compared the first stays.

    Args:
        rows: of one source.
        seen: prompt and response as they are compared -> the source that had them first. What is
            new is added, so that one source is looked through after the other.
    """
    kept: list[Row] = []
    reasons: Counter[str] = Counter()
    for row in rows:
        key = (_key(row["prompt"]), _key(row["response"]))
        first = seen.get(key)
        if first is None:
            seen[key] = row["source"]
            kept.append(row)
        elif first == row["source"]:
            reasons[f"{first}: {{}} exact duplicates left out"] += 1
        else:
            reasons[f"{row['source']}: {{}} examples left out (equal to one of {first})"] += 1
    return kept, [text.format(count) for text, count in sorted(reasons.items())]


def same_prompts(prompts: Sequence[str], chosen: Sequence[bool]) -> list[bool]:
    """Which of the prompts that are not chosen equal, as texts are compared, one that is."""
    keys = [_key(prompt) for prompt in prompts]
    taken = {key for key, is_chosen in zip(keys, chosen, strict=True) if is_chosen}
    return [not c and key in taken for key, c in zip(keys, chosen, strict=True)]


def _key(text: str) -> str:
    return blake2b(fold_spaces(text).encode(), digest_size=16).hexdigest()


def without_near_duplicates(rows: Sequence[Row], threshold: float) -> tuple[list[Row], list[str]]:
    """(rows that stay, notes): of examples that are alike only the first stays."""
    gone = near_duplicates([f"{r['prompt']}\n{r['response']}" for r in rows], threshold)
    if not gone:
        return list(rows), []
    left_out = {position for position, _, _ in gone}
    counts = Counter(rows[position]["source"] for position in left_out)
    notes = [
        f"{source}: {count} near-duplicates left out (Jaccard of {SHINGLE}-character runs "
        f"{threshold:g} or more)"
        for source, count in sorted(counts.items())
    ]
    return [row for i, row in enumerate(rows) if i not in left_out], notes


def balanced(rows: Sequence[Row], seed: int) -> tuple[list[Row], list[str]]:
    """(rows that stay, notes): as many of each language as the rarest has, drawn by seed."""
    languages = sorted({row["language"] for row in rows})
    if len(languages) < 2:
        return list(rows), []
    groups = {name: [i for i, r in enumerate(rows) if r["language"] == name] for name in languages}
    size = min(map(len, groups.values()))
    generator = np.random.default_rng([seed, 0xBA1A])
    kept = {int(i) for g in groups.values() for i in generator.permutation(g)[:size]}
    notes = [
        f"{name}: {len(group) - size} examples left out, so that each language has {size}"
        for name, group in groups.items()
        if len(group) > size
    ]
    return [row for i, row in enumerate(rows) if i in kept], notes
