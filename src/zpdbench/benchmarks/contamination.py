"""Training examples that hold a benchmark's items, whole, in part, or in another spelling.

Three signs, each after `text.unicode.fold` and over words (runs of letters and digits):

- *exact*: the example's prompt, or a line or paragraph of it, is the item and nothing else.
- *words*: of the item's words, weighted by their rarity, 60 % stand in runs of three or more that
  the prompt has too (80 % in a response: an answer says as a sentence what a short question asks).
  So an item is found behind any instruction, cut short, or with words left out. The weight of a
  word is `ln(1 + N / n)`, n of all N items and examples having it (inverse document frequency;
  Spaerck Jones 1972). Items of fewer than five words, and such as have hardly a word that is rare,
  are nothing but phrases and not looked for so.
- *13-gram*: 13 words in a row are shared, also of a long passage of which an example has a piece
  only. Source: Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C; as there, a
  run that occurs in more than ten training documents is a phrase and no sign.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zpdbench.benchmarks.definition import load
from zpdbench.benchmarks.rendering import fill, render
from zpdbench.text.unicode import fold

WORDS = 13
PHRASE = 10
RUN = 3
"""Words of the runs that must be shared for their words to count."""
LEAST = 5
"""Words of the shortest text that is looked for by its words."""
LEAST_WEIGHT = 1.75
"""Its least weight, in weights of a word that occurs once: below it are phrases."""
PROMPT_SHARE, RESPONSE_SHARE = 0.6, 0.8
"""Of an item's weight, in an example that holds it."""

_WORD = re.compile(r"\w+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_AT_ONCE = 4000

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Text:
    """What of an item is looked for.

    Attributes:
        benchmark, item_id: the item.
        content: its own words (an MMLU question, say).
        asked: these with others: with its choices, and as they are asked without shots.
        described: the same behind the task's description, whose words are not the item's.
    """

    benchmark: str
    item_id: str
    content: str
    asked: tuple[str, ...] = ()
    described: str = ""


@dataclass(frozen=True, order=True)
class Hit:
    """A training example that holds an item; `kind` is `exact`, `words` or `13-gram`."""

    example: str
    benchmark: str
    item_id: str
    kind: str


def words(text: str) -> list[str]:
    """The words of a text in any script as they are compared, punctuation left out."""
    return _WORD.findall(fold(text))


def texts_of(rows: Iterable[Mapping[str, Any]], definition: str | None = None) -> list[Text]:
    """What to look for, of the rows of an items file.

    Args:
        rows: with benchmark, item_id, task and doc.
        definition: the benchmark's definition file, where it has one of its own.
    """
    texts = []
    for row in rows:
        task = load(definition or row["benchmark"]).task(row["task"])
        doc = json.loads(row["doc"])
        rendered = render(task, doc)
        content, *more = (fill(content, doc) for content in task.contents)
        turns = [m["content"] for m in rendered.messages if m["role"] == "user"]
        asked = (*more, turns[-1])
        texts.append(Text(row["benchmark"], row["item_id"], content, asked, rendered.prompt))
    return texts


def too_short(items: Sequence[Text]) -> dict[str, tuple[int, int, int]]:
    """Benchmark -> (items of too few words, of these those of too few as asked too, all items).

    The first kind is found where its words are all of a line, and with choices or as asked; the
    second nowhere else but on a line of its own.
    """
    found: dict[str, tuple[int, int, int]] = {}
    for item in items:
        few, always, total = found.get(item.benchmark, (0, 0, 0))
        short = len(words(item.content)) < LEAST
        never = short and all(len(words(text)) < LEAST for text in item.asked)
        found[item.benchmark] = (few + short, always + never, total + 1)
    return found


def find(
    items: Sequence[Text], examples: Sequence[tuple[str, str, str]], *, n: int | None = WORDS
) -> list[Hit]:
    """The training examples that hold an item, sorted; one hit an example and item.

    Args:
        items: what is looked for.
        examples: (id, prompt, response) of each.
        n: length of the runs of words; None: equal prompts only.
    """
    own = [[tuple(words(text)) for text in (item.content, *item.asked)] for item in items]
    kinds: dict[tuple[int, int], str] = {}
    if n is not None:
        kinds |= _by_words(own, examples, n)
    whole = [[*texts, tuple(words(i.described))] for i, texts in zip(items, own, strict=True)]
    kinds |= dict.fromkeys(_equal(whole, examples, parts=n is not None), "exact")
    return sorted(
        Hit(examples[example][0], items[index].benchmark, items[index].item_id, kind)
        for (example, index), kind in kinds.items()
    )


def _equal(
    items: Sequence[Iterable[tuple[str, ...]]],
    examples: Sequence[tuple[str, str, str]],
    *,
    parts: bool,
) -> Iterator[tuple[int, int]]:
    """(example, item) where the prompt, or also a part of it, has an item's words and no others."""
    whole: dict[tuple[str, ...], set[int]] = {}
    for index, texts in enumerate(items):
        for listed in texts:
            if listed:
                whole.setdefault(listed, set()).add(index)
    for example, (_, prompt, _) in enumerate(examples):
        folded = fold(prompt)
        pieces = {folded}
        if parts and "\n" in folded:
            pieces |= {*folded.split("\n"), *folded.split("\n\n")}
        for piece in pieces:
            yield from ((example, index) for index in whole.get(tuple(_WORD.findall(piece)), ()))


class _Runs:
    """Texts as numbers of words, one text after the other, and the runs of words in them.

    Attributes:
        ids: the words' numbers, of all texts; 0 for a word of no item.
        text: which text each is of.
    """

    def __init__(self, texts: Sequence[Sequence[int]]) -> None:
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        self.ids = np.fromiter((i for text in texts for i in text), np.int64, int(lengths.sum()))
        self.text = np.repeat(np.arange(len(texts)), lengths)

    def hashed(self, table: Hashes, n: int) -> tuple[Hashes, Ints]:
        """(hash, place of the first word) of each run of `n` known words within one text."""
        size = max(len(self.ids) - n + 1, 0)
        hashes = np.zeros(size, dtype=np.uint64)
        known = self.text[:size] == self.text[len(self.text) - size :]
        with np.errstate(over="ignore"):
            for k in range(n):
                ids = self.ids[k : k + size]
                hashes = hashes * _MULTIPLIER + table[ids]
                known &= ids > 0
        places = np.flatnonzero(known)
        return hashes[places], places


class _Places:
    """Where each run of `n` words stands in the items' texts."""

    def __init__(self, runs: _Runs, table: Hashes, n: int) -> None:
        hashes, places = runs.hashed(table, n)
        order = np.argsort(hashes, kind="stable")
        self.table, self.n, self.places = table, n, places[order]
        self.keys, self.first, self.count = np.unique(
            hashes[order], return_index=True, return_counts=True
        )

    def shared(self, runs: _Runs) -> tuple[Ints, Ints]:
        """(text, position in `keys`) of each distinct run that the items have too."""
        hashes, places = runs.hashed(self.table, self.n)
        if not (len(self.keys) and len(hashes)):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        at = np.searchsorted(self.keys, hashes).clip(max=len(self.keys) - 1)
        same = self.keys[at] == hashes
        both = np.unique(runs.text[places[same]] * len(self.keys) + at[same])
        return both // len(self.keys), both % len(self.keys)

    def spread(self, keys: Ints) -> tuple[Ints, Ints]:
        """(position in the argument, place in the items' texts), for every place of each run."""
        count = self.count[keys]
        ends = np.cumsum(count)
        rows = np.arange(count.sum()) - np.repeat(ends - count, count)
        return np.repeat(np.arange(len(keys)), count), self.places[
            rows + np.repeat(self.first[keys], count)
        ]


def _by_words(
    items: Sequence[Iterable[tuple[str, ...]]], examples: Sequence[tuple[str, str, str]], n: int
) -> dict[tuple[int, int], str]:
    """(example, item) -> `words`, or where only `n` words in a row are shared, `n-gram`."""
    numbers: dict[str, int] = {}
    owners: list[int] = []
    listed: list[list[int]] = []
    seen_in: list[set[int]] = []
    for index, own in enumerate(items):
        texts = [
            [numbers.setdefault(w, len(numbers) + 1) for w in text] for text in dict.fromkeys(own)
        ]
        seen_in.append({i for text in texts for i in text})
        for text in texts:
            if len(text) >= LEAST:
                owners.append(index)
                listed.append(text)
    if not listed or not examples:
        return {}
    read = [[numbers.get(w, 0) for w in words(text)] for _, *pair in examples for text in pair]
    documents = np.zeros(len(numbers) + 1, dtype=np.int64)
    for own_words in seen_in:
        documents[list(own_words)] += 1
    for prompt, response in zip(read[::2], read[1::2], strict=True):
        documents[list({*prompt, *response})] += 1
    total = len(items) + len(examples)
    weight = np.log1p(total / documents.clip(min=1))
    runs = _Runs(listed)
    owner = np.array(owners)
    # Numbers of words to 64 random bits: runs of any length by one sum, 2^-64 a collision.
    table = np.random.default_rng(0).integers(2**64, size=len(weight), dtype=np.uint64)
    short, long = _Places(runs, table, RUN), _Places(runs, table, n)
    upto = np.concatenate([[0.0], np.cumsum(weight[runs.ids])])
    whole = np.bincount(runs.text, weight[runs.ids])
    told = whole >= LEAST_WEIGHT * np.log1p(total)
    found: dict[tuple[int, int], str] = {}
    rows: list[Ints] = []
    for start in range(0, len(read), _AT_ONCE):
        part = _Runs(read[start : start + _AT_ONCE])
        at, key = long.shared(part)
        rows.append(np.unique((at + start) // 2 * len(long.keys) + key))
        at, view, share = _shares(short, part, runs.text, upto, whole)
        # Prompts and responses take turns.
        wanted = np.where(at % 2 == 0, PROMPT_SHARE, RESPONSE_SHARE)
        good = (share >= wanted) & told[view]
        pairs = zip((at[good] + start) // 2, owner[view[good]], strict=True)
        found |= {(int(example), int(index)): "words" for example, index in pairs}
    example, key = np.divmod(np.unique(np.concatenate(rows)), max(len(long.keys), 1))
    rare = np.bincount(key, minlength=len(long.keys))[key] <= PHRASE
    at, place = long.spread(key[rare])
    for one, index in zip(example[rare][at], owner[runs.text[place]], strict=True):
        found.setdefault((int(one), int(index)), f"{n}-gram")
    return found


def _shares(
    places: _Places, part: _Runs, text_of: Ints, upto: NDArray[np.float64], whole: Any
) -> tuple[Ints, Ints, NDArray[np.float64]]:
    """(text of `part`, item's text, share of its weight that stands in shared runs).

    Args:
        text_of: which item's text each place is of.
        upto: weight of all words before each place, shape (places + 1,).
        whole: weight of each item's text.
    """
    text, key = places.shared(part)
    at, place = places.spread(key)
    order = np.sort(text[at] * len(upto) + place)
    if not len(order):
        return order, order, np.zeros(0)
    text, place = order // len(upto), order % len(upto)
    pair = text * len(whole) + text_of[place]
    first = np.concatenate([[True], pair[1:] != pair[:-1]])
    # Runs overlap: each adds the words behind the end of the one before it.
    end = np.where(first, 0, np.concatenate([[0], place[:-1] + RUN]))
    gain = upto[place + RUN] - upto[np.maximum(place, end)]
    starts = np.flatnonzero(first)
    view = text_of[place[starts]]
    return text[starts], view, np.add.reduceat(gain, starts) / whole[view]
