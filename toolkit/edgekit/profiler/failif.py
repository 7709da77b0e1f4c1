"""Limits on a measurement: `--fail-if "latency_ms.p99 > 20"`.

Rules this file keeps:

1. An expression is a path, one of `>` `>=` `<` `<=` `==` `!=`, and a number without a unit; it says when to *fail*.
2. A path is the keys of the JSON document joined by dots. One that does not exist is an error with the nearest ones, never a limit that holds.
3. A figure that is null (a p99 of too few samples) cannot be judged: that is an error too, and it says why the figure is not there. One that is null
   because it is without end (a p99 of frames that were never answered) is above every number.
4. Every broken limit is reported, not only the first. Broken limits (exit code 4) go before figures that cannot be judged (exit code 1).
5. A truth value counts as 1 or 0, so `warmup.steady == 0` fails on a machine that did not settle.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from edgekit.errors import EdgekitError, RegressionError, nearest

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}

_EXPRESSION = re.compile(
    r"\s*(?P<path>[A-Za-z_][\w-]*(?:\.[\w-]+)*)\s*(?P<operator>>=|<=|==|!=|>|<)\s*(?P<number>[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One parsed expression: fail when the figure at `path` stands in relation `operator` to `number`."""

    path: str
    operator: str
    number: float

    def __str__(self) -> str:
        return f"{self.path} {self.operator} {self.number:g}"


def parse(expression: str, *, known: Iterable[str] = (), options: Mapping[str, str] = MappingProxyType({})) -> Limit:
    """Reads one expression.

    Args:
        expression: For example ``"latency_ms.p99 > 20"``.
        known: Paths that will exist; when given, another path is refused here, before anything is measured.
        options: Part of the document to the option that asks for it, for the hint where no path of that part is known.

    Raises:
        EdgekitError: When the expression has another form or names an unknown path.
    """
    match = _EXPRESSION.fullmatch(expression)
    if match is None:
        raise EdgekitError(
            f"cannot read the limit {expression!r}",
            hint=f'write PATH OPERATOR NUMBER without a unit, as in "latency_ms.p99 > 20"; operators: {" ".join(sorted(OPERATORS))}',
        )
    limit = Limit(path=match["path"], operator=match["operator"], number=float(match["number"]))
    names = set(known)
    if names and limit.path not in names:
        part = limit.path.partition(".")[0]
        if part in options and not any(name.startswith(f"{part}.") for name in names):
            raise EdgekitError(f"--fail-if {str(limit)!r}: {part} is measured only with {options[part]}", hint=f"give {options[part]} too")
        raise _unknown(limit, names)
    return limit


def check(limits: Sequence[Limit], document: Mapping[str, Any]) -> None:
    """Judges a measurement.

    Args:
        limits: What must not be.
        document: The measurement as it goes to JSON. Its `unavailable` (path to reason) explains figures that are null, its `without_end` (paths)
            names those that are above every number.

    Raises:
        RegressionError: Listing every limit that is broken, with the figure.
        EdgekitError: When a path does not exist or its figure is null.
    """
    figures = paths(document) | dict.fromkeys(document.get("without_end", ()), math.inf)
    for limit in limits:
        if limit.path not in figures:
            raise _unknown(limit, figures)
    unknown = [limit for limit in limits if figures[limit.path] is None]
    broken = [(limit, value) for limit in limits if (value := figures[limit.path]) is not None and _is_broken(limit, value)]
    reasons = document.get("unavailable", {})
    unjudged = "; ".join(f"{limit.path} is not known: {reasons.get(limit.path, 'it was not measured')}" for limit in unknown)
    if broken:
        listed = "; ".join(f"{limit.path} is {_said(value)}, must not be {limit.operator} {limit.number:g}" for limit, value in broken)
        raise RegressionError(f"a limit is broken: {listed}", hint=f"not judged: {unjudged}" if unjudged else "")
    if unknown:
        raise EdgekitError(f"a limit cannot be judged: {unjudged}", hint="measure for longer, or set the limit on a figure that is there")


def paths(document: Mapping[str, Any]) -> dict[str, float | None]:
    """Path to figure of everything in a document that is a number, a truth value or null; texts and lists are left out."""
    found: dict[str, float | None] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            found.update({f"{key}.{path}": figure for path, figure in paths(value).items()})
        elif value is None:
            found[str(key)] = None
        elif isinstance(value, (bool, int, float)):
            # A NaN answers every comparison with no, and would pass every limit.
            found[str(key)] = float(value) if math.isfinite(value) else None
    return found


def _said(value: float) -> str:
    return "without end" if math.isinf(value) else f"{value:g}"


def _is_broken(limit: Limit, value: float) -> bool:
    return OPERATORS[limit.operator](value, limit.number)


def _unknown(limit: Limit, known: Iterable[str]) -> EdgekitError:
    names = sorted(known)
    # A document has dozens of figures; the hint names those that may have been meant.
    close = difflib.get_close_matches(limit.path, names, n=6, cutoff=0.4)
    return EdgekitError(f"--fail-if {str(limit)!r}: there is no figure {limit.path!r}", hint=nearest(limit.path, close or names))
