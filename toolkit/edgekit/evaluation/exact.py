"""Exact limits of a proportion and Student's quantile, without scipy: the incomplete beta function and its inverse.

Sources: Clopper & Pearson 1934 for the limits; the continued fraction of the incomplete beta function is DLMF 8.17.22, evaluated by
the modified Lentz method.
"""

from __future__ import annotations

import math

_TINY = 1e-300
_PRECISION = 1e-15
_MAX_TERMS = 100_000


def clopper_pearson(successes: float, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided exact limits of a proportion.

    Args:
        successes: Between 0 and `trials`; need not be whole (the beta quantiles are continuous in it).
        trials: At least 1.
        confidence: Between 0 and 1.

    Returns:
        (low, high), each in [0, 1].
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials")
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else beta_quantile(tail, successes, trials - successes + 1)
    high = 1.0 if successes == trials else beta_quantile(1 - tail, successes + 1, trials - successes)
    return low, high


def beta_quantile(probability: float, a: float, b: float) -> float:
    """Where the beta distribution with shapes `a` and `b` (both above 0) reaches `probability`, by bisection to full double precision."""
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2
        if not low < middle < high:
            return middle
        if incomplete_beta(middle, a, b) < probability:
            low = middle
        else:
            high = middle


def student_quantile(degrees: int, *, confidence: float = 0.95) -> float:
    """What |t| stays below with this confidence, for Student's t with `degrees` (at least 1): t² / (degrees + t²) is Beta(1/2, degrees/2)."""
    if degrees < 1:
        raise ValueError(f"{degrees} degrees of freedom")
    share = beta_quantile(confidence, 0.5, degrees / 2)
    return math.sqrt(degrees * share / (1 - share))


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function I_x(a, b), for x in [0, 1] and a, b above 0."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    # The fraction converges fast only below the mean of the distribution; above it, I_x(a, b) = 1 − I_{1−x}(b, a).
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1 - front * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    result = d
    for m in range(1, _MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d, c = 1 / _away_from_zero(1 + even * d), _away_from_zero(1 + even / c)
        result *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d, c = 1 / _away_from_zero(1 + odd * d), _away_from_zero(1 + odd / c)
        result *= d * c
        if abs(d * c - 1) < _PRECISION:
            return result
    raise ArithmeticError(f"the incomplete beta function did not converge for x = {x}, a = {a}, b = {b}")


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
