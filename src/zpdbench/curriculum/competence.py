"""Competence on response tokens, and effective perplexity, its reciprocal.

Our operationalisation of the study's formula: the user wrote `1 - loss` and `1 - entropy`, which
are unbounded as they stand. In the form here the weights (1, 0, 0) give exactly the perplexity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WEIGHTS = (0.40, 0.35, 0.25)
"""Weights of likelihood, confidence and certainty, as the study sets them."""

_SMALLEST = 1e-12


@dataclass(frozen=True)
class Measures:
    """What one scoring pass saw, one entry an example; all arrays have shape (n,).

    Attributes:
        loss: mean negative log-likelihood of the response tokens, nats.
        confidence: mean probability of the most probable token, in [0, 1].
        entropy: mean entropy of the next-token distribution over log(vocabulary), in [0, 1].
        tokens: number of response tokens that the means are over.
    """

    loss: NDArray[np.float64]
    confidence: NDArray[np.float64]
    entropy: NDArray[np.float64]
    tokens: NDArray[np.int64]

    def pooled(self) -> tuple[float, float, float]:
        """(loss, confidence, entropy) over all response tokens together."""
        weights = self.tokens / self.tokens.sum()
        return (
            float(self.loss @ weights),
            float(self.confidence @ weights),
            float(self.entropy @ weights),
        )


@dataclass(frozen=True)
class Probe:
    """The model's own measures on the held-out probe.

    Attributes:
        loss, confidence, entropy: over all response tokens of the probe, as in `Measures`.
        by_example: the same three as means over the probe's examples of each one's means.
        median: the same as medians, each measure by itself.
        accuracy: share of response tokens where the most probable token is the right one.
        calibration_error: expected calibration error of the top-1 probability (see
            `calibration_error`).
    """

    loss: float
    confidence: float
    entropy: float
    accuracy: float
    calibration_error: float
    by_example: tuple[float, float, float]
    median: tuple[float, float, float]


def competence(
    loss: NDArray[np.float64] | float,
    confidence: NDArray[np.float64] | float,
    entropy: NDArray[np.float64] | float,
    weights: tuple[float, float, float] = WEIGHTS,
) -> NDArray[np.float64]:
    """`w1 exp(-loss) + w2 confidence + w3 (1 - entropy)`, in (0, 1].

    Args:
        loss: mean negative log-likelihood a response token, nats; any shape.
        confidence: mean top-1 probability, same shape.
        entropy: mean entropy over log(vocabulary), same shape.
        weights: not negative, not all zero; divided by their sum.

    Raises:
        ValueError: weights negative or all zero.

    Source: the study's own definition, bounded as DESIGN section 5 says.
    """
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (3,) or (w < 0).any() or w.sum() <= 0:
        raise ValueError("weights: three numbers, none negative, not all zero")
    w = w / w.sum()
    value = (
        w[0] * np.exp(-np.asarray(loss, dtype=np.float64))
        + w[1] * np.asarray(confidence, dtype=np.float64)
        + w[2] * (1.0 - np.asarray(entropy, dtype=np.float64))
    )
    return np.clip(value, _SMALLEST, 1.0)


def effective_perplexity(competence: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """`1 / competence`, at least 1; with weights (1, 0, 0) the perplexity exp(loss)."""
    return 1.0 / np.maximum(np.asarray(competence, dtype=np.float64), _SMALLEST)


def smooth(previous: float | None, new: float, keep: float = 0.9) -> float:
    """Exponential moving average `keep * previous + (1 - keep) * new`; the first value starts it.

    After n updates the first value still has weight keep**n: 12 % at 0.9 after 20.
    """
    return new if previous is None else keep * previous + (1.0 - keep) * new


def calibration_error(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = 10
) -> float:
    """Expected calibration error: bin-weighted mean |accuracy - confidence|, equal-width bins.

    Args:
        confidence: top-1 probability a token, shape (n,).
        correct: whether that token was right, shape (n,).

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.
    """
    index = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    count = np.bincount(index, minlength=bins)
    total = np.bincount(index, weights=confidence, minlength=bins)
    right = np.bincount(index, weights=correct.astype(np.float64), minlength=bins)
    return float(np.abs(right - total)[count > 0].sum() / max(len(confidence), 1))
