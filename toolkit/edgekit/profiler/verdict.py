"""Slower, faster, or neither: what a ratio of latencies and its interval allow to be said.

Rules this file keeps:

1. Slower is said where the whole interval of a percentile's ratio lies above 1 + margin, faster where that of the median lies below 1 / (1 + margin). The
   margin is what nobody minds, and what keeps many comparisons of a thing with itself from crying wolf. Any of the percentiles may say slower.
2. Nothing found is an answer only where something could have been found. A percentile is judged where its interval excludes a slowdown of its `blind`.
   Where the median is not judged, the comparison is "not judged", and never a silent pass. Where the median is and a tail is not, the word says that
   it is about the median alone, and the reason names every percentile that is not judged, and why.
3. Too few samples or an unsteady measurement are not judged either. The reason is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.errors import EdgekitError, RegressionError
from edgekit.profiler.bootstrap import Estimate
from edgekit.profiler.percentiles import minimum_samples

SLOWER, FASTER, ALIKE, NOT_JUDGED = "slower", "faster", "not distinguishable", "not judged"
MEDIAN_FASTER, MEDIAN_ALIKE = "median faster", "median not distinguishable"
"""What is said where a tail is not judged."""

WORDS = (SLOWER, FASTER, ALIKE, MEDIAN_FASTER, MEDIAN_ALIKE, NOT_JUDGED)
DECIDING = {"p50": 0.50, "p90": 0.90, "p99": 0.99}
"""Percentiles that are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """What counts as a difference.

    Attributes:
        slower: Percentile to the share above 1 that is let through.
        blind: Percentile to the slowdown that must be excluded before it counts as judged.
    """

    slower: Mapping[str, float]
    blind: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is said.

    Attributes:
        word: One of `WORDS`.
        reason: What it rests on, for people.
        ratios: Percentile to its ratio; those with too few samples are missing.
        margins: What counted as a difference.
    """

    word: str
    reason: str
    ratios: Mapping[str, Estimate]
    margins: Margins

    def to_json(self) -> dict[str, Any]:
        """``{verdict, reason, ratio {p50 {value, low, high, margin, blind}, …}}``; a percentile that is not known is null, its limits are not."""
        ratio = {}
        for name in DECIDING:
            found = self.ratios.get(name)
            ratio[name] = {
                "value": None if found is None else found.value,
                "low": None if found is None else found.low,
                "high": None if found is None else found.high,
                "margin": self.margins.slower[name],
                "blind": self.margins.blind[name],
            }
        return {"verdict": self.word, "reason": self.reason, "ratio": ratio}


def not_judged(reason: str, margins: Margins, ratios: Mapping[str, Estimate] | None = None) -> Verdict:
    """A comparison that allows nothing to be said (rule 3)."""
    return Verdict(word=NOT_JUDGED, reason=reason, ratios=ratios or {}, margins=margins)


def judge(ratios: Mapping[str, Estimate], margins: Margins, samples: int) -> Verdict:
    """What ratios (candidate / other) allow to be said.

    Args:
        ratios: Percentile to its ratio; "p50" must be there.
        margins: What counts as a difference.
        samples: How many there are of the shorter series, for the reason.
    """
    unjudged = {name: why for name in DECIDING if (why := _unjudged(name, ratios.get(name), margins, samples))}
    left = f"; not judged: {'; '.join(unjudged.values())}" if unjudged else ""
    slower = [name for name, ratio in ratios.items() if ratio.low > 1 + margins.slower[name]]
    if slower:
        told = "; ".join(f"{name} is {_said(ratios[name])} times the other's, more than {1 + margins.slower[name]:g}" for name in slower)
        left = "".join(f"; {why}" for name, why in unjudged.items() if name not in slower)
        return Verdict(word=SLOWER, reason=told + left, ratios=ratios, margins=margins)
    median = ratios["p50"]
    reason = f"p50 is {_said(median)} times the other's{left}"
    if "p50" in unjudged:
        return not_judged(reason, margins, ratios)
    words = (MEDIAN_FASTER, MEDIAN_ALIKE) if unjudged else (FASTER, ALIKE)
    is_faster = median.high < 1 / (1 + margins.slower["p50"])
    return Verdict(word=words[0] if is_faster else words[1], reason=reason, ratios=ratios, margins=margins)


def _unjudged(name: str, ratio: Estimate | None, margins: Margins, samples: int) -> str:
    """Why a percentile is not judged (rule 2); empty where it is."""
    if ratio is None:
        return f"{name}: {samples} samples, {minimum_samples(DECIDING[name])} needed"
    if ratio.high > 1 + margins.blind[name]:
        return f"{name}: up to {ratio.high:.2f} times is not excluded, {1 + margins.blind[name]:g} would have to be"
    return ""


def check(document: Mapping[str, Any]) -> None:
    """Turns the verdicts of a profile into an exit code.

    Args:
        document: The profile as it goes to JSON.

    Raises:
        RegressionError: A comparison found the bundle slower.
        EdgekitError: A comparison could not be judged.
    """
    found = {f"--{name}": document[name] for name in ("compare", "baseline") if document[name] is not None}
    slower = [f"{name}: the bundle is slower: {part['reason']}" for name, part in found.items() if part["verdict"] == SLOWER]
    unknown = [f"{name}: not judged: {part['reason']}" for name, part in found.items() if part["verdict"] == NOT_JUDGED]
    if slower:
        raise RegressionError("; ".join(slower), hint="; ".join(unknown))
    if unknown:
        raise EdgekitError("; ".join(unknown), hint="measure for longer (--seconds), on a machine that does nothing else")


def _said(ratio: Estimate) -> str:
    return f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
