"""A plan of another TensorRT: what an update of the system leaves behind."""

from __future__ import annotations

import os

import pytest
from trt_device import Progress, engines_of_the_bundle, install, write_built_bundle

from edgekit.bundle.reader import open_bundle
from edgekit.profiler import cache_faults, engine_choice
from edgekit.profiler.check import FAIL, PASS
from edgekit.profiler.clock import Budget
from edgekit.runtime.engines import choice_file, tensorrt_build
from edgekit.runtime.engines.cache_keys import DeviceKey
from edgekit.runtime.engines.engine_cache import EngineCache

BUDGET = Budget(seconds=0.0, min_samples=40, max_seconds=20.0)


@pytest.fixture
def bundle(monkeypatch, tmp_path):
    """A bundle whose engines were built on a device made of the fakes."""
    install(monkeypatch, tmp_path / "cache", engine=engines_of_the_bundle())
    return open_bundle(write_built_bundle(tmp_path / "x.edgekit"))


def foreign_version(bundle):
    """The check of a plan of another version, by the engine."""
    outcome = engine_choice.choose(bundle, EngineCache(), Progress(), budget=BUDGET)
    entries = {one.engine: one.built.entry for one in outcome.tried}
    checks = {check.name: check for check in cache_faults.fault_checks(bundle, entries, EngineCache())}
    return checks["foreign-version tensorrt-int8"]


def test_what_an_update_leaves_is_not_used(bundle):
    """The plan lies there under another name, so the reason is what has changed, and the fallback answers."""
    check = foreign_version(bundle)
    assert check.status == PASS
    assert "the one that is cached was built with tensorrt 0.0.0, here 10.3.0; openvino answers instead" in check.reason


def test_a_key_without_the_version_is_seen(monkeypatch, bundle, request):
    """Where the version of TensorRT is no part of the key, the plan of another one is opened, and the check fails, whatever the user's umask is."""
    before = os.umask(0o002)
    request.addfinalizer(lambda: os.umask(before))
    right = DeviceKey.document
    monkeypatch.setattr(DeviceKey, "document", lambda key: {name: value for name, value in right(key).items() if name != "tensorrt"})
    check = foreign_version(bundle)
    assert (check.status, check.value) == (FAIL, "used")


def test_a_damaged_choice_is_no_crash(monkeypatch, bundle):
    """A choice that cannot be read stops no check."""
    copied = cache_faults._copied

    def spoilt(*arguments):
        (EngineCache().folder / choice_file.name(bundle.digest, tensorrt_build.this_device())).write_text("{")
        return copied(*arguments)

    monkeypatch.setattr(cache_faults, "_copied", spoilt)
    assert foreign_version(bundle).status == PASS
