"""The schema of a profile, against documents that were really measured."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import repository
from device_bundles import write_device_bundle
from json_schema import problems

from edgekit.errors import RegressionError
from edgekit.profiler import failif
from edgekit.profiler.baseline import load_baseline
from edgekit.profiler.document_schema import schema
from edgekit.profiler.pacing import Clock, play
from edgekit.profiler.profile import PATHS, Options, profile

PUBLISHED = "docs/profile.schema.json"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A document with every part, and one with none of those that are asked for, of a bundle that runs."""
    from edgekit.imaging import phantom
    from edgekit.imaging.phantom_scanner import PhantomSpec

    folder = tmp_path_factory.mktemp("profile")
    bundle = write_device_bundle(folder / "x.edgekit")
    frames = [phantom.frame("b-lines", patient=0, index=0, seed=0, spec=PhantomSpec(rows=48, columns=64))]
    plain = profile(bundle, frames, options=Options(seconds=0.5, repeats=1)).to_json()
    # A busy machine may not have been steady, and nothing is compared with such a profile.
    steady = {**plain, "warmup": {**plain["warmup"], "steady": True}}
    (folder / "baseline.json").write_text(json.dumps(steady))
    options = Options(
        seconds=0.5,
        repeats=1,
        fps=40.0,
        idle=True,
        layers=True,
        compare=bundle,
        baseline=load_baseline(folder / "baseline.json"),
    )
    whole = profile(bundle, frames, options=options)
    _, seen = whole.extras.paced
    drowned = dataclasses.replace(whole, extras=dataclasses.replace(whole.extras, paced=(_overloaded(), seen)))
    documents = {"plain": plain, "whole": whole.to_json(), "drowned": drowned.to_json()}
    return {**{name: _stored(document) for name, document in documents.items()}, "paths": options.paths()}


def _overloaded():
    """A run at four times what the machine can do, on a clock of its own."""
    now = [0]

    def spend(milliseconds):
        now[0] += round(1e6 * milliseconds)

    clock = Clock(now_ns=lambda: now[0], sleep=lambda seconds: spend(1e3 * seconds))
    return play(lambda: spend(80.0), fps=50.0, seconds=2.0, clock=clock)


def _stored(document):
    return json.loads(json.dumps(document, allow_nan=False))


@pytest.mark.parametrize("which", ["plain", "whole", "drowned"])
def test_a_real_document_keeps_the_schema(measured, which):
    """Every key is described, and none is missing."""
    assert list(problems(measured[which], schema())) == []


@pytest.mark.parametrize("which", ["plain", "whole", "drowned"])
def test_every_null_has_its_reason(measured, which):
    """A figure that a limit may name and that is null is explained under its path."""
    document = measured[which]
    figures = failif.paths({key: value for key, value in document.items() if key != "unavailable"})
    known = PATHS if which == "plain" else measured["paths"]
    assert set(figures) >= known
    nulls = {path for path, value in figures.items() if value is None}
    # An interval has the reason of its percentile, or an end of it lies where nothing was answered.
    intervals = {path for path in nulls if "latency_intervals_ms" in path}
    assert all(figures[path.replace("latency_intervals_ms", "latency_ms")] is None or which == "drowned" for path in intervals)
    unexplained = nulls - intervals - set(document["unavailable"])
    assert unexplained == set()
    assert all(document["unavailable"][path] for path in nulls & known)


def test_what_is_without_end_is_named_under_its_path(measured):
    """Null figures, each of which a limit may name; none where every frame was answered."""
    document = measured["drowned"]
    assert "paced.latency_ms.max" in document["without_end"]
    figures = failif.paths(document)
    assert all(figures[path] is None for path in document["without_end"])
    assert set(document["without_end"]) <= measured["paths"]
    assert "without_end" not in document["paced"]
    assert measured["plain"]["without_end"] == measured["whole"]["without_end"] == []
    with pytest.raises(RegressionError, match="without end"):
        failif.check([failif.parse("paced.latency_ms.max > 20")], document)


def test_parts_that_were_not_asked_for_are_null_and_say_so(measured):
    """With the option that asks for them."""
    document = measured["plain"]
    for part, option in {
        "paced": "--fps",
        "idle_wake": "--idle",
        "layers": "--layers",
        "compare": "--compare",
        "baseline": "--baseline",
    }.items():
        assert document[part] is None
        assert option in document["unavailable"][part]


def test_parts_that_were_asked_for_are_there(measured):
    """With as many frames as were due, and the two words about the same bundle."""
    document = measured["whole"]
    assert document["paced"]["due"] == 20
    assert set(document["idle_wake"]) == {"after_33_ms", "after_1000_ms", "after_10000_ms"}
    assert document["layers"]["engine"] == "openvino"
    assert document["compare"]["other"] == document["bundle"]
    assert document["baseline"]["bundle"]["digest"] == document["bundle"]["digest"]


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("energy"),
        lambda document: document.update(extra=1),
        lambda document: document["latency_ms"].update(p50="fast"),
        lambda document: document["latency_ms"].update(samples=1.5),
        lambda document: document["paced"].update(fps=None),
        lambda document: document["compare"].update(verdict="fine"),
        lambda document: document["latency_intervals_ms"].update(p50=[1.0]),
        lambda document: document["unavailable"].update(x=None),
        lambda document: document.update(format_version=2),
    ],
)
def test_a_document_that_breaks_the_schema_is_seen(measured, change):
    """So that the tests above can fail."""
    document = copy.deepcopy(measured["whole"])
    change(document)
    assert list(problems(document, schema()))


def test_the_published_schema_is_this_one():
    """Written by: python -c "import json; from edgekit.profiler.document_schema import schema; print(json.dumps(schema(), indent=2))"."""
    assert json.loads((repository.ROOT / PUBLISHED).read_text()) == schema()
