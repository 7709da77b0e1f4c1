"""The manifest: what contradicts itself is refused, and the same manifest gives the same bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math

import pytest
from bundle_builders import manifest_bytes, tiny_manifest, tiny_members, tiny_table
from hypothesis import given
from hypothesis import strategies as st

from edgekit.bundle.limits import Limits
from edgekit.bundle.manifest import CamSpec, Decision, Gate, Member
from edgekit.bundle.manifest_json import parse, serialize
from edgekit.errors import BundleError


def edited(path: str, value: object) -> dict:
    """The tiny manifest's table with one place changed; a path such as `engines.0.outputs`."""
    table = tiny_table()
    place = table
    *folders, last = path.split(".")
    for step in folders:
        place = place[int(step)] if isinstance(place, list) else place[step]
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return table


def test_the_tiny_manifest_is_valid():
    """The manifest that the cases below break one place of is accepted, and written back as the same bytes."""
    data = manifest_bytes(tiny_table())
    assert serialize(parse(data, where="x")) == data


# As the tiny manifest has it, without what the cases state.
GATE = {key: value for key, value in tiny_table()["acceptance"][0].items() if key not in {"passed", "status"}}

CONTRADICTIONS = [
    ("name", "", "name '' must be"),
    ("name", "a/b", "name 'a/b' must be"),
    ("name", "a" * 65, "must be 1 to 64"),
    ("version", "1 0", "version '1 0' must be"),
    ("security_version", -1, "between 0 and"),
    ("security_version", 2**31, "between 0 and"),
    ("compatible", [], "compatible is empty"),
    ("compatible", ["x86-64", "x86-64"], "compatible names one twice"),
    ("target.name", "", "target's name"),
    ("target.architectures", [], "at least one architecture"),
    ("engines", [], "engines is empty"),
    ("engines", [*tiny_table()["engines"], *tiny_table()["engines"]], "engines names one twice"),
    ("engines.0.name", "", "engine's name"),
    ("engines.0.files", {}, "at least one file"),
    ("engines.0.files", {"xml": "model/openvino.xml", "bin": "model/other.bin"}, "'model/other.bin' is used but is not listed"),
    ("engines.0.files", {"xml": "model/openvino.xml", "bin": "golden/frames.npy"}, "must be a member under model/"),
    ("engines.0.files", {"xml": "model/openvino.xml"}, "nothing uses the member 'model/openvino.bin'"),
    ("engines.0.minimum_version", "latest", "is not numbers with dots"),
    ("engines.0.minimum_version", "2026.1.", "is not numbers with dots"),
    ("engines.0.precision", "", "precision is empty"),
    ("engines.0.outputs", 0, "outputs must be at least 1"),
    ("engines.0.outputs", 3, "has 3 outputs for the labels"),
    ("engines.0.outputs", 1, "cam has 2 maps for the 1 outputs"),
    ("output.labels", ["benign"], "needs more labels"),
    ("decision.temperature", 0, "temperature must be between 0.01 and 100"),
    ("decision.temperature", -1.5, "temperature must be between 0.01 and 100"),
    ("decision.temperature", 1e-308, "temperature must be between 0.01 and 100"),
    ("decision.thresholds", {"malignant": 1.01}, "must be between 0 and 1, not 1.01"),
    ("decision.thresholds", {"malignant": -0.01}, "must be between 0 and 1, not -0.01"),
    ("decision.thresholds", {"normal": 0.5}, "names 'normal', which is not one of the labels"),
    ("cam.rows", 0, "between 1 and 4096"),
    ("cam.columns", 4097, "between 1 and 4096"),
    ("cam.maps", 0, "maps must be at least 1"),
    ("cam.bias", [0.0], "bias needs 2 values"),
    ("cam.kind", "grad-cam", "'grad-cam' is not known"),
    ("cam.tolerance", -0.1, "must not be negative"),
    ("cam.scale", 0.0, "scale must be above 0"),
    ("cam", None, "cam_reason says why"),
    ("cam_reason", "the head has two layers", "cam_reason says why"),
    ("golden.frames", "golden/other.npy", "'golden/other.npy' is used but is not listed"),
    ("golden.frames", "model/openvino.bin", "must be a member under golden/"),
    ("golden.logits", {}, "must name the same engines"),
    ("golden.tolerance", {"openvino": 0.1, "tensorrt": 0.1}, "must name the same engines"),
    ("golden.tolerance", {"openvino": -0.1}, "tolerance of 'openvino' must not be negative"),
    ("cam.golden", {}, "golden and golden_tolerance must name the same engines"),
    ("cam.golden", {"openvino": "golden/other.npy"}, "'golden/other.npy' is used but is not listed"),
    ("cam.golden_tolerance", {"openvino": -0.1}, "golden_tolerance of 'openvino' must not be negative"),
    ("golden", {"frames": "golden/frames.npy", "logits": {}, "tolerance": {}}, "golden has logits of [] for the engines ['openvino']"),
    ("acceptance.0.name", "", "gate has no name"),
    ("acceptance.0", {**GATE, "passed": False, "status": "failed"}, "accepted is true, but a gate was not passed"),
    ("acceptance.0", {**GATE, "passed": False, "status": "passed"}, "has the status 'passed', but passed is false"),
    ("acceptance.0", {**GATE, "passed": False, "status": "not demonstrated"}, "has the status 'not demonstrated', but passed is false"),
    ("acceptance.0", {**GATE, "passed": True, "status": "failed"}, "has the status 'failed', but passed is true"),
    ("acceptance.0.status", "worse", "'worse' is not known here"),
    ("sources", {"weights": "abc"}, "'weights' needs a sha256"),
    ("members.model/openvino.bin.sha256", "A" * 64, "64 lower-case hex"),
    ("members.model/openvino.bin.size_bytes", -1, "must not be negative"),
    ("members.golden/other", {"sha256": "0" * 64, "size_bytes": 0}, "nothing uses the member 'golden/other'"),
    ("members.other", {"sha256": "0" * 64, "size_bytes": 0}, "nothing uses the member 'other'"),
    ("members.report/../a", {"sha256": "0" * 64, "size_bytes": 0}, "member name 'report/../a' is not allowed"),
    ("members.manifest.json", {"sha256": "0" * 64, "size_bytes": 0}, "'manifest.json' is there twice"),
]


@pytest.mark.parametrize(
    ("path", "value", "says"), CONTRADICTIONS, ids=[f"{path}={json.dumps(value)[-30:]}" for path, value, _ in CONTRADICTIONS]
)
def test_contradictions_are_refused(path, value, says):
    """A value that no device could act on is refused, with its reason."""
    if path == "members.manifest.json":
        table = tiny_table()
        table["members"]["manifest.json"] = value
    elif path.startswith("members.model/openvino.bin"):
        table = tiny_table()
        table["members"]["model/openvino.bin"][path.rsplit(".", 1)[1]] = value
    elif path.startswith("members."):
        table = tiny_table()
        table["members"][path.removeprefix("members.")] = value
    else:
        table = edited(path, value)
    with pytest.raises(BundleError) as caught:
        parse(manifest_bytes(table), where="x.edgekit")
    assert says in caught.value.message
    assert caught.value.message.startswith("x.edgekit: manifest.json")


def test_reports_need_no_user():
    """A member under report/ is for people, and may be there without an engine using it."""
    table = edited("accepted", True)
    table["members"]["report/more.html"] = {"sha256": "0" * 64, "size_bytes": 3}
    assert "report/more.html" in parse(manifest_bytes(table), where="x").members


def test_one_logit_is_enough_for_a_binary_model():
    """A binary model may have one output, and then one map."""
    table = edited("engines.0.outputs", 1)
    table["cam"] |= {"maps": 1, "bias": [0.0]}
    assert parse(manifest_bytes(table), where="x").engines[0].outputs == 1


def test_engines_must_have_the_same_number_of_outputs():
    """Two engines of one model cannot differ in what they compute."""
    first = tiny_manifest().engines[0]
    gates = (Gate(name="flips", value=0.0, bound=0.5, passed=True),)
    with pytest.raises(ValueError, match="differ in their number of outputs"):
        tiny_manifest(
            engines=(first, dataclasses.replace(first, name="onnxruntime", acceptance=gates, outputs=1)), cam=None, cam_reason="none"
        )


def test_a_refused_model_may_say_so():
    """A bundle with a failed gate is valid where it is marked as not accepted."""
    table = edited("acceptance.0", {**GATE, "passed": False})
    table["accepted"] = False
    assert not parse(manifest_bytes(table), where="x").accepted


@pytest.mark.parametrize(
    ("passed", "stated", "status"),
    [(True, None, "passed"), (False, None, "failed"), (True, "not demonstrated", "not demonstrated"), (False, "failed", "failed")],
)
def test_a_gate_says_what_it_came_to(passed, stated, status):
    """Let through on too few frames is a status of its own, and a status that is left out follows from `passed`."""
    assert Gate(name="auc", value=0.0, bound=-0.01, passed=passed, status=stated).status == status


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none(broken):
    """NaN and infinity are refused where a manifest is made in code, not only where it is read."""
    with pytest.raises(ValueError, match="temperature"):
        Decision(temperature=broken, thresholds={})
    with pytest.raises(ValueError, match="threshold"):
        Decision(temperature=1.0, thresholds={"a": broken})
    with pytest.raises(ValueError, match="finite"):
        Gate(name="auc", value=broken, bound=0.0, passed=True)
    with pytest.raises(ValueError, match="finite"):
        Gate(name="auc", value=None, bound=broken, passed=True)
    sound = {"rows": 1, "columns": 1, "maps": 1, "kind": "pooled-linear", "bias": (0.0,), "tolerance": 0.0, "scale": 1.0}
    sound |= {"golden": {"openvino": "golden/maps.npy"}, "golden_tolerance": {"openvino": 0.0}}
    golden = ("golden_tolerance", {"openvino": broken})
    for name, value in (("bias", (broken,)), ("tolerance", broken), ("scale", broken), golden):
        with pytest.raises(ValueError, match=name):
            CamSpec(**{**sound, name: value})


def test_a_label_may_be_in_any_language():
    """Text is Unicode: what is refused is only what would act on a terminal."""
    table = edited("output.labels", ["gutartig", "мелкоклеточный"])
    table["output"]["positive"], table["decision"]["thresholds"] = "мелкоклеточный", {}
    data = manifest_bytes(table)
    assert "мелкоклеточный".encode() in data
    assert serialize(parse(data, where="x")) == data


@pytest.mark.parametrize("text", ["\x00", "a\n", "\x7f", "\x9b2J", "\u202eevil", "\u2028"])
def test_text_that_acts_on_a_terminal(text):
    """Control characters are refused in values and in keys alike."""
    for path, value in (("cam_reason", text), ("made_with", {text: "1"})):
        with pytest.raises(BundleError, match="cannot be printed") as caught:
            parse(json.dumps(edited(path, value)).encode(), where="x")
        assert caught.value.message.isprintable()


@pytest.mark.parametrize(("name", "value"), [("max_manifest_bytes", None), ("max_manifest_depth", 4), ("max_text_characters", 64)])
def test_limits(name, value):
    """The tiny manifest is read at each limit, and not one below."""
    data = manifest_bytes(tiny_table())
    value = len(data) if value is None else value
    parse(data, where="x", limits=Limits(**{name: value}))
    with pytest.raises(BundleError):
        parse(data, where="x", limits=Limits(**{name: value - 1}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(value=JSON, key=st.sampled_from(sorted(tiny_table())))
def test_any_value_in_any_place_is_read_or_refused(value, key):
    """No JSON value in any top-level place raises anything but the bundle's error."""
    with contextlib.suppress(BundleError):
        parse(json.dumps({**tiny_table(), key: value}).encode(), where="x")


@given(data=st.binary(max_size=60))
def test_noise_is_refused(data):
    """Bytes that are no manifest raise the bundle's error and no other."""
    with pytest.raises(BundleError):
        parse(data, where="x")


@given(
    temperature=st.floats(min_value=0.01, max_value=100),
    thresholds=st.dictionaries(st.sampled_from(["benign", "malignant"]), st.floats(0, 1)),
    bias=st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False)),
    settings=st.dictionaries(st.text("aäλ_", max_size=5), st.text("aäλ ", max_size=5), max_size=3),
)
def test_round_trip(temperature, thresholds, bias, settings):
    """What is written is read back, to the last bit of every number."""
    base = tiny_manifest()
    listed = {name: Member(sha256="0" * 64, size_bytes=len(data)) for name, data in tiny_members().items()}
    manifest = dataclasses.replace(
        base,
        decision=Decision(temperature=temperature, thresholds=thresholds),
        cam=dataclasses.replace(base.cam, bias=bias),
        engines=(dataclasses.replace(base.engines[0], settings=settings),),
        members=listed,
    )
    assert parse(serialize(manifest), where="x") == manifest
