"""From an answer to a verdict, for everything but programs, which a sandbox judges.

Source of extraction and comparison: EleutherAI/lm-evaluation-harness 0.4.13, task `gsm8k`
(filters strict-match and flexible-extract, metric exact_match) and `multiple_choice` tasks.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zpdbench.benchmarks.definition import resolve

TIE_MARGIN = 1e-4
"""Nats within which two log-likelihoods are not told apart across machines and batches."""
CONFIDENCE_DIGITS = 6

_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_MARK = "#### "
_NUMBER = re.compile(r"-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)")


@dataclass(frozen=True)
class Verdict:
    """What an answer came to.

    Attributes:
        correct: 0 or 1.
        status: `ok`, `no_answer`, `tie`, or a program's `passed`, `failed`, `timeout`, ...
        extracted: what was taken for the answer; ``""`` if nothing, and for code.
        correct_flexible: 0 or 1 by the lenient extraction, where there is one.
        correct_norm: 0 or 1 by log-likelihood per character, where the harness reports that.
        confidence: probability of the chosen answer among the choices, in [0, 1]; None where text
            was generated or only the choice is known.
        prediction: the answer as it is compared with the gold.
    """

    correct: float
    status: str
    extracted: str
    correct_flexible: float | None = None
    correct_norm: float | None = None
    confidence: float | None = None
    prediction: str = ""


def normalise_number(text: str) -> str:
    """Text as `exact_match` compares it: no commas, dollars, reasoning before '#### ', final stop.

    The harness removes by regular expressions; `(?s).*#### ` is written as a search from the
    right, which is the same and linear.
    """
    text = text.replace(",", "").replace("$", "")
    at = text.rfind(_MARK)
    if at >= 0:
        text = text[at + len(_MARK) :]
    return re.sub(r"\.$", "", text).lower()


def strict_number(text: str) -> str:
    """The first '#### number' of an answer, normalised; ``""`` if there is none."""
    match = _STRICT.search(text)
    return normalise_number(match.group(1).strip()) if match else ""


def flexible_number(text: str) -> str:
    """The last thing that looks like a number, normalised; ``""`` if there is none."""
    last = None
    for last in _FLEXIBLE.finditer(text):  # noqa: B007
        pass
    return normalise_number((last.group(1) or last.group(2)).strip()) if last else ""


def judge_number(text: str, gold: str) -> Verdict:
    """GSM8K: strict extraction decides, the flexible one stands beside it."""
    # An answer of punctuation alone normalises to "": that was extracted, and it is wrong.
    strict = strict_number(text)
    found = _STRICT.search(text) is not None
    return Verdict(
        correct=float(found and strict == gold),
        status="ok" if found else "no_answer",
        extracted=strict,
        correct_flexible=float(flexible_number(text) == gold),
        prediction=strict,
    )


def number_gold(doc: Mapping[str, Any]) -> str:
    """GSM8K's reference number, normalised: what stands behind the answer's last '####'.

    Raises:
        ValueError: it is no number as an answer could give it, so none could be right.
    """
    given = unicodedata.normalize("NFKC", doc["answer"].rpartition("####")[2])
    number = normalise_number(given.replace("\N{MINUS SIGN}", "-").strip())
    if not _NUMBER.fullmatch(number):
        raise ValueError(f"'#### {given.strip():.40}' is no number, so no answer can equal it")
    return number


def judge_letter(text: str, gold: str, letters: str = "ABCD") -> Verdict:
    """MMLU in published generations: the text is the letter; the gold is the choice's index."""
    letter = text.strip()
    if len(letter) != 1 or letter not in letters:
        return Verdict(0.0, "no_answer", "")
    index = str(letters.index(letter))
    return Verdict(float(index == gold), "ok", letter, prediction=index)


def judge_index(text: str, gold: str, choices: int) -> Verdict:
    """KoBEST in published generations: the text is the 0-based index of the choice."""
    index = text.strip()
    if index not in {str(i) for i in range(choices)}:
        return Verdict(0.0, "no_answer", "")
    return Verdict(float(index == gold), "ok", index, prediction=index)


def judge_choice(
    logprobs: Sequence[float], gold: str, choices: Sequence[str], *, norm: bool = False
) -> Verdict:
    """The choice of the largest summed log-likelihood; of equal ones the first.

    Args:
        logprobs: one a choice, nats.
        gold: the right choice's 0-based index.
        choices: the choices' texts without delimiter (their lengths are in characters).
        norm: also compare log-likelihood per character (the harness's acc_norm).

    Raises:
        ValueError: not one number a choice, or no choice that is possible at all.
    """
    whole = len(logprobs) == len(choices) and not any(p != p for p in logprobs)
    if not whole or max(logprobs) == -math.inf:
        raise ValueError(f"{len(logprobs)} log-likelihoods of {len(choices)} choices: {logprobs}")
    best = max(range(len(choices)), key=lambda i: (logprobs[i], -i))
    tied = any(i != best and logprobs[best] - p <= TIE_MARGIN for i, p in enumerate(logprobs))
    by_length = None
    if norm:
        per_character = [p / len(c) for p, c in zip(logprobs, choices, strict=True)]
        first = max(range(len(choices)), key=lambda i: (per_character[i], -i))
        by_length = float(str(first) == gold)
    return Verdict(
        correct=float(str(best) == gold),
        status="tie" if tied else "ok",
        extracted=str(best),
        correct_norm=by_length,
        confidence=chosen_probability(logprobs),
        prediction=str(best),
    )


def chosen_probability(logprobs: Sequence[float]) -> float:
    """The largest probability of a softmax over summed log-likelihoods: the chosen answer's.

    Source: Hendrycks et al. 2021, "Measuring Massive Multitask Language Understanding", section
    4.2 (softmax over the four letters). To six decimals: the log-likelihoods hold no more, and the
    last bits of `exp` are a machine's own.

    Args:
        logprobs: one a choice, nats; at least one finite.
    """
    best = max(logprobs)
    return round(1 / math.fsum(math.exp(p - best) for p in logprobs), CONFIDENCE_DIGITS)


def majority(answers: Iterable[str]) -> str:
    """The most frequent answer; of equally frequent ones the first given (self-consistency).

    Source: Wang et al. 2023, "Self-Consistency Improves Chain of Thought Reasoning"; the rule for
    ties is the harness's `majority_vote`. Unlike there, answers that could not be extracted
    (``""``) have no vote; ``""`` is the result only where nothing could be.
    """
    votes = Counter(a for a in answers if a)
    return votes.most_common(1)[0][0] if votes else ""


# -- by name ------------------------------------------------------------------------------------


def judge_of(name: str) -> Callable[[str, str], Verdict]:
    """The function that judges a generated text against the gold: `number`, or module:function.

    Raises:
        UserError: there is none.
    """
    return resolve("answer", name, {"number": judge_number})
