"""Difficulty before training: `0.3 d1 + 0.5 d2 + 0.2 d3`, each rank-normalised in its language.

d1 linguistic complexity, d2 reasoning steps in the reference response, d3 domain knowledge. The
weights and the three parts are the study's; how each is measured in English and in Korean is our
operationalisation (docs/methods/curriculum.md). No model is needed, and nothing is downloaded.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WEIGHTS = (0.3, 0.5, 0.2)
LINGUISTIC_WEIGHTS = (0.4, 0.3, 0.3)
MAX_STEPS = 10
CHUNK = 2000
"""English examples that one process measures at a time."""
WINDOW = 50
"""Tokens of the moving-average type-token ratio (Covington and McFall 2010)."""

_SUBORDINATORS = """
    after although as because before if lest once provided since so than that though till unless
    until when whenever where whereas wherever whether which while who whom whose why how
"""
_FUNCTION_WORDS = """
    a about above after again against all also am an and any are as at be because been before being
    below between both but by can could did do does doing down during each few for from further had
    has have having he her here hers herself him himself his how i if in into is it its itself just
    let may me might more most must my myself no nor not now of off on once only or other our ours
    ourselves out over own same shall she should so some such than that the their theirs them
    themselves then there these they this those through to too under until up upon us very was we
    were what when where which while who whom whose why will with would you your yours yourself
    yourselves
"""
SUBORDINATORS = frozenset(_SUBORDINATORS.split())
STOP_WORDS = frozenset(_FUNCTION_WORDS.split())

_WORD = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)?|\d+(?:[.,]\d+)*")
_SENTENCE_END = re.compile(r"[.!?。]+(?=[\s\"'”’)]|$)|\n+")
# A line that opens with a number, a letter in brackets, "Step 3" or "3단계".
_NUMBERED = re.compile(
    r"^[ \t]*(?:\(?\d{1,2}[.)](?!\d)|step[ \t]+\d+|\d{1,2}[ \t]*단계|첫째|둘째|셋째|넷째|다섯째)",
    re.IGNORECASE | re.MULTILINE,
)
# GSM8K's calculator notes, which repeat the equation that they stand in; its answer's mark.
_NOTE = re.compile(r"<<[^<>\n]*>>")
_ANSWER = re.compile(r"####[ \t]*-?\$?[\d.,]+[ \t]*$", re.MULTILINE)
# "=" with a number or a closing bracket before it and a value after; not ==, <=, >=, != or a := 1.
_EQUATION = re.compile(r"[\d)%\w][ \t]*(?<![=<>!:])=(?!=)[ \t]*[-+]?[\d$(<]")


@dataclass(frozen=True)
class Features:
    """One example's raw measures.

    Attributes:
        grade: English: Flesch-Kincaid grade. Korean: eojeol a sentence.
        grade_second: Korean: morphemes an eojeol. English: 0.
        diversity: moving-average type-token ratio, in [0, 1].
        clauses: subordinate clauses a sentence (Korean: connective endings a sentence).
        steps: reasoning steps in the response, at most 10.
        content: distinct content words, sorted, for inverse document frequencies.
    """

    grade: float
    grade_second: float
    diversity: float
    clauses: float
    steps: int
    content: tuple[str, ...]


@dataclass(frozen=True)
class Difficulty:
    """Normalised difficulty and its parts, each of shape (n,) and in [0, 1]; `raw` as measured."""

    d1: NDArray[np.float64]
    d2: NDArray[np.float64]
    d3: NDArray[np.float64]
    difficulty: NDArray[np.float64]
    raw: dict[str, NDArray[np.float64]]


def rank_normalise(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average ranks scaled to [0, 1]; all equal (or a single value) gives 0.5.

    Args:
        values: shape (n,), finite.
    """
    n = len(values)
    if n < 2:
        return np.full(n, 0.5)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    average = last - (counts - 1) / 2.0  # ranks from 1
    return (average[inverse] - 1.0) / (n - 1.0)


def sentences(text: str) -> int:
    """Number of sentences that hold a word; at least 1."""
    return max(sum(any(map(str.isalnum, s)) for s in _SENTENCE_END.split(text)), 1)


@functools.cache
def _hyphenator() -> Any:
    import pyphen

    return pyphen.Pyphen(lang="en_US")


@functools.lru_cache(maxsize=200_000)
def syllables(word: str) -> int:
    """Syllables of an English word by hyphenation points; at least 1."""
    return len(_hyphenator().positions(word)) + 1


def flesch_kincaid(words: Sequence[str], n_sentences: int) -> float:
    """`0.39 words/sentences + 11.8 syllables/words - 15.59` (Kincaid et al. 1975); 0 if no word."""
    if not words:
        return 0.0
    total = sum(syllables(w) for w in words)
    return 0.39 * len(words) / n_sentences + 11.8 * total / len(words) - 15.59


def moving_type_token_ratio(tokens: Sequence[str], window: int = WINDOW) -> float:
    """Mean type-token ratio over all windows of this many tokens; the plain ratio if shorter."""
    if not tokens:
        return 0.0
    if len(tokens) <= window:
        return len(set(tokens)) / len(tokens)
    counts = Counter(tokens[:window])
    total = len(counts)
    for old, new in zip(tokens, tokens[window:], strict=False):
        counts[old] -= 1
        if not counts[old]:
            del counts[old]
        counts[new] += 1
        total += len(counts)
    return total / ((len(tokens) - window + 1) * window)


def reasoning_steps(response: str) -> int:
    """Numbered steps, equations or sentences, whichever are most; capped at 10.

    So a mark more never makes a step fewer. What only repeats a step (GSM8K's `<<6*2=12>>`, its
    `#### 12`) is none. A line is a sentence, also one of a program.
    """
    text = _ANSWER.sub("", _NOTE.sub("", response))
    numbered, equations = len(_NUMBERED.findall(text)), len(_EQUATION.findall(text))
    return min(max(numbered, equations, sentences(_NUMBERED.sub("", text))), MAX_STEPS)


def english_features(prompt: str, response: str) -> Features:
    """Measures of an English example, over prompt and response together (steps: response)."""
    text = f"{prompt}\n{response}"
    words = [w.lower() for w in _WORD.findall(text)]
    n_sentences = sentences(text)
    return Features(
        grade=flesch_kincaid([w for w in words if w[0].isalpha()], n_sentences),
        grade_second=0.0,
        diversity=moving_type_token_ratio(words),
        clauses=sum(w in SUBORDINATORS for w in words) / n_sentences,
        steps=reasoning_steps(response),
        content=tuple(sorted({w for w in words if w[0].isalpha() and w not in STOP_WORDS})),
    )


def korean_features(prompt: str, response: str, morphemes: Iterable[tuple[str, str]]) -> Features:
    """Measures of a Korean example.

    Args:
        morphemes: (form, tag) of prompt and response, as kiwipiepy tags them.
    """
    text = f"{prompt}\n{response}"
    n_sentences = sentences(text)
    eojeol = max(len(text.split()), 1)
    found = [(form, tag) for form, tag in morphemes if tag[0] != "S" or tag in ("SL", "SN")]
    content = {
        form.lower()
        for form, tag in found
        if tag.startswith(("NNG", "NNP", "VV", "VA", "MAG", "XR", "SL"))
    }
    return Features(
        grade=eojeol / n_sentences,
        grade_second=len(found) / eojeol,
        diversity=moving_type_token_ratio([f"{form}/{tag}" for form, tag in found]),
        clauses=sum(tag == "EC" for _, tag in found) / n_sentences,
        steps=reasoning_steps(response),
        content=tuple(sorted(content)),
    )


def _english_chunk(texts: Sequence[tuple[str, str]]) -> list[Features]:
    return [english_features(prompt, response) for prompt, response in texts]


def measure(
    prompts: Sequence[str], responses: Sequence[str], languages: Sequence[str], workers: int = 1
) -> list[Features]:
    """Measures of all examples, in order, the same for any number of workers.

    English ones by `workers` processes, Korean ones by kiwipiepy with as many threads.
    """
    korean = [i for i, language in enumerate(languages) if language == "ko"]
    english = [i for i, language in enumerate(languages) if language != "ko"]
    result: list[Features | None] = [None] * len(prompts)
    texts_of = [(prompts[i], responses[i]) for i in english]
    chunks = [texts_of[k : k + CHUNK] for k in range(0, len(texts_of), CHUNK)]
    if workers > 1 and len(chunks) > 1:
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        # Spawned: a fork would copy the locks of polars' threads.
        with ProcessPoolExecutor(min(workers, len(chunks)), get_context("spawn")) as pool:
            measured = [f for part in pool.map(_english_chunk, chunks) for f in part]
    else:
        measured = [f for chunk in chunks for f in _english_chunk(chunk)]
    for i, features in zip(english, measured, strict=True):
        result[i] = features
    if korean:
        from kiwipiepy import Kiwi

        kiwi = Kiwi(num_workers=workers)
        texts = (f"{prompts[i]}\n{responses[i]}" for i in korean)
        for i, tokens in zip(korean, kiwi.tokenize(texts), strict=True):
            morphemes = ((t.form, t.tag) for t in tokens)
            result[i] = korean_features(prompts[i], responses[i], morphemes)
    return [f for f in result if f is not None]


def mean_idf(content: Sequence[tuple[str, ...]]) -> NDArray[np.float64]:
    """Mean inverse document frequency of each document's content words, shape (n,).

    `ln((1 + n) / (1 + df)) + 1`, smoothed so that no word has 0; a document without content words
    has 0. Source: Spärck Jones 1972, smoothing as in Manning et al. 2008, section 6.2.
    """
    n = len(content)
    frequency = Counter(word for words in content for word in words)
    idf = {w: math.log((1 + n) / (1 + f)) + 1.0 for w, f in frequency.items()}
    return np.array(
        [math.fsum(idf[w] for w in words) / len(words) if words else 0.0 for words in content]
    )


def combine(features: Sequence[Features], languages: Sequence[str]) -> Difficulty:
    """Difficulty from the measures; every rank is taken within the example's language."""
    n = len(features)
    labels = np.array(languages)
    raw = {
        name: np.array([getattr(f, name) for f in features], dtype=np.float64)
        for name in ("grade", "grade_second", "diversity", "clauses", "steps")
    }
    raw["idf"] = np.zeros(n)
    d1, d2, d3 = np.zeros(n), np.zeros(n), np.zeros(n)
    for language in np.unique(labels):
        rows = np.flatnonzero(labels == language)
        raw["idf"][rows] = mean_idf([features[i].content for i in rows])
        # Rounded before ranking: equal values in another order of summation stay equal.
        ranks = {name: rank_normalise(np.round(values[rows], 12)) for name, values in raw.items()}
        grade = ranks["grade"]
        if language == "ko":
            grade = (ranks["grade"] + ranks["grade_second"]) / 2.0
        w = LINGUISTIC_WEIGHTS
        linguistic = w[0] * grade + w[1] * ranks["diversity"] + w[2] * ranks["clauses"]
        d1[rows] = rank_normalise(np.round(linguistic, 12))
        d2[rows] = ranks["steps"]
        d3[rows] = ranks["idf"]
    total = WEIGHTS[0] * d1 + WEIGHTS[1] * d2 + WEIGHTS[2] * d3
    return Difficulty(d1, d2, d3, total, raw)


def balanced_probe(
    difficulty: NDArray[np.float64],
    languages: Sequence[str],
    size: int,
    seed: int,
    sources: Sequence[str] | None = None,
) -> NDArray[np.int64]:
    """Positions of a held-out probe balanced by language and difficulty, ascending.

    Each language gives an equal share (what one lacks the others give); within a language the
    examples sorted by difficulty are cut into as many equal strata as are wanted, and one is drawn
    from each.

    Args:
        sources: each example's source: then every source of a language gives as many as its share
            of all examples comes to (largest remainders, equal ones in the order of names).

    Raises:
        ValueError: `size` leaves nothing to train on.
    """
    n = len(difficulty)
    if size >= n:
        raise ValueError(f"a probe of {size} out of {n} examples leaves nothing to train on")
    names = (
        list(languages)
        if sources is None
        else [f"{a}\n{b}" for a, b in zip(languages, sources, strict=True)]
    )
    labels = np.array(names)
    groups = {str(name): np.flatnonzero(labels == name) for name in np.unique(labels)}
    if sources is None:
        quota = dict.fromkeys(groups, 0)
        for _ in range(size):
            open_groups = [g for g in groups if quota[g] < len(groups[g])]
            quota[min(open_groups, key=lambda g: (quota[g], g))] += 1
    else:
        quota = {g: size * len(rows) // n for g, rows in groups.items()}
        by_rest = sorted(groups, key=lambda g: (-(size * len(groups[g]) % n), g))
        for g in by_rest[: size - sum(quota.values())]:
            quota[g] += 1
    generator = np.random.default_rng([seed, 0x5A9D, 9])
    chosen: list[int] = []
    for name, rows in groups.items():
        if quota[name]:
            ordered = rows[np.argsort(difficulty[rows], kind="stable")]
            chosen += [int(generator.choice(s)) for s in np.array_split(ordered, quota[name])]
    return np.array(sorted(chosen), dtype=np.int64)
