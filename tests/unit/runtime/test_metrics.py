"""The text that Prometheus reads, line by line."""

from __future__ import annotations

import re

from edgekit.runtime.health import Health
from edgekit.runtime.metrics import CONTENT_TYPE, prometheus_text
from edgekit.runtime.sensors import Sensors

SENSORS = Sensors(temperatures_c={'a "hot"\\\nzone': 48.5}, clocks_mhz={"cpu policy0": 1510.4}, unavailable={})
NOTHING = Sensors(temperatures_c={}, clocks_mhz={}, unavailable={"temperatures_c": "why"})


def snapshot(*, frames=100, sensors=SENSORS):
    now = [0]
    health = Health(clock_ns=lambda: now[0], sensors=lambda: sensors)
    for value in range(1, frames + 1):
        health.captured(2)
        health.processed(latency_ms=float(value), age_ms=value * 2.0)
    if frames:
        health.dropped(7)
        health.failed("DataError")
        health.failed("EngineLostError")
        health.failed("DataError")
        health.degraded("no-maps")
        health.restarted("hang")
        health.at_step("no-maps")
    now[0] = 2_500_000_000
    return health.snapshot()


def samples(text):
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def test_every_figure_is_there_in_base_units():
    """Counts are whole, times are seconds, clocks hertz, and kinds are labels."""
    found = samples(prometheus_text(snapshot(), ready=True))
    expected = {
        "edgekit_frames_captured_total": "200",
        "edgekit_frames_processed_total": "100",
        "edgekit_frames_dropped_total": "7",
        "edgekit_frames_late_total": "0",
        "edgekit_frames_not_assessable_total": "0",
        'edgekit_frames_failed_total{kind="DataError"}': "2",
        'edgekit_frames_failed_total{kind="EngineLostError"}': "1",
        'edgekit_frames_degraded_total{step="no-maps"}': "1",
        'edgekit_engine_restarts_total{reason="hang"}': "1",
        'edgekit_latency_seconds{quantile="0.5"}': "0.05",
        'edgekit_latency_seconds{quantile="0.9"}': "0.09",
        'edgekit_latency_seconds{quantile="0.99"}': "0.099",
        "edgekit_latency_seconds_sum": "5.05",
        "edgekit_latency_seconds_count": "100",
        'edgekit_frame_age_seconds{quantile="0.5"}': "0.1",
        'edgekit_frame_age_seconds{quantile="0.9"}': "0.18",
        'edgekit_frame_age_seconds{quantile="0.99"}': "0.198",
        "edgekit_frame_age_seconds_sum": "10.1",
        "edgekit_frame_age_seconds_count": "100",
        'edgekit_degradation_step{step="no-maps"}': "1",
        "edgekit_ready": "1",
        "edgekit_uptime_seconds": "2.5",
        "edgekit_last_result_age_seconds": "2.5",
        'edgekit_temperature_celsius{sensor="a \\"hot\\"\\\\\\nzone"}': "48.5",
        'edgekit_clock_hertz{clock="cpu policy0"}': "1510400000.0",
    }
    assert found == expected


def test_what_is_not_known_has_no_sample():
    """Before the first frame there are counters at nothing, and no quantile, age or temperature."""
    text = prometheus_text(snapshot(frames=0, sensors=NOTHING), ready=False)
    assert set(samples(text)) == {
        *(f"edgekit_frames_{name}_total" for name in ("captured", "processed", "dropped", "late", "not_assessable")),
        *(f"edgekit_{name}_seconds_{part}" for name in ("latency", "frame_age") for part in ("sum", "count")),
        'edgekit_degradation_step{step="full"}',
        "edgekit_ready",
        "edgekit_uptime_seconds",
    }
    assert "NaN" not in text


def test_the_format_is_0_0_4():
    """Every line is a HELP, a TYPE or a sample, each family has the two first, counters end in _total, and the text ends with a line's end."""
    text = prometheus_text(snapshot(), ready=True)
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
    assert text.endswith("\n")
    sample = re.compile(r'([a-z_]+)(\{[a-z]+="(?:[^"\\\n]|\\["\\n])*"\})? -?[0-9.e+]+')
    family, kind = "", ""
    seen = set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family = line.split()[2]
            assert family not in seen
            seen.add(family)
        elif line.startswith("# TYPE "):
            assert line.split()[2] == family
            kind = line.split()[3]
            assert (kind == "counter") == family.endswith("_total")
        else:
            name = sample.fullmatch(line)[1]
            assert name in ((family, f"{family}_sum", f"{family}_count") if kind == "summary" else (family,))
