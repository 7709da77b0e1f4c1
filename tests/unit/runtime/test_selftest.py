"""The golden frames: PASS, FAIL or NOT RUN, and why."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from bundle_builders import ARRAY_FAULTS, write_tiny_bundle
from device_bundles import TWO, maps_of, write_device_bundle
from fake_engines import FakeEngine

from edgekit.bundle.reader import open_bundle
from edgekit.errors import BundleError, TargetError
from edgekit.runtime import classifier, selftest
from edgekit.runtime.engines.base import RawOutput


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
        ("map-does-not-add-up", "FAIL", 0.5, "arithmetic differs"),
        ("golden-maps-of-another-machine", "FAIL", 0.0, "a map differs from the one that was proven"),
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
    assert found.answered is (status == "FAIL")
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


def test_golden_maps_that_do_not_fit(tmp_path):
    """Golden maps of another size are a bundle made wrongly."""
    with pytest.raises(BundleError, match=r"the golden maps \(3, 2, 4, 2\) are not \(3, 2, 4, 4\), float32 and finite"):
        check(tmp_path / "x", fault="golden-maps-of-another-size")


def test_a_bundle_from_before_golden_maps(tmp_path):
    """It opens and is compared by what it has."""
    found = check(tmp_path / "x", fault="golden-maps-left-out")
    assert (found.status, found.max_map_difference) == ("PASS", None)
    assert found.max_residual is not None


@pytest.mark.parametrize("fault", ARRAY_FAULTS)
def test_golden_members_that_are_no_arrays(tmp_path, fault):
    """A golden member that is no array is refused."""
    with pytest.raises(BundleError, match=r"golden/frames\.npy"):
        selftest.run(open_bundle(write_tiny_bundle(tmp_path / "x", fault)))


def found_by(tmp_path, change):
    """The check where the engine's answers are changed."""
    bundle = open_bundle(write_device_bundle(tmp_path / "x"))
    golden = selftest.read_golden(bundle, bundle.manifest.engines[0])
    cells = [maps_of(taken[..., 0], 2).astype(np.float32) for taken in golden.frames]
    raws = [RawOutput(logits=logits.copy(), cam=cam) for logits, cam in zip(golden.logits, cells, strict=True)]
    return selftest.compare(bundle.manifest, bundle.manifest.engines[0], golden, [change(raw) for raw in raws])


def broken_map(value):
    def change(raw):
        cam = raw.cam.copy()
        cam[0, 0, 0] += value
        return RawOutput(logits=raw.logits, cam=cam)

    return change


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        (lambda raw: raw, "PASS", ""),
        (broken_map(0.1), "FAIL", "a map does not add up to its logit: off by 0.00625 logit units, 0.0001 allowed"),
        (broken_map(float("nan")), "FAIL", "a map is not finite"),
        (broken_map(float("inf")), "FAIL", "a map is not finite"),
        (lambda raw: RawOutput(logits=raw.logits, cam=None), "FAIL", "a map is not finite"),
        (lambda raw: RawOutput(logits=raw.logits, cam=raw.cam[:, :, ::-1]), "FAIL", "a map differs from the one that was proven"),
        (lambda raw: RawOutput(logits=raw.logits + np.float32("nan"), cam=raw.cam), "FAIL", "this machine's arithmetic differs"),
    ],
)
def test_maps_are_part_of_the_golden_frames(tmp_path, change, status, says):
    """Logits that are right do not pass where a map is not finite, is missing, or is not the one that they are the mean of."""
    found = found_by(tmp_path, change)
    assert found.status == status
    assert found.reason.startswith(says) if says else not found.reason
    assert (found.max_residual is None) == ("not finite" in says or "arith" in says)


def test_answers_that_changed_are_told(tmp_path):
    """The number of golden frames with other labels is told, and is no failure while the logits are within the tolerance."""
    assert found_by(tmp_path, lambda raw: raw).label_changes == 0
    found = found_by(tmp_path, lambda raw: RawOutput(logits=raw.logits[::-1].copy(), cam=raw.cam))
    assert (found.label_changes, found.status) == (3, "FAIL")


class Broken(FakeEngine):
    """Fails on a frame."""

    def __init__(self):
        super().__init__([0.0, 0.0], np.zeros((2, 4, 4)), self.fail)

    def fail(self):
        raise TargetError("the GPU is gone")


def test_an_engine_that_fails_on_a_golden_frame_fails(tmp_path, monkeypatch):
    """FAIL, with the engine's own words; nothing is raised."""
    monkeypatch.setattr(classifier, "open_engine", lambda *_: Broken())
    found = check(tmp_path / "x")
    assert (found.status, found.reason, found.label_changes, found.answered) == ("FAIL", "the GPU is gone", None, False)
