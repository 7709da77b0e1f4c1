"""What a rule is and what it finds.

Rules this file keeps:

1. A rule has an id that never changes its meaning, one severity, one fix and the public text it was read from.
2. `error`: a TensorRT of the target refuses the graph, or answers otherwise than the reference. `warning`: it builds, and is slower or less exact than it
   could be, or nothing published says that it builds. `info`: what to know, with nothing to mend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgekit.catalog.target import Target

if TYPE_CHECKING:
    from edgekit.compiler.conformance.view import GraphView

Severity = Literal["error", "warning", "info"]

SEVERITIES: Mapping[Severity, int] = {"error": 0, "warning": 1, "info": 2}
"""The most severe first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One place that breaks a rule.

    Attributes:
        node: Name of the node, or of the tensor where no node is at fault; empty for the whole graph.
        message: What is wrong there.
        versions: Of TensorRT, "major.minor", that it is wrong for; empty for every one of the target's.
    """

    node: str
    message: str
    versions: tuple[str, ...] = ()


Check = Callable[["GraphView", Target], Iterator[Hit]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule.

    Attributes:
        id: A letter for the family and a number.
        severity: Of everything that it finds.
        title: What must hold, or what is told.
        fix: What to do about it; empty where there is nothing to mend.
        source: Where it was read or tried.
        check: Finds the places that break it, in the order of the graph.
    """

    id: str
    severity: Severity
    title: str
    fix: str
    source: str
    check: Check


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A broken rule, at one place of one graph.

    Attributes:
        rule: Id of the rule.
        severity: Of the rule.
        node: As in `Hit`.
        message: As in `Hit`.
        fix: Of the rule.
        versions: Of TensorRT that it is wrong for, of those the target names.
    """

    rule: str
    severity: Severity
    node: str
    message: str
    fix: str
    versions: tuple[str, ...]


def number(version: str) -> tuple[int, ...]:
    """A version "10.3" as (10, 3), so that 10.16 is newer than 10.3."""
    return tuple(int(part) for part in version.split("."))


def versions_of(target: Target) -> tuple[str, ...]:
    """The TensorRT versions of a target; none where it has no TensorRT."""
    return target.tensorrt.versions if target.tensorrt is not None else ()


def below(target: Target, version: str) -> tuple[str, ...]:
    """The target's TensorRT versions that are older than a version."""
    return tuple(item for item in versions_of(target) if number(item) < number(version))
