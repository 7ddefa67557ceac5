"""Training examples that hold a benchmark's items: equal texts, and shared runs of 13 words.

Source: Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C: 13-grams of
lower-case words without punctuation; one that occurs in more than ten training documents is a
phrase and no sign of contamination. Unlike there, a document that holds all of an item's runs holds
the item, in however many documents it may be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from zpdbench.benchmarks.definition import load
from zpdbench.benchmarks.rendering import fill, render

WORDS = 13
PHRASE = 10

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Text:
    """What of an item is looked for.

    Attributes:
        benchmark, item_id: the item.
        content: its own words (a GSM8K question, say).
        asked: the text as asked without shots, with and without a task's description.
    """

    benchmark: str
    item_id: str
    content: str
    asked: tuple[str, ...] = ()


@dataclass(frozen=True, order=True)
class Hit:
    """A training example that holds an item; `kind` is `exact` or `13-gram`."""

    example: str
    benchmark: str
    item_id: str
    kind: str


def words(text: str) -> list[str]:
    """Lower-case words of a text in any script, punctuation left out."""
    return _WORD.findall(text.lower())


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
        asked = (rendered.prompt, rendered.messages[-1]["content"])
        content = fill(task.content or task.text, doc)
        texts.append(Text(row["benchmark"], row["item_id"], content, asked))
    return texts


def find(
    items: Sequence[Text], examples: Iterable[tuple[str, str, str]], *, n: int | None = WORDS
) -> list[Hit]:
    """The training examples that hold an item, sorted.

    Args:
        items: what is looked for.
        examples: (id, prompt, response) of each.
        n: length of the runs of words; None: equal texts only.

    Returns:
        One hit an example and item; `exact` where the example's prompt is the item's content or
        the item as asked, word for word, else by a shared run in prompt or response: one that is
        no phrase, or all of the item's.
    """
    whole: dict[bytes, set[int]] = {}
    runs: dict[bytes, set[int]] = {}
    for index, item in enumerate(items):
        for text in (item.content, *item.asked):
            if listed := words(text):
                whole.setdefault(_key(listed), set()).add(index)
        if n is not None:
            for run in _runs(words(item.content), n):
                runs.setdefault(run, set()).add(index)
    exact: set[tuple[str, int]] = set()
    holders: dict[bytes, set[str]] = {}
    for name, prompt, response in examples:
        listed = words(prompt)
        exact |= {(name, index) for index in whole.get(_key(listed), ())}
        if n is None or not runs:
            continue
        # Runs across the seam of prompt and response are in no text that was written.
        for run in {*_runs(listed, n), *_runs(words(response), n)}:
            if run in runs:
                holders.setdefault(run, set()).add(name)
    shared: set[tuple[str, int]] = set()
    in_phrases: set[int] = set()
    for run, names in holders.items():
        if len(names) <= PHRASE:
            shared |= {(name, index) for name in names for index in runs[run]}
        else:
            in_phrases |= runs[run]
    for index in in_phrases:
        own = [holders.get(run, set()) for run in _runs(words(items[index].content), n or WORDS)]
        shared |= {(name, index) for name in set.intersection(*own)}
    return sorted(
        Hit(
            name,
            items[index].benchmark,
            items[index].item_id,
            "exact" if (name, index) in exact else f"{n}-gram",
        )
        for name, index in exact | shared
    )


def _key(listed: Sequence[str]) -> bytes:
    return blake2b(" ".join(listed).encode("utf-8", "surrogatepass"), digest_size=10).digest()


def _runs(listed: Sequence[str], n: int) -> Iterable[bytes]:
    return (_key(listed[i : i + n]) for i in range(len(listed) - n + 1))
