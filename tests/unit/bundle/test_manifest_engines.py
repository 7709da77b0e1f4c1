"""A manifest of several engines: each is proven by itself, and none travels on another's proof."""

from __future__ import annotations

import dataclasses
import json

import pytest
from bundle_builders import manifest_bytes, tiny_manifest, tiny_table

from edgekit.bundle.manifest import Gate, Manifest
from edgekit.bundle.manifest_json import parse, serialize
from edgekit.errors import BundleError

PASSED = {"name": "auc", "value": 0.0, "bound": -0.01, "passed": True, "status": "passed"}
FAILED = {"name": "auc", "value": -0.5, "bound": -0.01, "passed": False, "status": "failed"}
UNSHOWN = {**PASSED, "status": "not demonstrated"}


def table(*, first=None, manifest=None, **further):
    """The tiny manifest with a second engine; what the arguments say is changed in the first engine, the manifest and the second engine."""
    made = tiny_table()
    made["engines"][0] |= first or {}
    made |= manifest or {}
    second = {
        **made["engines"][0],
        "name": "onnxruntime",
        "files": {"onnx": "model/onnxruntime.onnx"},
        "acceptance": [PASSED],
        "temperature": None,
    }
    made["engines"].append({**second, **further})
    made["golden"]["logits"]["onnxruntime"] = "golden/onnxruntime.npy"
    made["golden"]["tolerance"]["onnxruntime"] = 0.02
    made["cam"]["golden"]["onnxruntime"], made["cam"]["golden_tolerance"]["onnxruntime"] = "golden/maps.npy", 0.02
    for name in ("model/onnxruntime.onnx", "golden/onnxruntime.npy"):
        made["members"][name] = {"sha256": "0" * 64, "size_bytes": 1}
    return made


def read(made) -> Manifest:
    return parse(manifest_bytes(made), where="x")


def test_two_proven_engines_are_accepted_and_written_back():
    """Gates, temperature and order of the engines survive; the same bytes come out."""
    made = table(temperature=2.5)
    found = read(made)
    assert [engine.name for engine in found.engines] == ["openvino", "onnxruntime"]
    assert found.engines[1].temperature == 2.5
    assert found.engines[1].acceptance == (Gate(name="auc", value=0.0, bound=-0.01, passed=True),)
    assert parse(serialize(found), where="x") == found


@pytest.mark.parametrize("gates", [[], [FAILED], [PASSED, FAILED]], ids=["none", "failed", "one-of-two"])
def test_an_unproven_engine_is_in_no_accepted_bundle(gates):
    """It would answer when the first cannot, as if it had been accepted."""
    with pytest.raises(BundleError, match="accepted is true, but the engine 'onnxruntime' has a gate that was not passed, or none"):
        read(table(acceptance=gates))


def test_a_gate_that_too_few_frames_could_not_show_is_let_through_as_in_the_first():
    """Not demonstrated is a status of its own, for every engine alike."""
    assert read(table(acceptance=[UNSHOWN])).engines[1].acceptance[0].status == "not demonstrated"


def test_a_refused_bundle_may_hold_what_it_was_refused_with():
    """Marked as not accepted, it says so in every result."""
    made = table(acceptance=[FAILED], manifest={"accepted": False})
    assert not read(made).accepted


@pytest.mark.parametrize("first", [{"acceptance": [PASSED]}, {"acceptance": [FAILED]}, {"temperature": 2.0}])
def test_the_first_engine_has_no_proof_beside_the_manifests(first):
    """Two places that say the same thing could contradict each other."""
    made = table(first=first)
    with pytest.raises(BundleError, match="of the first engine are the manifest's own"):
        read(made)


@pytest.mark.parametrize("value", [0.0, 0.009, 100.1, -1.0])
def test_a_temperature_of_its_own_has_the_same_bounds(value):
    """As the decision's."""
    with pytest.raises(BundleError, match=r"temperature must be between 0\.01 and 100"):
        read(table(temperature=value))


def test_a_gate_of_an_engine_is_read_as_strictly():
    """A status that contradicts is refused wherever the gate stands."""
    with pytest.raises(BundleError, match="passed is false"):
        read(table(acceptance=[{**FAILED, "status": "passed"}]))


def test_golden_logits_of_every_engine():
    """One without could not test itself on the device."""
    made = table()
    del made["golden"]["logits"]["onnxruntime"], made["golden"]["tolerance"]["onnxruntime"], made["members"]["golden/onnxruntime.npy"]
    with pytest.raises(BundleError, match="golden has logits of"):
        read(made)


def test_golden_maps_of_every_engine():
    """Nor could one whose maps are not compared."""
    made = table()
    del made["cam"]["golden"]["onnxruntime"], made["cam"]["golden_tolerance"]["onnxruntime"]
    with pytest.raises(BundleError, match=r"cam has golden maps of \['openvino'\] for the engines \['onnxruntime', 'openvino'\]"):
        read(made)


def test_the_new_fields_may_be_left_out():
    """Bundles from before them are read as what they meant."""
    made = tiny_table()
    for key in ("temperature", "acceptance"):
        made["engines"][0].pop(key)
    made["target"].pop("instruction_sets")
    found = read(made)
    assert (found.engines[0].temperature, found.engines[0].acceptance) == (None, ())
    assert found.target.instruction_sets == ()


def test_instruction_sets_are_kept():
    """Any one of them will do on the device."""
    manifest = tiny_manifest()
    changed = dataclasses.replace(manifest, target=dataclasses.replace(manifest.target, instruction_sets=("avx512_vnni", "avx_vnni")))
    assert json.loads(serialize(changed))["target"]["instruction_sets"] == ["avx512_vnni", "avx_vnni"]
