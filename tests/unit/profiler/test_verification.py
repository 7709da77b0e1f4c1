"""What `edgekit verify` finds on a device made of the fakes, and on this machine; and what becomes of damaged plans."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys

import pytest
from command_line import files_below
from device_bundles import write_device_bundle
from other_user import as_root, let_in, other_user
from trt_device import Progress, engines_of_the_bundle, install, numpy_engine, write_built_bundle

from edgekit.bundle.reader import open_bundle
from edgekit.profiler import cache_faults, engine_choice, verification
from edgekit.profiler.check import FAIL, NOT_RUN, PASS
from edgekit.profiler.clock import Budget
from edgekit.profiler.verification import Wanted, verify
from edgekit.runtime.engines.cache_keys import Entry
from edgekit.runtime.engines.engine_cache import EngineCache
from edgekit.runtime.engines.tensorrt_engine import TensorRtEngine

# Half of the samples may be told as warm-up on a busy machine, and a median wants fifty.
QUICK = Budget(seconds=0.0, min_samples=120, max_seconds=20.0)
INT8_LAYERS = (
    {"Name": "cast", "LayerType": "Reformat", "Inputs": [{"Format/Datatype": "Row major UInt8 format"}]},
    {"Name": "c1", "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": "Row major Int8 format"}], "Weights": {"Type": "Int8"}},
    {"Name": "c2", "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": "Row major linear FP16 format"}]},
)


def with_layers(layers, **changes):
    """The hand-made graph as an engine whose inspector tells these layers."""
    return dataclasses.replace(numpy_engine(**changes), layers=layers)


def built(monkeypatch, tmp_path, *, fallback=True, **engines):
    """A device on which a bundle's engines were built, and the bundle."""
    engines.setdefault("int8", with_layers(INT8_LAYERS))
    device = install(monkeypatch, tmp_path / "cache", engine=engines_of_the_bundle(**engines))
    bundle = open_bundle(write_built_bundle(tmp_path / "x.edgekit", fallback=fallback))
    engine_choice.choose(bundle, EngineCache(), Progress(), budget=QUICK)
    return device, bundle


def found(bundle, **wanted):
    """Name to check, and the verdict."""
    result = verify(bundle, Wanted(budget=QUICK, **wanted))
    names = [check.name for check in result.checks]
    assert len(set(names)) == len(names)
    return {check.name: check for check in result.checks}, result.passed


def test_a_device_on_which_everything_passes(monkeypatch, tmp_path):
    """Every engine has its checks, each with what was found; both int8 and float16 are looked into, and the verdict is PASS."""
    _, bundle = built(monkeypatch, tmp_path)
    checks, passed = found(bundle)
    assert passed
    assert {name: check.status for name, check in checks.items() if check.status != PASS} == {}
    assert list(checks) == [
        *(
            "digests",
            "golden-frames tensorrt-int8",
            "golden-maps tensorrt-int8",
            "golden-residual tensorrt-int8",
            "golden-labels tensorrt-int8",
        ),
        *("cached-engine tensorrt-int8", "int8-share tensorrt-int8", "reformats tensorrt-int8", "latency-ms tensorrt-int8"),
        *("golden-frames tensorrt-fp16", "golden-maps tensorrt-fp16", "golden-residual tensorrt-fp16", "golden-labels tensorrt-fp16"),
        *("cached-engine tensorrt-fp16", "reformats tensorrt-fp16", "latency-ms tensorrt-fp16"),
        *("golden-frames openvino", "golden-maps openvino", "golden-residual openvino", "golden-labels openvino", "latency-ms openvino"),
        *("answering-engine", "fallback-engine"),
    ]
    assert checks["golden-frames tensorrt-int8"].value <= checks["golden-frames tensorrt-int8"].bound == 1e-3
    assert (checks["int8-share tensorrt-int8"].value, checks["reformats tensorrt-int8"].value) == (0.5, 1)
    assert checks["latency-ms tensorrt-int8"].value > 0
    assert checks["answering-engine"].value.startswith("tensorrt-")
    assert checks["fallback-engine"].value != checks["answering-engine"].value
    plan = next((tmp_path / "cache").glob("tensorrt-int8-*.plan")).read_bytes()
    assert checks["cached-engine tensorrt-int8"].value == hashlib.sha256(plan).hexdigest()


def test_the_latency_is_the_engines(monkeypatch, tmp_path):
    """An engine that takes four milliseconds is told as one that does."""
    _, bundle = built(monkeypatch, tmp_path, float16=numpy_engine(seconds=0.004))
    checks, _ = found(bundle)
    assert checks["latency-ms tensorrt-fp16"].value >= 4
    assert checks["latency-ms tensorrt-int8"].value < checks["latency-ms tensorrt-fp16"].value


def test_too_few_frames_are_no_latency(monkeypatch, tmp_path):
    """Fewer than fifty frames after the warm-up give no median."""
    bundle = open_bundle(write_device_bundle(tmp_path / "x.edgekit"))
    result = verify(bundle, Wanted(budget=Budget(seconds=0.0, min_samples=49, max_seconds=20.0)))
    check = next(check for check in result.checks if check.name == "latency-ms openvino")
    assert (check.status, check.value) == (NOT_RUN, None)
    assert "fewer than 50" in check.reason


def test_tensorrt_that_is_absent_is_not_run_and_fails(monkeypatch, tmp_path):
    """Without TensorRT each of its checks is NOT RUN with the reason, and the verdict is FAIL, though the fallback passes."""
    _, bundle = built(monkeypatch, tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    checks, passed = found(bundle, faults=True)
    assert not passed
    of_tensorrt = [check for name, check in checks.items() if "tensorrt" in name]
    assert {check.status for check in of_tensorrt} == {NOT_RUN}
    assert all(check.reason for check in of_tensorrt)
    assert "TensorRT cannot be loaded" in checks["golden-frames tensorrt-int8"].reason
    assert (checks["golden-frames openvino"].status, checks["answering-engine"].value) == (PASS, "openvino")
    assert found(bundle, allow_fallback=True)[1]


def test_a_fallback_that_is_allowed_must_still_run(monkeypatch, tmp_path):
    """With nothing left that runs, the verdict is FAIL, whatever is allowed."""
    _, bundle = built(monkeypatch, tmp_path, fallback=False)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    checks, passed = found(bundle, allow_fallback=True)
    assert not passed
    assert checks["answering-engine"].status == checks["fallback-engine"].status == NOT_RUN


def test_a_fallback_that_is_not_installed_is_no_failure(monkeypatch, tmp_path):
    """Where what the bundle is for ran, an engine after it that is not installed is NOT RUN, and the verdict is PASS."""
    _, bundle = built(monkeypatch, tmp_path)
    monkeypatch.setitem(sys.modules, "openvino", None)
    checks, passed = found(bundle)
    assert passed
    assert checks["golden-frames openvino"].status == checks["latency-ms openvino"].status == NOT_RUN


@pytest.mark.parametrize("allow_fallback", [False, True])
def test_another_answer_fails_whatever_is_allowed(monkeypatch, tmp_path, allow_fallback):
    """An engine that answers otherwise is FAIL with the difference; it is neither timed nor looked into; nothing makes that a PASS."""
    _, bundle = built(monkeypatch, tmp_path, int8=numpy_engine(off=0.5))
    checks, passed = found(bundle, allow_fallback=allow_fallback)
    assert not passed
    assert (checks["golden-frames tensorrt-int8"].status, checks["golden-frames tensorrt-int8"].value) == (FAIL, pytest.approx(0.5))
    assert checks["latency-ms tensorrt-int8"].status == checks["int8-share tensorrt-int8"].status == NOT_RUN
    assert checks["answering-engine"].value == "tensorrt-fp16"


def test_an_int8_engine_without_int8_fails(monkeypatch, tmp_path):
    """Where no layer of the int8 engine works in int8, it is not what was proven."""
    _, bundle = built(monkeypatch, tmp_path, int8=with_layers(INT8_LAYERS[2:]))
    checks, passed = found(bundle)
    assert (checks["int8-share tensorrt-int8"].status, checks["int8-share tensorrt-int8"].value, passed) == (FAIL, 0.0, False)


def test_layers_that_are_not_told_are_not_run(monkeypatch, tmp_path):
    """Where the inspector tells nothing of the layers, share and reformats are NOT RUN, and that is no failure of the engine."""
    _, bundle = built(monkeypatch, tmp_path, int8=with_layers(()))
    checks, passed = found(bundle)
    assert checks["int8-share tensorrt-int8"].status == checks["reformats tensorrt-int8"].status == NOT_RUN
    assert passed


@pytest.mark.parametrize("version", ["8.5", "10.16", "11.4"])
def test_every_version_is_looked_into(monkeypatch, tmp_path, version):
    """The share of int8 layers is found in each version's answer of the inspector."""
    device = install(monkeypatch, tmp_path / "cache", version, engine=engines_of_the_bundle(int8=with_layers(INT8_LAYERS)))
    bundle = open_bundle(write_built_bundle(tmp_path / "x.edgekit"))
    engine_choice.choose(bundle, EngineCache(), Progress(), budget=QUICK)
    checks, passed = found(bundle)
    # Before version 10 there is no float16 engine, and a bundle that lists one did not run as a whole.
    assert passed == (version != "8.5")
    assert checks["golden-frames tensorrt-fp16"].status == (NOT_RUN if version == "8.5" else PASS)
    assert checks["int8-share tensorrt-int8"].value == 0.5
    assert device.cuda.users == 0


def test_what_was_not_built_is_not_run(monkeypatch, tmp_path):
    """Before `edgekit build` TensorRT's engines are NOT RUN, and the reason names the command."""
    install(monkeypatch, tmp_path / "cache", engine=engines_of_the_bundle())
    checks, passed = found(open_bundle(write_built_bundle(tmp_path / "x.edgekit")), faults=True)
    assert not passed
    assert {check.status for name, check in checks.items() if "tensorrt" in name} == {NOT_RUN}
    assert "edgekit build BUNDLE" in checks["cached-engine tensorrt-int8"].reason


def test_a_damaged_cache_fails(monkeypatch, tmp_path):
    """A plan whose bytes are not those that were built is FAIL, not NOT RUN."""
    _, bundle = built(monkeypatch, tmp_path)
    plan = next((tmp_path / "cache").glob("tensorrt-int8-*.plan"))
    plan.write_bytes(plan.read_bytes()[:-1])
    checks, passed = found(bundle)
    assert not passed
    assert checks["cached-engine tensorrt-int8"].status == FAIL
    assert checks["golden-frames tensorrt-int8"].status == NOT_RUN


def test_faults_are_refused_and_the_cache_is_left_alone(monkeypatch, tmp_path):
    """Damaged, cut and foreign plans are refused, another engine answers, and not a byte of the real cache has changed."""
    _, bundle = built(monkeypatch, tmp_path)
    before = files_below(tmp_path / "cache")
    checks, passed = found(bundle, faults=True)
    tried = {name: check for name, check in checks.items() if name.split()[0] in cache_faults.NAMES}
    assert passed
    assert sorted(tried) == sorted(f"{fault} {engine}" for fault in cache_faults.NAMES for engine in ("tensorrt-int8", "tensorrt-fp16"))
    read_only = {tried.pop(f"{cache_faults.READ_ONLY} {engine}").status for engine in ("tensorrt-int8", "tensorrt-fp16")}
    assert read_only == {NOT_RUN if os.geteuid() == 0 else PASS}
    assert {check.status for check in tried.values()} == {PASS}
    assert "sha256" in tried["corrupt-plan tensorrt-int8"].reason
    assert "bytes" in tried["truncated-plan tensorrt-int8"].reason
    assert "tensorrt-fp16 answers instead" in tried["corrupt-plan tensorrt-int8"].reason
    assert "openvino answers instead" in tried["foreign-version tensorrt-int8"].reason
    assert files_below(tmp_path / "cache") == before


def test_an_engine_that_takes_a_damaged_plan_fails(monkeypatch, tmp_path):
    """Where the cache hands out what is not right, the fault checks see the engine open."""
    _, bundle = built(monkeypatch, tmp_path)
    right = EngineCache.load

    def trusting(self, key):
        given = right(self, key)
        name = f"{key.name}.plan"
        # An engine that is not built on the device may keep something here too; it is right as it is.
        return given if isinstance(given, Entry) or name not in whole else Entry(payload=whole[name], sha256="", facts={})

    whole = {path.name: path.read_bytes() for path in (tmp_path / "cache").glob("*.plan")}
    monkeypatch.setattr(EngineCache, "load", trusting)
    checks, passed = found(bundle, faults=True)
    assert not passed
    assert {checks[f"{fault} tensorrt-int8"].status for fault in cache_faults.FAULTS} == {FAIL}


def test_a_refusal_of_everything_proves_nothing(monkeypatch, tmp_path):
    """Where the untouched copy cannot be opened either, the faults are NOT RUN."""
    device, bundle = built(monkeypatch, tmp_path)
    entries = {name: next((tmp_path / "cache").glob(f"{name}-*.plan")).stem for name in ("tensorrt-int8", "tensorrt-fp16")}
    device.world.fail.add("deserialize")
    checks = cache_faults.fault_checks(bundle, entries, EngineCache())
    assert {check.status for check in checks} == {NOT_RUN}
    # For root nothing is read-only, so that check is not even begun.
    assert all(
        "the whole plan is not taken either" in check.reason for check in checks if not check.name.startswith(cache_faults.READ_ONLY)
    )


def test_no_path_of_the_device_is_told(monkeypatch, tmp_path):
    """Reasons that name the cache or the bundle name no folder of this machine."""
    device, bundle = built(monkeypatch, tmp_path)
    device.cache.chmod(0o777)
    checks, passed = found(bundle)
    assert not passed
    assert "others than its owner may write" in checks["cached-engine tensorrt-int8"].reason
    assert str(tmp_path) not in json.dumps([check.reason for check in checks.values()])


@pytest.mark.parametrize(("fault", "status"), [("nan-logits", FAIL), ("engine-too-old", NOT_RUN), ("", PASS)])
def test_a_bundle_of_one_engine(tmp_path, fault, status):
    """With one engine, its status decides: only PASS passes."""
    bundle = open_bundle(write_device_bundle(tmp_path / "x.edgekit", fault=fault))
    checks, passed = found(bundle)
    assert (checks["golden-frames openvino"].status, passed) == (status, status == PASS)
    assert checks["fallback-engine"].status == NOT_RUN
    assert verification.required(bundle) == (bundle.manifest.engines[0].name,)


@as_root
@pytest.mark.parametrize("spoilt", [False, True])
def test_a_cache_that_cannot_be_written_must_serve(monkeypatch, tmp_path, spoilt):
    """As the user of a service, a whole plan in a folder that nobody may write to is used; code that writes before it looks fails here."""
    _, bundle = built(monkeypatch, tmp_path)
    let_in(tmp_path)
    if spoilt:
        load = EngineCache.load
        monkeypatch.setattr(EngineCache, "load", lambda cache, key: (cache.prepare(), load(cache, key))[1])
    entries = {name: next((tmp_path / "cache").glob(f"{name}-*.plan")).stem for name in ("tensorrt-int8", "tensorrt-fp16")}
    # That check alone: OpenVINO, which the others open, does not survive the fork.
    found = other_user(lambda: cache_faults._try_read_only(bundle, bundle.manifest.engines[0], entries, EngineCache()))
    assert (found.status, found.value, found.bound) == ((FAIL, "refused", "used") if spoilt else (PASS, "used", "used"))


def with_wrong_maps(engine):
    """An engine whose logits are right and whose maps are not."""

    def compute(taken):
        given = engine.compute(taken)
        return {**given, "cam": given["cam"] + 3}

    return dataclasses.replace(engine, compute=compute)


def with_turned_maps(engine):
    """The same, with the columns of its maps the other way round: they add up and point elsewhere."""

    def compute(taken):
        given = engine.compute(taken)
        return {**given, "cam": given["cam"][..., ::-1]}

    return dataclasses.replace(engine, compute=compute)


def test_maps_that_point_elsewhere_are_told(monkeypatch, tmp_path):
    """A map that adds up to its logit and is not the one that was proven fails the golden frames too."""
    _, bundle = built(monkeypatch, tmp_path, int8=with_turned_maps(numpy_engine()))
    checks, passed = found(bundle)
    assert not passed
    assert [checks[f"{name} tensorrt-int8"].status for name in ("golden-frames", "golden-maps", "golden-residual")] == [FAIL, FAIL, PASS]
    assert checks["golden-maps tensorrt-int8"].value > checks["golden-maps tensorrt-int8"].bound == 1e-3
    off = f"{checks['golden-maps tensorrt-int8'].value:.3g}"
    reasons = [checks[f"{name} tensorrt-int8"].reason for name in ("golden-maps", "golden-residual")]
    assert reasons == [f"a map differs from the one that was proven: off by {off} logit units, 0.001 allowed", ""]
    assert "a map differs from the one that was proven" in checks["golden-frames tensorrt-int8"].reason
    assert checks["answering-engine"].value == "tensorrt-fp16"


def test_maps_that_are_wrong_are_told(monkeypatch, tmp_path):
    """An engine whose maps do not add up fails its golden frames when it is built, and is told with how far they are off."""
    _, bundle = built(monkeypatch, tmp_path, int8=with_wrong_maps(numpy_engine()))
    checks, passed = found(bundle)
    assert not passed
    assert (checks["golden-frames tensorrt-int8"].status, checks["golden-maps tensorrt-int8"].status) == (FAIL, FAIL)
    assert checks["golden-residual tensorrt-int8"].value == pytest.approx(3, abs=1e-3)
    assert "does not add up" in checks["golden-frames tensorrt-int8"].reason
    residual, maps = checks["golden-residual tensorrt-int8"], checks["golden-maps tensorrt-int8"]
    assert (residual.status, residual.reason) == (
        FAIL,
        f"a map does not add up to its logit: off by 3 logit units, {residual.bound:.3g} allowed",
    )
    assert maps.reason == "a map differs from the one that was proven: off by 3 logit units, 0.001 allowed"
    assert checks["golden-labels tensorrt-int8"].value == 0
    assert checks["answering-engine"].value == "tensorrt-fp16"


def test_maps_that_are_no_numbers_are_told(monkeypatch, tmp_path):
    """Each check of the maps fails in its own words, without a value."""
    check = verification.selftest.check

    def without_maps(bundle, spec):
        return dataclasses.replace(
            check(bundle, spec), status=FAIL, reason="a map is not finite", max_residual=None, max_map_difference=None
        )

    _, bundle = built(monkeypatch, tmp_path)
    monkeypatch.setattr(verification.selftest, "check", without_maps)
    checks, passed = found(bundle)
    assert not passed
    maps, residual = (checks[f"{name} tensorrt-int8"] for name in ("golden-maps", "golden-residual"))
    assert (maps.status, maps.value, residual.status, residual.value) == (FAIL, None, FAIL, None)
    assert maps.reason == "a map differs from the one that was proven: it is not finite, or is not there"
    assert residual.reason == "a map does not add up to its logit: it is not finite, or is not there"


def test_an_engine_that_cannot_be_freed_ends_nothing(monkeypatch, tmp_path):
    """A GPU that fails on a frame and then at everything is FAIL for its engines; verify goes on to the end, and the fallback is the answer."""
    device, bundle = built(monkeypatch, tmp_path)
    infer = TensorRtEngine._infer

    def failing(engine, tensor, state=None):
        device.cuda.fail = {"synchronize", "free"}
        try:
            return infer(engine, tensor, state)
        finally:
            device.cuda.fail = set()

    monkeypatch.setattr(TensorRtEngine, "_infer", failing)
    checks, passed = found(bundle)
    assert not passed
    assert (checks["golden-frames tensorrt-int8"].status, checks["golden-frames openvino"].status) == (FAIL, PASS)
    assert "synchronize" in checks["golden-frames tensorrt-int8"].reason
