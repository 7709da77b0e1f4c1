"""What a manifest says of a recurrent classifier's state."""

from __future__ import annotations

import dataclasses

import pytest
from device_bundles import write_device_bundle

from edgekit.bundle.manifest import StateSpec
from edgekit.bundle.manifest_json import parse, serialize
from edgekit.bundle.reader import open_bundle
from edgekit.errors import BundleError


@pytest.fixture
def manifest(tmp_path):
    return open_bundle(write_device_bundle(tmp_path / "x.edgekit", recurrent=True)).manifest


def test_the_manifest_comes_back_as_it_was(manifest):
    """A state survives the way through JSON."""
    assert manifest.state == StateSpec(shape=(1, 2), golden={"openvino": "golden/states.npy"}, tolerance={"openvino": 1e-3})
    assert parse(serialize(manifest), where="x") == manifest


@pytest.mark.parametrize("shape", [(), (0,), (1, -1), (1,) * 5, (1, 2**20 + 1)])
def test_shapes_that_are_none(shape):
    """No axis, too many, an empty one, or more elements than a device should be asked for."""
    with pytest.raises(ValueError, match="a state has 1 to 4 axes"):
        StateSpec(shape=shape, golden={}, tolerance={})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tolerance": {}}, "must name the same engines"),
        ({"tolerance": {"openvino": -1.0}}, "must not be negative"),
        ({"tolerance": {"openvino": float("inf")}}, "must not be negative"),
    ],
)
def test_tolerances(manifest, changes, says):
    """Every engine with golden states has a tolerance that is one."""
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(manifest.state, **changes)


def test_every_engine_has_golden_states(manifest):
    """An engine without them could not be checked."""
    with pytest.raises(ValueError, match="state has golden states"):
        dataclasses.replace(manifest, state=StateSpec(shape=(1, 2), golden={}, tolerance={}))


def test_golden_states_are_members(tmp_path):
    """A member that is named is there."""
    with pytest.raises((ValueError, BundleError), match=r"golden/states\.npy"):
        write_device_bundle(tmp_path / "x.edgekit", recurrent=True, more={"golden/states.npy": None})
