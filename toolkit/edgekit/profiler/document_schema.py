"""The JSON Schema (draft 2020-12) of a profile. `docs/profile.schema.json` is this, written out; a test holds the two together.

Rules this file keeps:

1. Every key of the document is here, required, and no other is allowed: a key that is not described is a defect.
2. What may be null says so. Why it is null is in the document's `unavailable`, under its path.
3. Units are in the names or in the descriptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.profiler import stages
from edgekit.profiler.baseline import ENGINE_KEYS, FORMAT_VERSION
from edgekit.profiler.deltas import NAMES
from edgekit.profiler.document import DELTA_FIGURES
from edgekit.profiler.percentiles import SHARES
from edgekit.profiler.verdict import DECIDING, WORDS

DRAFT = "https://json-schema.org/draft/2020-12/schema"

_Schema = dict[str, Any]

_TEXT: _Schema = {"type": "string"}
_NUMBER: _Schema = {"type": "number"}
_COUNT: _Schema = {"type": "integer", "minimum": 0}
_TRUTH: _Schema = {"type": "boolean"}


def schema() -> _Schema:
    """The schema, JSON-ready."""
    parts = {
        "format_version": {"const": FORMAT_VERSION},
        "measured_at": _told("UTC, ISO 8601, to the second", _TEXT),
        "bundle": _bundle(),
        "frames": _object(count=_COUNT, shapes=_list(_list({"type": "integer", "minimum": 1}))),
        "latency_ms": _told("predict with its map on a frame in memory, after the warm-up", _percentiles()),
        "latency_intervals_ms": _told("95 % order-statistic intervals", _intervals()),
        "stages_ms": _object(**dict.fromkeys(stages.STAGES, _object(p50=_or_null(_NUMBER), p95=_or_null(_NUMBER), samples=_COUNT))),
        "warmup": _warmup(),
        "cold_start_ms": _cold_start(),
        "peak_memory_mib": _or_null(_NUMBER),
        "memory": _object(resident_mib=_or_null(_NUMBER), proportional_mib=_or_null(_NUMBER)),
        "host": _host(),
        "series": _object(start_s=_list(_NUMBER), latency_ms=_list(_NUMBER)),
        "timeline": _timeline(),
        "energy": _energy(),
        "memory_growth": _growth(),
        "deltas": _object(**dict.fromkeys(NAMES, _delta())),
        "paced": _or_null(_paced()),
        "idle_wake": _or_null({"type": "object", "additionalProperties": _wake()}),
        "layers": _or_null(_layers()),
        "compare": _or_null(_compare()),
        "baseline": _or_null(_baseline()),
        "without_end": _told("paths of null figures that are above every number", _list(_TEXT)),
        "unavailable": _told("path of a null figure to why it is null", {"type": "object", "additionalProperties": _TEXT}),
    }
    return {"$schema": DRAFT, "title": "edgekit profile", **_object(**parts)}


def _object(**properties: _Schema) -> _Schema:
    return {"type": "object", "properties": properties, "required": sorted(properties), "additionalProperties": False}


def _list(items: _Schema) -> _Schema:
    return {"type": "array", "items": items}


def _or_null(found: _Schema) -> _Schema:
    return {"anyOf": [found, {"type": "null"}]}


def _told(description: str, found: _Schema) -> _Schema:
    return {"description": description, **found}


def _numbers(*names: str) -> dict[str, _Schema]:
    return dict.fromkeys(names, _NUMBER)


def _nullable(*names: str) -> dict[str, _Schema]:
    return dict.fromkeys(names, _or_null(_NUMBER))


def _percentiles() -> _Schema:
    return _object(**_nullable(*SHARES, "max"), samples=_COUNT)


def _intervals() -> _Schema:
    return _object(**dict.fromkeys(SHARES, _or_null({**_list(_NUMBER), "minItems": 2, "maxItems": 2})))


def _bundle() -> _Schema:
    engine = {"type": "object", "properties": dict.fromkeys((*ENGINE_KEYS, "version"), _TEXT), "additionalProperties": _TEXT}
    return _object(
        **dict.fromkeys(("file", "name", "version"), _TEXT),
        digest=_told("sha256", _TEXT),
        size_bytes=_COUNT,
        accepted=_TRUTH,
        engine=engine,
    )


def _warmup() -> _Schema:
    return _object(excluded=_COUNT, steady=_TRUTH, reason=_TEXT, window_medians_ms=_list(_NUMBER), variation=_or_null(_NUMBER))


def _cold_start() -> _Schema:
    return _object(**_numbers("interpreter", "import", "load", "first_result", "total", "first_total"), repeats=_COUNT)


def _host() -> _Schema:
    texts = dict.fromkeys(("device_model", "cpu_model", "governor", "system"), _or_null(_TEXT))
    counts = dict.fromkeys(("cores_physical", "cores_logical", "cores_usable"), _or_null(_COUNT))
    numbers = _nullable("cpu_limit", "frequency_mhz", "frequency_max_mhz", "load_average", "memory_mib", "memory_limit_mib")
    packages = {"type": "object", "additionalProperties": _or_null(_TEXT)}
    always = dict.fromkeys(("architecture", "kernel", "python"), _TEXT)
    return _object(**texts, **counts, **numbers, **always, instruction_sets=_or_null(_list(_TEXT)), packages=packages)


def _timeline() -> _Schema:
    columns = {"type": "object", "additionalProperties": _list(_or_null(_NUMBER))}
    return _object(
        t_s=_told("when each reading began, seconds since the series began", _list(_NUMBER)),
        temperatures_c=columns,
        clocks_mhz=columns,
        throttle_events=_told("by how much the counters have risen since the first reading", _list(_or_null(_COUNT))),
        throttle_states=_told("what held the machine back at each reading", _list(_or_null(_list(_TEXT)))),
        throttle_sources=_told("what was looked at for throttling", _list(_TEXT)),
        memory_mib=_told("proportional memory of the measuring process", _list(_or_null(_NUMBER))),
        own_memory_mib=_told("what of its memory is no file's, swapped out or not", _list(_or_null(_NUMBER))),
        energy_j=_told("energy since the meter was opened, which is before the power at rest is measured", _list(_or_null(_NUMBER))),
        throttled=_or_null(_TRUTH),
        throttled_by=_TEXT,
        reading_ms=_NUMBER,
        **_nullable("hottest_c", "sustained_ratio"),
    )


def _energy() -> _Schema:
    numbers = _nullable("idle_w", "busy_w", "mj_per_frame", "mj_per_frame_above_idle")
    return _object(source=_or_null(_TEXT), scope=_told("what the meter sees", _or_null(_TEXT)), frames=_or_null(_COUNT), **numbers)


def _growth() -> _Schema:
    return _object(**_nullable("mib_per_minute", "low", "high", "kept_mib_per_minute"), readings=_COUNT)


def _delta() -> _Schema:
    numbers = _nullable(*(name for name in DELTA_FIGURES if name not in {"pairs", "steady"}))
    return _object(**numbers, pairs=_or_null(_COUNT), steady=_or_null(_TRUTH))


def _paced() -> _Schema:
    counts = ("due", "served", "unserved", "deadline_misses", "longest_queue", "live_drops")
    return _object(
        **_numbers("fps", "deadline_ms", "deadline_miss_share"),
        **dict.fromkeys(counts, _COUNT),
        latency_ms=_told("from due to answered", _percentiles()),
        latency_intervals_ms=_told("95 %, as if frames did not wait for each other: too narrow where they do", _intervals()),
        service_ms=_told("from begun to answered", _percentiles()),
        wait_ms=_told("from due to begun", _percentiles()),
        series=_object(**dict.fromkeys(("due_s", "latency_ms", "service_ms"), _list(_NUMBER))),
        timeline=_timeline(),
        energy=_energy(),
    )


def _wake() -> _Schema:
    interval = _or_null({**_list(_NUMBER), "minItems": 2, "maxItems": 2})
    return _object(gap_s=_NUMBER, interval_ms=interval, samples=_COUNT, reason=_TEXT, **_nullable("p50_ms", "max_ms"))


def _layers() -> _Schema:
    row = _object(name=_TEXT, kind=_TEXT, precision=_or_null(_TEXT), kernel=_TEXT, median_ms=_or_null(_NUMBER))
    sums = {"type": "object", "additionalProperties": _NUMBER}
    return _object(engine=_TEXT, repeats=_COUNT, sum_ms=_or_null(_NUMBER), by_precision_ms=sums, table=_list(row), reason=_TEXT)


def _verdict() -> Mapping[str, _Schema]:
    ratio = _object(**_nullable("value", "low", "high"), margin=_NUMBER, blind=_NUMBER)
    return {
        "verdict": {"enum": list(WORDS)},
        "reason": _TEXT,
        "ratio": _told("of percentiles, this bundle / the other", _object(**dict.fromkeys(DECIDING, ratio))),
    }


def _compare() -> _Schema:
    latency = _object(candidate=_or_null(_percentiles()), other=_or_null(_percentiles()))
    return _object(other=_bundle(), pairs=_COUNT, excluded=_COUNT, latency_ms=latency, **_verdict())


def _baseline() -> _Schema:
    bundle = _object(**dict.fromkeys(("name", "version", "digest"), _or_null(_TEXT)))
    return _object(measured_at=_TEXT, bundle=bundle, samples=_COUNT, changes=_list(_TEXT), **_verdict())
