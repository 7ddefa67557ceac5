"""Metrics: from verdicts to numbers. Pure functions over plain sequences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import prod


def accuracy(correct: Sequence[float]) -> float:
    """Mean of 0/1 verdicts.

    Raises:
        ValueError: there are none.
    """
    if not correct:
        raise ValueError("no verdicts")
    return sum(correct) / len(correct)


def macro_f1(golds: Sequence[str], predictions: Sequence[str]) -> float:
    """Unweighted mean over classes of F1 = 2 TP / (2 TP + FP + FN).

    Classes are all that occur among golds or predictions; one without a true positive counts 0
    (as scikit-learn's `f1_score(average="macro")`, which the harness calls for KoBEST).

    Raises:
        ValueError: unequal lengths, or nothing to score.
    """
    if not golds or len(golds) != len(predictions):
        raise ValueError(f"{len(golds)} golds and {len(predictions)} predictions")
    hits = Counter(g for g, p in zip(golds, predictions, strict=True) if g == p)
    truth, given = Counter(golds), Counter(predictions)
    scores = [2 * hits[c] / (truth[c] + given[c]) for c in sorted(truth | given)]
    return sum(scores) / len(scores)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of the chance that one of k samples passes: 1 - C(n-c, k) / C(n, k).

    Args:
        n: samples drawn of one problem.
        c: how many of them passed.
        k: at most n.

    Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code", eq. 1, in the
    product form that does not overflow.

    Raises:
        ValueError: not 0 <= c <= n, or not 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} of {c} passed among {n}")
    if n - c < k:
        return 1.0
    return 1.0 - prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def majority(answers: Iterable[str]) -> str:
    """The most frequent answer; of equally frequent ones the first given (self-consistency).

    Source: Wang et al. 2023, "Self-Consistency Improves Chain of Thought Reasoning"; the rule for
    ties is the harness's `majority_vote`. Unlike there, answers that could not be extracted
    (``""``) have no vote.
    """
    votes = Counter(a for a in answers if a)
    return votes.most_common(1)[0][0] if votes else ""


def weighted_mean(scores: Sequence[float], sizes: Sequence[int]) -> float:
    """Mean of tasks' scores weighted by their items: how the harness sums up MMLU and KoBEST.

    Raises:
        ValueError: unequal lengths, or no items.
    """
    total = sum(sizes)
    if len(scores) != len(sizes) or total <= 0:
        raise ValueError("one size a score, and at least one item")
    return sum(s * n for s, n in zip(scores, sizes, strict=True)) / total
