"""How the pages write numbers, counts and figures with their intervals.

Rules this file keeps:

1. A figure that is not defined is written `undefined`, never 0 and never left empty.
2. A minus is a minus sign, and a number is never broken across lines.
3. A value beside the bound it is held against has enough digits that the two do not look equal when they are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgekit.report.html import Content, element, join

UNDEFINED = "undefined"
MOST_DIGITS = 8

_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def decimal(value: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """A number with so many decimals; `signed` writes the plus too, but not for what rounds to 0."""
    if value is None:
        return UNDEFINED
    rounded = round(value, digits) + 0.0
    return f"{rounded:{'+' if signed and rounded else ''},.{digits}f}".replace(",", "\u202f").replace("-", "\u2212")


def share(value: float | None, digits: int = 2) -> str:
    """A share as a percentage."""
    return UNDEFINED if value is None else f"{decimal(100 * value, digits)}\u202f%"


def tiny(value: float | None) -> str:
    """A number that may be very near 0: two significant digits, in powers of ten below a thousandth."""
    if value is None:
        return UNDEFINED
    digits, _, power = f"{value:.1e}".partition("e")
    if value and int(power) < -3:
        return f"{digits} × 10⁻{str(-int(power)).translate(_SUPERSCRIPT)}"
    return decimal(value, max(0, 1 - int(power)))


def milliseconds(value: float) -> str:
    """Three significant digits, never in exponents."""
    return decimal(value, 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3)


def count(number: int, noun: str) -> str:
    """`1 frame`, `2 frames`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}".replace(",", "\u202f")


def told_apart(value: float | None, bound: float, form: Callable[[float | None, int], str], digits: int) -> tuple[str, str]:
    """Value and bound with at least `digits` decimals, and as many more as tell them apart (rule 3)."""
    while value is not None and value != bound and form(value, digits) == form(bound, digits) and digits < MOST_DIGITS:
        digits += 1
    return form(value, digits), form(bound, digits)


def with_interval(figure: Mapping[str, Any]) -> Content:
    """A figure ``{value, low, high}`` with its interval on a second line."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None:
        return element("span", UNDEFINED, class_="unknown")
    spread = "no interval" if low is None or high is None else f"{decimal(low)} to {decimal(high)}"
    return join([decimal(value), element("br"), element("span", spread, class_="unknown", style="font-size: 0.85em")])


def shortened(names: Sequence[str], longest: int) -> list[str]:
    """Names cut to a length, those that would then look alike told apart by a number: as rows of a chart they must not become one."""
    found: list[str] = []
    for name in names:
        cut = name if len(name) <= longest else f"{name[: longest - 1]}…"
        candidates = (cut, *(f"{cut} ({number})" for number in range(2, len(names) + 1)))
        found.append(next(candidate for candidate in candidates if candidate not in found))
    return found


def factor(before: float, after: float, more: str, less: str) -> str:
    """How many times a quantity shrank or grew: `4.5× faster`; `less` is the word where it grew."""
    ratio, word = (before / after, more) if after <= before else (after / before, less)
    return f"{decimal(ratio, 0 if ratio >= 10 else 1 if ratio >= 2 else 2)}× {word}"
