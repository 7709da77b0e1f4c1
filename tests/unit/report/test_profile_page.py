"""The page of a profile, from a stored document."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest

from edgekit.report import profile_page, profile_parts

STAGE = {"p50": 1.25, "p95": 1.5, "samples": 900}
NOTHING = "nothing to read it from"
SERIES = np.random.default_rng(0).normal(2.0, 0.05, 1000).round(4)
DOCUMENT = {
    "format_version": 1,
    "measured_at": "2026-01-02T03:04:05+00:00",
    "bundle": {
        "file": "tiny.edgekit",
        "name": "tiny",
        "version": "1.2",
        "digest": "ab" * 32,
        "size_bytes": 2_097_152,
        "accepted": True,
        "engine": {"name": "openvino", "version": "2026.4.1", "device": "CPU", "precision": "int8", "threads": "2"},
    },
    "frames": {"count": 8, "shapes": [[480, 640]]},
    "latency_ms": {"p50": 2.0, "p90": 2.0625, "p95": 2.125, "p99": 12.5, "max": 123.4, "samples": 900},
    "latency_intervals_ms": {"p50": [1.99, 2.01], "p90": [2.05, 2.07], "p95": [2.1, 2.2], "p99": [10.0, 20.0]},
    "stages_ms": {stage: dict(STAGE) for stage in ("read", "preprocess", "infer", "cam", "overlay")},
    "warmup": {"excluded": 100, "steady": True, "reason": "", "window_medians_ms": [2.0, 2.0, 2.0], "variation": 0.02},
    "cold_start_ms": {
        "interpreter": 20.0,
        "import": 90.0,
        "load": 60.0,
        "first_result": 12.0,
        "total": 182.0,
        "first_total": 350.0,
        "repeats": 5,
    },
    "peak_memory_mib": 137.0,
    "memory": {"resident_mib": 120.0, "proportional_mib": None},
    "host": {
        **dict.fromkeys(profile_page._HOST_TITLES),
        "architecture": "x86_64",
        "cpu_model": "Some CPU",
        "cores_logical": 4,
        "instruction_sets": ["avx2", "avx512_vnni"],
        "memory_mib": 7620.5,
        "packages": {"edgekit": "0.1.0", "numpy": "2.4.6", "tensorrt": None},
    },
    "series": {"start_s": (np.arange(1000) / 500).tolist(), "latency_ms": SERIES.tolist()},
    "timeline": {
        "t_s": [0.0, 1.0, 2.0],
        "temperatures_c": {},
        "clocks_mhz": {},
        "throttle_events": [None, None, None],
        "throttle_states": [None, None, None],
        "memory_mib": [100.0, 100.5, 101.0],
        "own_memory_mib": [80.0, 80.5, None],
        "energy_j": [None, None, None],
        "hottest_c": None,
        "throttled": None,
        "throttled_by": "",
        "throttle_sources": [],
        "sustained_ratio": 1.02,
        "reading_ms": 0.5,
    },
    "energy": dict.fromkeys(("source", "scope", "idle_w", "busy_w", "mj_per_frame", "mj_per_frame_above_idle", "frames")),
    "memory_growth": {"mib_per_minute": None, "low": None, "high": None, "readings": 3, "kept_mib_per_minute": None},
    "deltas": {
        "cam": {
            "added_ms": 0.125,
            "added_low_ms": 0.1,
            "added_high_ms": 0.15,
            "ratio": 1.0625,
            "low": 1.05,
            "high": 1.075,
            "pairs": 400,
            "steady": True,
        },
        "overlay": dict.fromkeys(("added_ms", "added_low_ms", "added_high_ms", "ratio", "low", "high", "pairs", "steady")),
    },
    "paced": None,
    "idle_wake": None,
    "layers": None,
    "compare": None,
    "baseline": None,
    "without_end": [],
    "unavailable": {
        "host.governor": "there is no governor file",
        "memory.proportional_mib": "no rollup",
        "energy.mj_per_frame": NOTHING,
        "timeline.throttled": "no counter",
        "memory_growth.mib_per_minute": "too few readings",
        "deltas.overlay.ratio": "too few pairs",
    },
}

WAKE = {"gap_s": 1.0, "p50_ms": 3.0, "interval_ms": [2.5, 3.5], "max_ms": 9.0, "samples": 20, "reason": ""}
PERCENTILES = {"p50": 21.5, "p90": 30.0, "p95": None, "p99": None, "max": 250.0, "samples": 100}
PACED = {
    "fps": 30.0,
    "deadline_ms": 33.3,
    "due": 100,
    "served": 98,
    "unserved": 2,
    "deadline_misses": 7,
    "deadline_miss_share": 0.07,
    "longest_queue": 4,
    "live_drops": 3,
    "latency_ms": PERCENTILES,
    "latency_intervals_ms": dict.fromkeys(("p50", "p90", "p95", "p99")),
    "service_ms": PERCENTILES,
    "wait_ms": PERCENTILES,
    "series": {"due_s": (np.arange(98) / 30).tolist(), "latency_ms": (10 * SERIES[:98]).tolist(), "service_ms": SERIES[:98].tolist()},
    "timeline": DOCUMENT["timeline"],
    "energy": DOCUMENT["energy"],
}
LAYERS = {
    "engine": "openvino",
    "repeats": 50,
    "sum_ms": 3.0,
    "by_precision_ms": {"u8": 2.5, "f32": 0.5},
    "table": [
        {"name": f"conv{index}", "kind": "Convolution", "precision": "u8", "kernel": "brgconv_I8", "median_ms": index / 10}
        for index in range(20)
    ],
    "reason": "",
}
VERDICT = {
    "verdict": "slower",
    "reason": "p50 is 1.100 (1.080 to 1.120) times the other's",
    "ratio": {
        "p50": {"value": 1.1, "low": 1.08, "high": 1.12, "margin": 0.02},
        "p90": {"value": 1.1, "low": 1.04, "high": 1.15, "margin": 0.05},
        "p99": {"value": None, "low": None, "high": None, "margin": 0.1},
    },
}
COMPARE = {"other": DOCUMENT["bundle"], "pairs": 400, "excluded": 5, "latency_ms": {"candidate": None, "other": None}, **VERDICT}
BASELINE = {
    "measured_at": "2025-12-31",
    "bundle": {"name": "tiny", "version": "1.1", "digest": "cd"},
    "samples": 900,
    "changes": ["kernel was 1, is 2"],
    **VERDICT,
}
WHOLE = {**DOCUMENT, "paced": PACED, "idle_wake": {"after_1000_ms": WAKE}, "layers": LAYERS, "compare": COMPARE, "baseline": BASELINE}


def changed(**changes):
    """A copy of the document with dotted keys (double underscores) set."""
    document = copy.deepcopy(DOCUMENT)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = document
        for parent in parents:
            place = place[parent]
        place[last] = value
    return document


def words(page):
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL))


def test_every_headline_figure_has_its_unit():
    """Latency with its interval, start, memory and size are on the page."""
    found = words(profile_page.render(DOCUMENT))
    for text in (
        "2.00 ms",
        "1.99 to 2.01 ms",
        "12.5 ms",
        "182 ms",
        "137 MiB",
        "2.00 MiB",
        "openvino 2026.4.1 CPU int8 · Some CPU",
        "900 calls",
        "100 of warm-up",
    ):
        assert text in found


def test_a_steady_accepted_profile_has_no_warnings():
    """Nothing cries wolf, neither on an unknown load nor on a low one."""
    for document in (DOCUMENT, changed(host__load_average=0.4, host__cores_usable=4)):
        assert "callout" not in re.sub(r"<style>.*?</style>", "", profile_page.render(document), flags=re.DOTALL)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"warmup__steady": False, "warmup__reason": "the latency drifts"}, "not steady: the latency drifts"),
        ({"bundle__accepted": False}, "did not pass its acceptance gates"),
        ({"host__load_average": 3.04, "host__cores_usable": 4}, "a load of 3.0 on 4 threads"),
    ],
)
def test_what_must_not_be_overlooked_is_said_on_top(changes, text):
    """An unsteady or busy machine and a bundle that was refused stand above the figures."""
    found = words(profile_page.render(changed(**changes)))
    assert text in found
    assert found.index(text) < found.index("Latency, median")


def test_figures_that_are_not_known_are_dashes_with_their_reason():
    """A missing p99 falls back to p95 in the headline; missing memory and map say why."""
    document = changed(
        latency_ms__p99=None, latency_intervals_ms__p99=None, peak_memory_mib=None, stages_ms__cam={"p50": None, "p95": None, "samples": 0}
    )
    document["unavailable"] |= {"latency_ms.p99": "p99 needs 662 samples", "peak_memory_mib": "the system has no /proc"}
    found = words(profile_page.render(document))
    for text in (
        "Latency, p95",
        "p99 needs 662 samples",
        "the system has no /proc",
        "there is no governor file",
        "no rollup",
        "answer and map – – 0",
    ):
        assert text in found
    assert "None" not in found


def test_nothing_of_a_bundle_can_become_markup():
    """Names, reasons and engine words are escaped."""
    hostile = "<script>x</script>"
    document = changed(bundle__name=hostile, bundle__file=hostile, host__cpu_model=hostile, warmup__steady=False, warmup__reason=hostile)
    document["bundle"]["engine"]["name"] = hostile
    page = profile_page.render(document)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 5


def test_the_page_is_the_same_for_the_same_document():
    """Rendering has no clock and no chance in it."""
    assert profile_page.render(DOCUMENT) == profile_page.render(copy.deepcopy(DOCUMENT))


def test_parts_that_were_not_asked_for_have_no_section():
    """Nor a title, nor a dash."""
    found = words(profile_page.render(DOCUMENT))
    for title in ("frames a second", "After a pause", "Layers", "Against another bundle", "Against an earlier measurement"):
        assert title not in found


def test_every_part_has_its_section():
    """With its figures in words, what is missing as a dash, and what was left out of a table on demand."""
    found = words(profile_page.render(WHOLE))
    for text in (
        "At 30 frames a second",
        "7 of 100 frames missed the deadline of 33.3 ms; 2 of them were never served",
        "would have dropped 3",
        "1 s 3.00 2.50 to 3.50 9.00 20",
        "Against another bundle",
        "Slower: p50 is 1.100 (1.080 to 1.120) times the other's",
        "400 pairs on the same frames",
        "p99 – – 1.10",
        "Against an earlier measurement",
        "kernel was 1, is 2",
        "conv19 Convolution u8 brgconv_I8 1.9000",
        "5 more",
        "the map +0.125 ms (+0.100 to +0.150) 1.062 (1.050 to 1.075) 400 yes",
        "drawing the overlay too few pairs",
        NOTHING,
        "no counter",
        "too few readings",
    ):
        assert text in found
    assert "None" not in found


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"compare": COMPARE}, "slower than the bundle it was compared with: p50 is 1.100"),
        (
            {"baseline": {**BASELINE, "verdict": "not judged", "reason": "the baseline was not steady"}},
            "could not be judged: the baseline was not steady",
        ),
        ({"timeline__throttled": True, "timeline__throttled_by": "3 throttle events"}, "the machine held itself back: 3 throttle events"),
        (
            {"paced": {**PACED, "timeline": {**DOCUMENT["timeline"], "throttled": True, "throttled_by": "cpufreq-cpu0 at 2"}}},
            "the machine held itself back while frames came from a clock: cpufreq-cpu0 at 2",
        ),
        (
            {"compare": {**COMPARE, "verdict": "median not distinguishable", "reason": "p99: 400 samples, 662 needed"}},
            "against the bundle it was compared with only the median could be judged: p99: 400 samples",
        ),
    ],
)
def test_what_a_comparison_or_the_machine_found_is_said_on_top(changes, text):
    """Before the figures."""
    found = words(profile_page.render(changed(**changes)))
    assert text in found
    assert found.index(text) < found.index("Latency, median")


def test_energy_says_what_the_meter_sees():
    """All of it, what is above rest, the scope and the source."""
    energy = {"source": "INA3221", "scope": "whole board (VDD_IN)", "idle_w": 4.0, "busy_w": 10.0, "mj_per_frame": 250.0}
    found = words(profile_page.render(changed(energy={**energy, "mj_per_frame_above_idle": 150.0, "frames": 900})))
    assert "250 mJ, 150 mJ of it above rest (4 W); whole board (VDD_IN), by INA3221" in found


def test_temperatures_and_clocks_are_drawn_where_there_are_any():
    """One chart each, beside that of memory."""
    plain, warm = (
        profile_page.render(changed(timeline__temperatures_c=temperatures, timeline__clocks_mhz=clocks))
        for temperatures, clocks in (({}, {}), ({"cpu": [40.0, 41.0, None]}, {"cpu policy0": [3000.0, 2900.0, 2800.0]}))
    )
    assert warm.count("<svg") == plain.count("<svg") + 2
    assert "temperature (°C)" in warm
    assert "clock (MHz)" in warm


def test_the_deadline_is_on_the_curve_where_it_fits():
    """One far beyond the largest latency would flatten it."""
    near, far = (profile_page.render({**DOCUMENT, "paced": {**PACED, "deadline_ms": deadline}}) for deadline in (33.3, 1000.0))
    assert "deadline 33.3 ms" in near
    assert "deadline 1e+03" not in far


def test_a_difference_that_holds_zero_says_so():
    """The milliseconds of the map, where their interval holds 0."""
    told = "+0.125 ms (-0.100 to +0.150), not distinguishable from 0"
    assert told in words(profile_page.render(changed(deltas__cam__added_low_ms=-0.1)))
    assert "not distinguishable from 0" not in words(profile_page.render(DOCUMENT))


def test_the_machine_during_the_paced_run_is_shown():
    """Its own temperature, throttling and energy, with their own reasons."""
    timeline = {
        **DOCUMENT["timeline"],
        "temperatures_c": {"cpu": [40.0, 50.0, 60.0]},
        "throttled": False,
        "throttle_sources": ["core counter × 4"],
        "hottest_c": 60.0,
    }
    document = changed(paced={**PACED, "timeline": timeline})
    document["unavailable"]["paced.energy.mj_per_frame"] = "the meter was unplugged"
    found = words(profile_page.render(document))
    section = found[found.index("At 30 frames a second") :]
    for text in ("60.0 °C", "no; looked at: core counter × 4", "the meter was unplugged", "temperature (°C)", "when the frame was due (s)"):
        assert text in section


def test_what_has_no_end_is_no_dash():
    """A p90 that falls on frames which were never answered, and why; a p99 of too few frames stays a dash."""
    paced = {**PACED, "latency_ms": {**PERCENTILES, "p90": None}}
    document = changed(paced=paced, without_end=["paced.latency_ms.p90"])
    document["unavailable"]["paced.latency_ms.p90"] = "2 of 100 frames were never answered, and this falls on one of them"
    found = words(profile_page.render(document))
    assert "from due to answered 21.50 without end – – 250.00 100" in found
    assert "2 of 100 frames were never answered" in found


def test_the_distribution_of_an_overload_does_not_reach_the_whole():
    """98 of 100 frames were answered: the curve ends at 98 %; where the median has no end, none is drawn."""
    whole, lost = ({**PACED, "latency_ms": {**PERCENTILES, "p50": p50}} for p50 in (21.5, None))
    assert "of 100 frames, 2 of them without end" in profile_page.render(changed(paced=whole))
    assert "around a median of 21.5 ms" in profile_page.render(changed(paced=whole))
    assert profile_page.render(changed(paced=lost)).count("around a median of") == 1


def test_a_slope_that_does_not_rise_is_not_said_to_hold_what_the_profile_keeps():
    """Beside each other, not one within the other."""
    slope = {"mib_per_minute": -0.5, "low": -1.0, "high": 0.1, "readings": 30, "kept_mib_per_minute": 0.25}
    found = words(profile_page.render(changed(memory_growth=slope)))
    assert "-0.5 MiB a minute (-1 to +0.1); the profile itself keeps 0.25" in found


@pytest.mark.parametrize(
    ("events", "states", "spans"),
    [
        ([0, 0, 0, 0], [[], [], [], []], []),
        ([0, 0, 2, 2], [None] * 4, [(1.0, 2.0)]),
        ([0, 1, 2, 2], [None] * 4, [(0.0, 2.0)]),
        ([None] * 4, [[], ["x at 1"], [], []], [(1.0, 2.0)]),
        ([None] * 4, [[], ["x at 1"], ["x at 1"], ["x at 1"]], [(1.0, 3.0)]),
        ([None] * 4, [[], [], [], ["x at 1"]], [(2.0, 3.0)]),
        ([0, None, 3, 4], [["x"], [], [], []], [(0.0, 1.0), (2.0, 3.0)]),
    ],
)
def test_when_the_machine_held_itself_back(events, states, spans):
    """A counter tells of the time since the reading before, a state of the time until the next."""
    assert profile_parts.held_back({"t_s": [0.0, 1.0, 2.0, 3.0], "throttle_events": events, "throttle_states": states}) == spans


def test_the_times_of_throttling_are_shaded_in_every_course():
    """Latency, temperature and memory, with a legend; nothing where there was none."""
    document = changed(
        timeline__temperatures_c={"cpu": [40.0, 50.0, 60.0]},
        timeline__throttle_states=[[], ["cpufreq-cpu0 at 2"], []],
        timeline__throttled=True,
    )
    assert profile_page.render(document).count('class="held"') == 2 * 3
    assert 'class="held"' not in profile_page.render(DOCUMENT)


def test_a_long_name_of_a_file_stays_in_its_tile():
    """The whole of it is in the table of the bundle."""
    name = "a-very-long-name-of-a-bundle-without-a-space.edgekit"
    found = words(profile_page.render(changed(bundle__file=name)))
    assert found.count(name) == 1
    assert "a-very-long-name-of-a…" in found
