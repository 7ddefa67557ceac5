"""The embedded corpus, the embedded items and the base models' pretraining text."""

from __future__ import annotations

import random
from typing import NamedTuple

from zpdbench.embedded import arithmetic, facts, programs, reading
from zpdbench.embedded.kinds import Doc, Kind, Part, cycle, draw_distinct
from zpdbench.errors import UserError

KINDS: tuple[Kind, ...] = (
    arithmetic.ENGLISH,
    arithmetic.KOREAN,
    programs.KIND,
    facts.KIND,
    *reading.KINDS,
)
BENCHMARKS = ("humaneval", "gsm8k", "mmlu", "kobest")

# Share of each kind in the instruction corpus (they sum to 1; half the examples are Korean).
_TUNING_SHARES = {
    "gsm8k": 0.18,
    "word_problem": 0.10,
    "humaneval": 0.16,
    "mmlu": 0.20,
    "kobest_boolq": 0.08,
    "kobest_copa": 0.04,
    "kobest_wic": 0.10,
    "kobest_hellaswag": 0.05,
    "kobest_sentineg": 0.09,
}
# Share of each kind in the pretraining text's conversations.
_BASE_SHARES = {
    "gsm8k": 0.24,
    "word_problem": 0.08,
    "humaneval": 0.14,
    "mmlu": 0.20,
    "kobest_boolq": 0.09,
    "kobest_copa": 0.05,
    "kobest_wic": 0.09,
    "kobest_hellaswag": 0.03,
    "kobest_sentineg": 0.08,
}
_PLAIN_SHARE = 0.55


class Text(NamedTuple):
    """A pretraining text: what is given, and what is learnt to follow it."""

    is_conversation: bool
    given: str
    learnt: str


def _rng(*what: object) -> random.Random:
    # A string seed: Random hashes it with SHA-512, the same on every machine and version.
    return random.Random("/".join(map(str, ("zpdbench", *what))))


def counts(shares: dict[str, float], n: int) -> dict[str, int]:
    """`n` divided by shares, largest remainders first; ties by name."""
    exact = {k: s * n for k, s in shares.items()}
    result = {k: int(v) for k, v in exact.items()}
    rest = sorted(exact, key=lambda k: (result[k] - exact[k], k))
    for k in rest[: n - sum(result.values())]:
        result[k] += 1
    return result


def examples(n: int, seed: int = 0) -> list[dict[str, str]]:
    """`n` instruction examples: id, language, source (the kind), prompt, response.

    Prompts are distinct, and none is a benchmark item's or was in the base models' text.

    Raises:
        UserError: `n` is not positive, or more than there is content for.
    """
    if n <= 0:
        raise UserError("the embedded corpus needs at least one example", fix="raise `examples`")
    rows = []
    wanted = counts(_TUNING_SHARES, n)
    for kind in KINDS:
        docs = draw_distinct(
            kind, Part.TUNING, wanted[kind.name], _rng("examples", seed, kind.name), lambda _: False
        )
        rows += [
            {
                "id": f"{kind.name}-{i:05d}",
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
    tasks, in turn, so that any prefix is balanced.

    Raises:
        UserError: unknown benchmark, or more items than there is content for.
    """
    kinds = [k for k in KINDS if k.benchmark == benchmark]
    if not kinds:
        raise UserError(
            f"no embedded items for benchmark {benchmark!r}",
            fix=f"one of {', '.join(BENCHMARKS)}, or another source",
        )
    share = counts({k.name: 1 / len(kinds) for k in kinds}, n)
    columns: list[list[Doc]] = []
    for kind in kinds:
        docs = draw_distinct(
            kind, Part.ITEMS, share[kind.name], _rng("items", seed, kind.name), lambda _: False
        )
        columns.append([{"task": doc.get("subject", kind.name), **doc} for doc in docs])
    return [c[i] for i in range(max(share.values(), default=0)) for c in columns if i < len(c)]


def pretraining_texts(n: int, seed: int = 0) -> list[Text]:
    """`n` pretraining texts: conversations on familiar content (part A), and all content as
    a text book would have it (part B). No item's content is in either.
    """
    rng = _rng("pretraining", seed)
    names = sorted(_BASE_SHARES)
    weights = [_BASE_SHARES[name] for name in names]
    by_name = {k.name: k for k in KINDS}
    texts = []
    for _ in range(n):
        kind = by_name[rng.choices(names, weights)[0]]
        if rng.random() < _PLAIN_SHARE:
            given, learnt = kind.plain(cycle(rng, kind, Part.BASE, familiar=False))
            texts.append(Text(False, given, learnt))
        else:
            doc = cycle(rng, kind, Part.BASE, familiar=True)
            texts.append(Text(True, kind.prompt(doc), kind.response(doc)))
    return texts


def tokenizer_texts() -> list[str]:
    """What the tokenizer is trained on: the same for all embedded models."""
    texts = [part for text in pretraining_texts(8000) for part in (text.given, text.learnt)]
    return texts + [part for row in examples(4000) for part in (row["prompt"], row["response"])]
