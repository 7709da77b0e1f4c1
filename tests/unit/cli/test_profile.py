"""`edgekit profile`: its options, what it prints and its exit codes; the measuring itself is tested below `unit/profiler`."""

from __future__ import annotations

import copy
import json

import pytest
from command_line import assert_refused, edgekit
from device_bundles import frame, write_device_bundle

from edgekit.errors import EdgekitError, RegressionError
from edgekit.profiler import compare, profile


@pytest.fixture
def bundle(tmp_path):
    return write_device_bundle(tmp_path / "x.edgekit")


@pytest.fixture
def quick(monkeypatch):
    """One cold start instead of five."""
    original = profile.Options

    def options(**given):
        return original(**{"repeats": 1, **given})

    monkeypatch.setattr(profile, "Options", options)


def test_everything_that_can_be_asked_for(bundle, quick, tmp_path, capfd):
    """Each part is in the document, the page has a section for each, and a limit may name a figure of each."""
    page = tmp_path / "page.html"
    limits = [
        "paced.latency_ms.max > 100000",
        "idle_wake.after_33_ms.p50_ms > 100000",
        "layers.sum_ms > 100000",
        "compare.ratio.p50.low > 3",
        "deltas.cam.ratio > 1000",
        "timeline.reading_ms > 100000",
    ]
    asked = [word for limit in limits for word in ("--fail-if", limit)]
    # A comparison may not be judged on a busy machine; exit 1 is then right, and everything is printed before it.
    ran = edgekit(
        capfd,
        "profile",
        bundle,
        "--seconds",
        "0.5",
        "--fps",
        "40",
        "--idle",
        "--layers",
        "--compare",
        bundle,
        "--html",
        page,
        "--json",
        *asked,
    )
    document = ran.document
    assert ran.code == (0 if document["compare"]["verdict"] != "not judged" else 1), ran.err
    assert document["paced"]["fps"] == 40
    assert all(document[part] is not None for part in ("idle_wake", "layers", "compare"))
    markup = page.read_text()
    for title in (
        "The machine meanwhile",
        "At 40 frames a second",
        "After a pause",
        "Against another bundle",
        "Layers",
        "What the map and the overlay add",
    ):
        assert f"<h2>{title}</h2>" in markup


def test_what_is_printed_for_people(bundle, quick, capfd):
    """Every part has its lines, and what is not known says why."""
    ran = edgekit(capfd, "profile", bundle, "--seconds", "0.5", "--fps", "20", "--idle", "--layers")
    assert ran.code == 0, ran.err
    for words in (
        "the map adds",
        "the overlay adds",
        "throttled: ",
        "energy: ",
        "memory growth",
        "20 frames a second",
        "meanwhile throttled: ",
        "meanwhile energy: ",
        "after a pause of",
        "slowest layers",
        "--seconds 55",
    ):
        assert words in ran.out


@pytest.mark.parametrize(
    ("limit", "option"),
    [("paced.latency_ms.p99 > 1", "--fps"), ("compare.ratio.p50.low > 1", "--compare"), ("layers.sum_ms > 1", "--layers")],
)
def test_a_limit_on_what_is_not_asked_for_is_refused_first(bundle, limit, option, capfd, monkeypatch):
    """Before anything is measured, with the option that asks for it."""
    monkeypatch.setattr(profile, "profile", lambda *_, **__: pytest.fail("it was measured"))
    assert_refused(edgekit(capfd, "profile", bundle, "--fail-if", limit), f"is measured only with {option}")


@pytest.mark.parametrize(
    ("option", "words"),
    [(["--compare", "missing.edgekit"], "missing.edgekit"), (["--baseline", "missing.json"], "missing.json: cannot be read")],
)
def test_what_to_compare_with_is_looked_at_first(bundle, option, words, capfd, monkeypatch, tmp_path):
    """A file that is not there is refused before anything is measured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(profile, "profile", lambda *_, **__: pytest.fail("it was measured"))
    assert_refused(edgekit(capfd, "profile", bundle, *option), words)


@pytest.mark.parametrize("wrong", [["--fps", "0"], ["--fps", "-1"], ["--fps", "1e9"], ["--fps", "x"], ["--baseline"]])
def test_usage(bundle, wrong, capfd):
    """Rates that are none end with exit code 2."""
    assert edgekit(capfd, "profile", bundle, *wrong).code == 2


def judged(verdict, reason="because"):
    ratio = {name: {"value": 1.1, "low": 1.05, "high": 1.15, "margin": 0.02, "blind": 0.1} for name in ("p50", "p90", "p99")}
    return {"verdict": verdict, "reason": reason, "ratio": ratio}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A small real document."""
    path = write_device_bundle(tmp_path_factory.mktemp("profile") / "x.edgekit")
    return profile.profile(path, [frame()], options=profile.Options(seconds=0.5, repeats=1)).to_json()


@pytest.fixture
def document(measured):
    """A copy of it, whose parts a test replaces."""
    return copy.deepcopy(measured)


def stubbed(monkeypatch, document):
    class Stored:
        def to_json(self):
            return document

    monkeypatch.setattr(profile, "profile", lambda *_, **__: Stored())


@pytest.mark.parametrize(
    ("compared", "baseline", "limit", "code", "said"),
    [
        ("not distinguishable", None, "latency_ms.samples < 1", 0, ()),
        ("faster", "faster", "latency_ms.samples < 1", 0, ()),
        ("median not distinguishable", "median faster", "latency_ms.samples < 1", 0, ()),
        ("slower", None, "latency_ms.samples < 1", 4, ("--compare: the bundle is slower",)),
        (None, "slower", "latency_ms.samples < 1", 4, ("--baseline: the bundle is slower",)),
        ("not judged", None, "latency_ms.samples < 1", 1, ("--compare: not judged",)),
        ("slower", "not judged", "latency_ms.samples < 1", 4, ("--compare: the bundle is slower", "--baseline: not judged")),
        ("not judged", None, "latency_ms.samples > 0", 4, ("a limit is broken", "--compare: not judged")),
        ("slower", None, "latency_ms.samples > 0", 4, ("a limit is broken", "--compare: the bundle is slower")),
    ],
)
def test_exit_codes(document, bundle, capfd, monkeypatch, compared, baseline, limit, code, said):
    """4 where something was found, 1 where something could not be judged, and neither hides the other; the document is printed in any case."""
    other = {"other": document["bundle"], "pairs": 400, "excluded": 0, "latency_ms": {"candidate": None, "other": None}}
    earlier = {"measured_at": "then", "bundle": {"name": "x", "version": "1", "digest": "0"}, "samples": 9, "changes": []}
    document["compare"] = None if compared is None else {**other, **judged(compared)}
    document["baseline"] = None if baseline is None else {**earlier, **judged(baseline)}
    stubbed(monkeypatch, document)
    ran = edgekit(capfd, "profile", bundle, "--fail-if", limit, "--json")
    assert ran.code == code
    assert ran.document["bundle"] == document["bundle"]
    for words in said:
        assert words in ran.err


def test_a_slower_bundle_is_found_by_the_command(bundle, quick, capfd, monkeypatch):
    """The whole way: the measured pairs of a slowed bundle end in exit code 4."""
    original = compare.judge_pairs
    monkeypatch.setattr(compare, "judge_pairs", lambda _, other, **given: original(other * 1.5, other, **given))
    ran = edgekit(capfd, "profile", bundle, "--seconds", "0.5", "--compare", bundle)
    assert ran.code == RegressionError.exit_code
    assert "the bundle is slower" in ran.err
    assert "compare: slower" in ran.out


def test_a_baseline_of_another_machine_is_refused_before_anything_is_measured(document, bundle, capfd, monkeypatch, tmp_path):
    """Exit code 1, with what is different."""
    document["host"]["cores_usable"] = 4096
    document["warmup"]["steady"] = True
    (tmp_path / "b.json").write_text(json.dumps(document))
    monkeypatch.setattr(profile, "measure_cold_start", lambda *_, **__: pytest.fail("it was measured"))
    ran = edgekit(capfd, "profile", bundle, "--baseline", tmp_path / "b.json")
    assert ran.code == EdgekitError.exit_code
    assert_refused(ran, "cores_usable was 4096")
