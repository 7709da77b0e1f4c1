"""What is written down of the engines of a bundle that were built and tried on a device: which may answer, with which plans.

Rules this file keeps:

1. A choice belongs to one bundle on one device. A power mode that switches multiprocessors off is another device here, and keeps a choice of its own; in which
   other mode engines were built and timed is written down for people, and decides nothing.
2. Only what was seen is lasting: an engine passed its golden frames, or failed them. One that could not be tried is neither, and its reason stands apart.
3. A document in which anything does not fit is as good as none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeGuard

from edgekit.errors import TargetError
from edgekit.runtime.engines.cache_keys import DeviceKey, Unusable, canonical_digest, difference
from edgekit.schema.decode import decode

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """How fast the device may go, which is in no key: a plan of one mode runs in every other.

    Attributes:
        mode: Name of the power mode; empty where there is none, or it is not known.
        gpu_mhz: The highest frequency the GPU may go up to at the moment, which heat may lower too; None where it is not known.
    """

    mode: str = ""
    gpu_mhz: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which built engines of a bundle may answer here.

    Attributes:
        order: Engines that reproduced their golden frames, the fastest first.
        refused: Engine to why it may not answer: it did not reproduce them.
        untried: Engine to why it could not be built or tried.
        entries: Engine to the name of the cache's entry that was tried.
        plans: Engine to the sha256 of the plan that was tried.
        tried: What `edgekit build` tells of each engine, for people and for the next build.
        power: In which the engines were put in order.
    """

    order: tuple[str, ...]
    refused: Mapping[str, str]
    untried: Mapping[str, str] = field(default_factory=dict)
    entries: Mapping[str, str] = field(default_factory=dict)
    plans: Mapping[str, str] = field(default_factory=dict)
    tried: tuple[Mapping[str, Any], ...] = ()
    power: Power = field(default_factory=Power)

    def without_timings(self) -> Choice:
        """What is decided, without what was measured on the way."""
        return replace(self, tried=(), power=replace(self.power, gpu_mhz=None))


def name(bundle_digest: str, device: DeviceKey) -> str:
    """Name of the file of a choice.

    Raises:
        TargetError: The digest is none.
    """
    return f"{_stem(bundle_digest)}-{canonical_digest(asdict(device))[:16]}.json"


def pattern(bundle_digest: str) -> str:
    """Matches the files of a bundle's choices on every device."""
    return f"{_stem(bundle_digest)}-*.json"


def document(bundle_digest: str, device: DeviceKey, choice: Choice) -> dict[str, Any]:
    """A choice as JSON has it."""
    return {"bundle": bundle_digest, "device": asdict(device), **asdict(choice)}


def parse(found: Mapping[str, Any], bundle_digest: str, device: DeviceKey) -> Choice | Unusable:
    """A choice from its document, or why there is none in it."""
    if found.get("device") != asdict(device):
        return Unusable(reason=f"the bundle's engines were tried with {difference(found.get('device'), asdict(device))}")
    order, tried = found.get("order"), found.get("tried")
    tables = [found.get(key) for key in ("refused", "untried", "entries", "plans")]
    power = parse_power(found.get("power", {}))
    if (
        found.get("bundle") != bundle_digest
        or not _is_texts(order)
        or not isinstance(tried, list)
        or power is None
        or not all(isinstance(one, dict) for one in tried)
        or not all(isinstance(table, dict) and _is_texts(list(table.values())) for table in tables)
    ):
        return Unusable(reason="what was written about them is damaged")
    refused, untried, entries, plans = (dict(table or {}) for table in tables)
    return Choice(order=tuple(order), refused=refused, untried=untried, entries=entries, plans=plans, tried=tuple(tried), power=power)


def parse_power(found: object) -> Power | None:
    """What was written down of the power mode; None where that is damaged."""
    try:
        return decode(Power, found, where="the power mode", error=TargetError)
    except TargetError:
        return None


def _stem(bundle_digest: str) -> str:
    if not _DIGEST.fullmatch(bundle_digest):
        raise TargetError(f"{bundle_digest!r} is no digest of a bundle", hint="`edgekit inspect` shows it")
    return f"choice-{bundle_digest}"


def _is_texts(found: object) -> TypeGuard[list[str]]:
    return isinstance(found, list) and all(isinstance(item, str) for item in found)
