"""Health as Prometheus reads it: the text exposition format, version 0.0.4.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (text-based format), and its naming rules: base units (seconds, hertz), counters end in `_total`.

Rules this file keeps:

1. Nothing about a patient: what `health.py` keeps is all there is. There is no counter a label of the model: how often an examination found what is about the people
   examined, and belongs where they are protected.
2. What is not known has no sample; it is not 0 and not NaN.
3. The text depends on the snapshot alone, and each name has its HELP and its TYPE once, before its samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgekit.runtime.health import HealthSnapshot, Series

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_QUANTILES = {"0.5": "p50_ms", "0.9": "p90_ms", "0.99": "p99_ms"}
_COUNTERS = {
    "captured": "Frames that the source gave.",
    "processed": "Frames that were answered in time, those that are not assessable included.",
    "dropped": "Frames overwritten by a newer one before anybody looked at them.",
    "late": "Frames answered after their deadline; their results were withheld.",
    "not_assessable": "Frames refused an answer by the checks of the image.",
}
_BY_KIND = {
    "edgekit_frames_failed_total": ("Frames that got an error, by kind of error.", "kind", "failed_by_kind"),
    "edgekit_frames_degraded_total": ("Frames answered with something given up, by step of the ladder.", "step", "degraded_by_step"),
    "edgekit_engine_restarts_total": ("Fresh starts of the engine's process, by reason.", "reason", "restarts_by_kind"),
}


def prometheus_text(snapshot: HealthSnapshot, *, ready: bool) -> str:
    """Writes a snapshot.

    Args:
        snapshot: Of a stream's health.
        ready: Whether results are current, as `/readyz` says.
    """
    lines: list[str] = []
    for name, says in _COUNTERS.items():
        lines += _family(f"edgekit_frames_{name}_total", "counter", says, {"": getattr(snapshot, name)})
    for name, (says, label, field) in _BY_KIND.items():
        counts: Mapping[str, int] = getattr(snapshot, field)
        lines += _family(name, "counter", says, {_label(label, kind): count for kind, count in counts.items()})
    lines += _summary("edgekit_latency_seconds", "From a frame handed to the classifier to its answer.", snapshot.latency_ms)
    lines += _summary("edgekit_frame_age_seconds", "From a frame's capture to its result.", snapshot.age_ms)
    for name, (says, samples) in _gauges(snapshot, ready=ready).items():
        lines += _family(name, "gauge", says, samples)
    return "\n".join(lines) + "\n"


def _gauges(snapshot: HealthSnapshot, *, ready: bool) -> dict[str, tuple[str, Mapping[str, float | None]]]:
    sensors = snapshot.sensors
    temperatures = {_label("sensor", name): value for name, value in sensors.temperatures_c.items()}
    clocks = {_label("clock", name): value * 1e6 for name, value in sensors.clocks_mhz.items()}
    return {
        "edgekit_degradation_step": ("The step of the ladder on which the stream stands.", {_label("step", snapshot.step): 1}),
        "edgekit_ready": ("Whether results are current.", {"": int(ready)}),
        "edgekit_uptime_seconds": ("Since the stream began.", {"": snapshot.uptime_s}),
        "edgekit_last_result_age_seconds": ("Since the last answered frame.", {"": snapshot.since_last_result_s}),
        "edgekit_temperature_celsius": ("Temperatures that the system tells.", temperatures),
        "edgekit_clock_hertz": ("Clocks that the system tells.", clocks),
    }


def _summary(name: str, says: str, series: Series) -> list[str]:
    samples: dict[str, float | None] = {}
    for share, field in _QUANTILES.items():
        milliseconds: float | None = getattr(series, field)
        samples[_label("quantile", share)] = None if milliseconds is None else milliseconds / 1e3
    return [
        *_family(name, "summary", f"{says} Quantiles are of the last {series.samples} frames.", samples),
        f"{name}_sum {_number(series.sum_ms / 1e3)}",
        f"{name}_count {series.count}",
    ]


def _family(name: str, kind: str, says: str, samples: Mapping[str, float | None]) -> Sequence[str]:
    known = [f"{name}{labels} {_number(value)}" for labels, value in samples.items() if value is not None]
    return [f"# HELP {name} {says}", f"# TYPE {name} {kind}", *known]


def _label(name: str, value: str) -> str:
    return f'{{{name}="{value.translate(_ESCAPES)}"}}'


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))
