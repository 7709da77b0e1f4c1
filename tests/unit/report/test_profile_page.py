"""The page of a profile, from a stored document."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest

from edgekit.report import profile_page

STAGE = {"p50": 1.25, "p95": 1.5, "samples": 900}
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
    "unavailable": {"host.governor": "there is no governor file", "memory.proportional_mib": "no rollup"},
}


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
