"""The golden frames: PASS, FAIL or NOT RUN, and why."""

from __future__ import annotations

import sys

import pytest
from bundle_builders import ARRAY_FAULTS, write_tiny_bundle
from device_bundles import TWO, write_device_bundle

from edgekit.bundle.reader import open_bundle
from edgekit.errors import BundleError
from edgekit.runtime import selftest


def check(path, **options):
    """The one engine of a bundle on its golden frames."""
    checks = selftest.run(open_bundle(write_device_bundle(path, **options)))
    assert len(checks) == 1
    return checks[0]


@pytest.mark.parametrize(("outputs", "cam"), [(2, True), (1, True), (2, False)])
def test_the_machine_that_answers_alike_passes(tmp_path, outputs, cam):
    """Where every logit is within the tolerance, the engine passes, with the largest difference."""
    found = check(tmp_path / "x", output=TWO, outputs=outputs, cam=cam)
    assert (found.engine, found.status, found.frames, found.reason) == ("openvino", "PASS", 3, "")
    assert 0 <= found.max_difference <= found.tolerance == 1e-3


@pytest.mark.parametrize(
    ("fault", "status", "difference", "says"),
    [
        ("golden-of-another-machine", "FAIL", 0.5, "arithmetic differs"),
        ("nan-logits", "FAIL", None, "NaN or infinite logits"),
        ("engine-too-old", "NOT RUN", None, "is older than 9999.1, which the bundle was proven with; update OpenVINO"),
        ("unknown-engine", "NOT RUN", None, "did you mean 'openvino'?"),
        ("other-architecture", "NOT RUN", None, "this machine is"),
        ("map-of-another-size", "NOT RUN", None, "computes maps of the shape"),
        ("setting-that-writes", "NOT RUN", None, "CACHE_DIR"),
    ],
)
def test_what_keeps_an_engine_from_passing(tmp_path, fault, status, difference, says):
    """Another answer is FAIL; what cannot be opened is NOT RUN; both say why, in a sentence that ends."""
    found = check(tmp_path / "x", fault=fault)
    assert (found.status, found.frames) == (status, 3)
    assert found.max_difference == (None if difference is None else pytest.approx(difference, abs=1e-3))
    assert says in found.reason
    assert not found.reason.endswith("; ")


def test_an_engine_that_is_not_installed_is_not_run(tmp_path, monkeypatch):
    """A missing library is no failure of the bundle."""
    path = write_device_bundle(tmp_path / "x")
    monkeypatch.setitem(sys.modules, "openvino", None)
    found = selftest.run(open_bundle(path))[0]
    assert found.status == "NOT RUN"
    assert "edgekit-toolkit[openvino]" in found.reason


@pytest.mark.parametrize("fault", ["golden-not-finite", "golden-frames-of-another-size", "other-input-size", "other-input-colour"])
def test_golden_members_that_do_not_fit(tmp_path, fault):
    """Golden frames or logits that do not fit the manifest are a bundle made wrongly, whatever the engine says."""
    with pytest.raises(BundleError, match="the golden frames"):
        check(tmp_path / "x", fault=fault)


@pytest.mark.parametrize("fault", ARRAY_FAULTS)
def test_golden_members_that_are_no_arrays(tmp_path, fault):
    """A golden member that is no array is refused."""
    with pytest.raises(BundleError, match=r"golden/frames\.npy"):
        selftest.run(open_bundle(write_tiny_bundle(tmp_path / "x", fault)))
