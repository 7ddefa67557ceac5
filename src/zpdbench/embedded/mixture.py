"""The embedded corpus, the embedded items and the base models' pretraining text.

Three kinds of content, named by what they are to a base model that this module's text made:
mastered already (small talk, and the benchmarks' tasks as it was trained on them), just learnable
(the same tasks with a twist, which the items ask), beyond reach (numbers drawn by lot).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from zpdbench.embedded import arithmetic, facts, programs, reading, talk
from zpdbench.embedded.kinds import Doc, Kind, Part, cycle, draw_distinct
from zpdbench.errors import UserError

TASKS: tuple[Kind, ...] = (arithmetic.KIND, programs.KIND, facts.KIND, *reading.KINDS)
TAUGHT = tuple(kind for kind in TASKS if kind.name != "kobest_wic")
"""WiC is asked and not taught: to compare two contexts is beyond models of this size."""
TWISTED = tuple(kind for kind in TAUGHT if kind.is_twisted)
"""COPA and HellaSwag are asked as they were taught: forgetting shows in them."""
KINDS: tuple[Kind, ...] = (*TASKS, *talk.TALK, *talk.LOTS)
BENCHMARKS = ("humaneval", "gsm8k", "mmlu", "kobest")

CORPUS = {"mastered": 0.92, "learnable": 0.04, "beyond": 0.04}
"""Shares of the corpus unless a study says otherwise (sum 1)."""
PRETRAINING = {"textbook": 0.2, "tasks": 0.66, "talk": 0.08, "lots": 0.06}
"""Shares of a base model's texts unless a study says otherwise (sum 1)."""
_EQUAL = dict.fromkeys(BENCHMARKS, 1 / len(BENCHMARKS))
_PRETRAINING_TASKS = {"gsm8k": 0.35, "humaneval": 0.12, "mmlu": 0.22, "kobest": 0.31}
NOTIONS_AMONG_TEXTBOOK = 0.4
"""How often a text book tells what a twist means, of kinds that have one."""
TASKS_AMONG_MASTERED = 0.06
"""Share of tasks among what is mastered in the corpus; the rest is small talk."""
MASTERED_EVERY = 5
"""Every so many items of a kind, one asks what the base models master: forgetting shows there."""


class Text(NamedTuple):
    """A pretraining text: what is given, and what is learnt to follow it."""

    is_conversation: bool
    given: str
    learnt: str


def _rng(*what: object) -> random.Random:
    # A string seed: Random hashes it with SHA-512, the same on every machine and version.
    return random.Random("/".join(map(str, ("zpdbench", *what))))


def counts(shares: Mapping[str, float], n: int) -> dict[str, int]:
    """`n` divided by shares, largest remainders first; ties by name."""
    exact = {k: s * n for k, s in shares.items()}
    result = {k: int(v) for k, v in exact.items()}
    rest = sorted(exact, key=lambda k: (result[k] - exact[k], k))
    for k in rest[: n - sum(result.values())]:
        result[k] += 1
    return result


def _even(kinds: Sequence[Kind], of: Mapping[str, float] = _EQUAL) -> dict[str, float]:
    """Shares of tasks: those of their benchmarks, within one as much of each kind."""
    together = Counter(k.benchmark for k in kinds)
    return {k.name: of[k.benchmark] / together[k.benchmark] for k in kinds if k.benchmark}


def _halves(kinds: Sequence[Kind]) -> dict[str, float]:
    """Shares of kinds: half of each language, within one of each kind."""
    of = {language: [k for k in kinds if k.language == language] for language in ("en", "ko")}
    return {k.name: 0.5 / len(of[k.language]) for k in kinds}


def _never(position: int) -> bool:
    return False


def _always(position: int) -> bool:
    return True


def _mostly(position: int) -> bool:
    """Whether the item at a position is twisted: every fifth is not."""
    return position % MASTERED_EVERY > 0


def examples(n: int, seed: int = 0, shares: Mapping[str, float] = CORPUS) -> list[dict[str, str]]:
    """`n` instruction examples: id, language, source (the kind), prompt, response.

    Prompts are distinct; none is a benchmark item's, none was in the base models' text. Ids tell
    what is learnable: `{kind}-twist-{number}`.

    Args:
        shares: of what is mastered, learnable and beyond reach (sum 1).

    Raises:
        UserError: `n` is not positive, or more than there is content for.
    """
    if n <= 0:
        raise UserError("the embedded corpus needs at least one example", fix="raise `examples`")
    mastered = shares["mastered"]
    wanted = counts(
        {
            **{f"{k}-twist": s * shares["learnable"] for k, s in _even(TWISTED).items()},
            **{k: s * mastered * TASKS_AMONG_MASTERED for k, s in _halves(TAUGHT).items()},
            **{k: s * mastered * (1 - TASKS_AMONG_MASTERED) for k, s in _halves(talk.TALK).items()},
            **{k: s * shares["beyond"] for k, s in _halves(talk.LOTS).items()},
        },
        n,
    )
    rows = []
    for kind in KINDS:
        for name, twisted in ((kind.name, _never), (f"{kind.name}-twist", _always)):
            docs = draw_distinct(
                kind,
                Part.TUNING,
                wanted.get(name, 0),
                _rng("examples", seed, name),
                twisted,
            )
            rows += [
                {
                    "id": f"{name}-{i:05d}",
                    "language": kind.language,
                    "source": kind.name,
                    "prompt": kind.prompt(doc),
                    "response": kind.response(doc),
                }
                for i, doc in enumerate(docs)
            ]
    return sorted(rows, key=lambda row: row["id"])


def benchmark_docs(benchmark: str, n: int, seed: int = 0) -> list[Doc]:
    """`n` documents in the benchmark authors' format, with a key `task` added.

    humaneval, gsm8k, mmlu: n documents (mmlu's task is its subject). kobest: n over its five
    tasks, in turn, so that any prefix is balanced. Every fifth of a kind asks what is mastered,
    the others what is learnable; no two are one but for names and times.

    Raises:
        UserError: unknown benchmark, or more items than there is content for.
    """
    kinds = [k for k in TASKS if k.benchmark == benchmark]
    if not kinds:
        raise UserError(
            f"no embedded items for benchmark {benchmark!r}",
            fix=f"one of {', '.join(BENCHMARKS)}, or another source",
        )
    share = counts({k.name: 1 / len(kinds) for k in kinds}, n)
    columns: list[list[Doc]] = []
    for kind in kinds:
        docs = draw_distinct(
            kind,
            Part.ITEMS,
            share[kind.name],
            _rng("items", seed, kind.name),
            _mostly if kind in TWISTED else _never,
            kind.key,
        )
        columns.append([{"task": doc.get("subject", kind.name), **doc} for doc in docs])
    return [c[i] for i in range(max(share.values(), default=0)) for c in columns if i < len(c)]


def pretraining_texts(
    n: int, seed: int = 0, shares: Mapping[str, float] = PRETRAINING
) -> list[Text]:
    """`n` pretraining texts: tasks, small talk and lots as conversations, none with a twist, and
    what tasks need to be known as a text book has it. None is of the corpus or of the items.

    Args:
        shares: of textbook, tasks, talk and lots (sum 1).
    """
    rng = _rng("pretraining", seed)
    names, weights = zip(*sorted(shares.items()), strict=True)
    tasks = _even(TAUGHT, _PRETRAINING_TASKS)
    texts = []
    for _ in range(n):
        what = rng.choices(names, weights)[0]
        if what in ("talk", "lots"):
            kind = rng.choice(talk.TALK if what == "talk" else talk.LOTS)
        else:
            kind = rng.choices(TAUGHT, [tasks[k.name] for k in TAUGHT])[0]
        if what == "textbook" and kind.notion and rng.random() < NOTIONS_AMONG_TEXTBOOK:
            texts.append(Text(False, *kind.notion(rng)))
            continue
        doc = cycle(rng, kind, Part.BASE)
        if what == "textbook" and kind.plain:
            texts.append(Text(False, *kind.plain(doc)))
        else:
            texts.append(Text(True, kind.prompt(doc), kind.response(doc)))
    return texts


def tokenizer_texts() -> list[str]:
    """What the tokenizer is trained on: the same for all embedded models."""
    texts = [part for text in pretraining_texts(8000) for part in (text.given, text.learnt)]
    return texts + [part for row in examples(4000) for part in (row["prompt"], row["response"])]
