"""`--baseline FILE`: this measurement against an earlier one of the same kind of machine.

Rules this file keeps:

1. Latencies of two kinds of machine say nothing about a bundle. What makes a machine another one (`HOST_KEYS`), what makes an engine another one (`ENGINE_KEYS`)
   and the frames must be the same, or nothing is judged. That is found out before anything is measured, where it can be.
2. What may change between two releases (the bundle, versions of libraries, kernel and system) is listed beside the result: it is what is looked for.
3. Both measurements must have been steady and must have a median: a baseline that was not, or has none, is refused when it is read. The interval is of
   both series, drawn apart (`bootstrap.separate_ratios`).
4. The margins are wider than those of `--compare`: two runs on two days differ by what no series of either holds (where memory lies, how warm the room
   is). Who can measure both bundles now should use `--compare`.

Does not prove that it is the same machine: two devices of one kind look alike here, and may differ in how warm they are and how they are cooled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError, TargetError
from edgekit.profiler.bootstrap import separate_ratios
from edgekit.profiler.host import Host
from edgekit.profiler.percentiles import SHARES, minimum_samples
from edgekit.profiler.verdict import DECIDING, Margins, Verdict, judge, not_judged
from edgekit.schema.decode import encode

FORMAT_VERSION = 1
"""Of the documents that are written and read here."""

MARGINS = Margins(slower={"p50": 0.05, "p90": 0.10, "p99": 0.20}, blind={"p50": 0.15, "p90": 0.30, "p99": 0.60})
MOST_BYTES = 256 * 2**20
HOST_KEYS = (
    "device_model",
    "cpu_model",
    "architecture",
    "cores_physical",
    "cores_logical",
    "cores_usable",
    "cpu_limit",
    "instruction_sets",
    "governor",
    "frequency_max_mhz",
)
"""What makes a machine another one, or the same one in another mode."""

ENGINE_KEYS = ("name", "device", "precision", "threads")
_TOLD_HOST = ("system", "kernel", "python")
_TOLD_BUNDLE = ("name", "version", "digest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """An earlier profile, as far as it is compared.

    Attributes:
        measured_at: When, as it says itself.
        host: Its machine.
        bundle: Its bundle and engine.
        frames: Count and shapes of its frames.
        steady: Whether it was steady.
        milliseconds: float64 (samples,), latencies after the warm-up.
    """

    measured_at: str
    host: Mapping[str, Any]
    bundle: Mapping[str, Any]
    frames: Mapping[str, Any]
    steady: bool
    milliseconds: NDArray[np.float64]

    def check_host(self, host: Host) -> None:
        """Refuses another machine (rule 1).

        Args:
            host: This machine.

        Raises:
            TargetError: It is not the one of the baseline.
        """
        different = _differences(self.host, encode(host), HOST_KEYS)
        if different:
            raise TargetError(
                f"the baseline is of another machine, or of this one in another mode: {'; '.join(different)}",
                hint="measure a baseline on this machine: edgekit profile BUNDLE --json > baseline.json",
            )


def load_baseline(path: Path) -> Baseline:
    """Reads an earlier profile.

    Args:
        path: What `edgekit profile --json` wrote.

    Raises:
        DataError: The file cannot be read, is no profile, or one that nothing can be compared with (rule 3).
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path}: {path.stat().st_size} bytes are more than a profile has")
        baseline = _read(json.loads(path.read_bytes()))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}", hint="give what edgekit profile --json wrote") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path}: is no profile: {type(error).__name__}: {error}", hint="give what edgekit profile BUNDLE --json wrote"
        ) from error
    fewest = minimum_samples(SHARES["p50"])
    if baseline.milliseconds.size < fewest:
        raise DataError(
            f"{path}: {baseline.milliseconds.size} samples after the warm-up are too few to compare with, {fewest} are needed",
            hint="measure a baseline for longer: edgekit profile BUNDLE --seconds 30 --json",
        )
    if not baseline.steady:
        raise DataError(
            f"{path}: the machine was not steady when it was measured, so nothing can be compared with it",
            hint="measure a baseline again, with nothing else running and for longer (--seconds)",
        )
    return baseline


def _read(found: Any) -> Baseline:
    """A profile as it was stored; raises ValueError, KeyError or TypeError where it is none."""
    if found["format_version"] != FORMAT_VERSION:
        raise ValueError(f"format_version is {found['format_version']!r}, this edgekit reads {FORMAT_VERSION}")
    warmup, series = found["warmup"], found["series"]["latency_ms"]
    excluded = warmup["excluded"]
    if type(excluded) is not int or excluded < 0:
        raise ValueError("warmup.excluded is no count")
    values = np.asarray(series, np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all() or (values <= 0).any():
        raise ValueError("its latencies are no positive numbers")
    return Baseline(
        measured_at=str(found["measured_at"]),
        host=dict(found["host"]),
        bundle={**found["bundle"], "engine": dict(found["bundle"]["engine"])},
        frames=dict(found["frames"]),
        steady=warmup["steady"] is True,
        milliseconds=values[excluded:],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AgainstBaseline:
    """What comparing with a baseline gave.

    Attributes:
        baseline: The earlier measurement.
        changes: What is different beside the latency, for people (rule 2).
        verdict: What can be said.
    """

    baseline: Baseline
    changes: tuple[str, ...]
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """The part ``baseline`` of a profile."""
        return {
            "measured_at": self.baseline.measured_at,
            "bundle": {key: self.baseline.bundle.get(key) for key in _TOLD_BUNDLE},
            "samples": int(self.baseline.milliseconds.size),
            "changes": list(self.changes),
            **self.verdict.to_json(),
        }


def against(baseline: Baseline, now: Baseline, *, seed: int = 0) -> AgainstBaseline:
    """Compares this measurement with an earlier one.

    Args:
        baseline: The earlier one.
        now: This one, in the same form.
        seed: Of the bootstrap.
    """
    changes = [
        *_differences(baseline.bundle, now.bundle, _TOLD_BUNDLE),
        *_differences(baseline.bundle["engine"], now.bundle["engine"], ("version",), what="engine "),
        *_differences(baseline.host, now.host, _TOLD_HOST),
        *_differences(_packages(baseline), _packages(now), sorted({*_packages(baseline), *_packages(now)})),
    ]
    return AgainstBaseline(baseline=baseline, changes=tuple(changes), verdict=_verdict(baseline, now, seed))


def _verdict(baseline: Baseline, now: Baseline, seed: int) -> Verdict:
    different = [
        *_differences(baseline.host, now.host, HOST_KEYS),
        *_differences(baseline.bundle["engine"], now.bundle["engine"], ENGINE_KEYS, what="engine "),
        *_differences(baseline.frames, now.frames, ("shapes", "count"), what="frames' "),
    ]
    if different:
        return not_judged(f"not measured alike: {'; '.join(different)}", MARGINS)
    unsteady = [words for words, side in (("the baseline", baseline), ("this measurement", now)) if not side.steady]
    if unsteady:
        return not_judged(f"{' and '.join(unsteady)} was not steady", MARGINS)
    ratios = separate_ratios(now.milliseconds, baseline.milliseconds, DECIDING, seed=seed)
    if "p50" not in ratios:
        sizes = f"{now.milliseconds.size} and {baseline.milliseconds.size}"
        return not_judged(f"{sizes} samples are too few, {minimum_samples(SHARES['p50'])} are needed of either", MARGINS)
    return judge(ratios, MARGINS, min(now.milliseconds.size, baseline.milliseconds.size))


def _packages(side: Baseline) -> Mapping[str, Any]:
    found = side.host.get("packages")
    return found if isinstance(found, Mapping) else {}


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], keys: tuple[str, ...] | list[str], *, what: str = "") -> list[str]:
    return [
        f"{what}{key} was {_short(before.get(key))}, is {_short(now.get(key))}"
        for key in keys
        if _plain(before.get(key)) != _plain(now.get(key))
    ]


def _plain(value: Any) -> Any:
    """Lists and tuples are one in JSON."""
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _short(value: Any) -> str:
    text = "not known" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
