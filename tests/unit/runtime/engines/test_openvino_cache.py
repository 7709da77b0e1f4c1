"""A model that was compiled ahead answers as the one that is compiled at opening, and nothing else is ever read in its place."""

from __future__ import annotations

import dataclasses
import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from command_line import assert_refused, edgekit
from device_bundles import frame, write_device_bundle

from edgekit.bundle.reader import open_bundle
from edgekit.errors import OutputError
from edgekit.profiler import ahead
from edgekit.runtime import selftest
from edgekit.runtime.classifier import load
from edgekit.runtime.engines import openvino_cache
from edgekit.runtime.engines.cache_keys import Entry, HostKey
from edgekit.runtime.engines.engine_cache import ENVIRONMENT, EngineCache
from edgekit.runtime.engines.openvino import OpenVinoEngine, load_library


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv(ENVIRONMENT, str(folder))
    return folder


@pytest.fixture
def path(tmp_path):
    return write_device_bundle(tmp_path / "x.edgekit")


class Silent:
    """A progress that nobody sees."""

    def __getattr__(self, name):
        return lambda *_, **__: None


def origin(path):
    with load(path) as classifier:
        return classifier.engine.describe()["model"]


def built(capfd, path):
    ran = edgekit(capfd, "build", path)
    assert ran.code == 0, ran.err
    return ran.out


def test_a_model_compiled_ahead_gives_the_same_answers(cache, path, capfd):
    """`build` keeps it, a start reads it, and every bit of logits and map is that of the model compiled at opening."""
    assert origin(path) == "compiled at opening: it was not compiled ahead"
    before = load(path).predict(frame(1))
    assert built(capfd, path).startswith("PASS  openvino; built in")
    assert origin(path) == "compiled ahead"
    after = load(path).predict(frame(1))
    assert (after.logits, after.probabilities) == (before.logits, before.probabilities)
    np.testing.assert_array_equal(after.cam, before.cam)
    assert built(capfd, path).startswith("PASS  openvino; already built")


def test_two_builds_at_the_same_time_keep_one_good_model(cache, path, monkeypatch):
    """The second waits, finds what the first has kept, and neither exports a model that came from the cache."""
    bundle, exported = open_bundle(path), []
    spec = bundle.manifest.engines[0]
    real = OpenVinoEngine.compile.__func__

    def slow(cls, *given):
        exported.append(time.sleep(0.3))
        return real(cls, *given)

    monkeypatch.setattr(OpenVinoEngine, "compile", classmethod(slow))
    with ThreadPoolExecutor(3) as threads:
        tried = list(threads.map(lambda _: ahead.compile_ahead(bundle, spec, EngineCache(), Silent()), range(3)))
    assert [one.status for one in tried] == ["PASS"] * 3
    assert len(exported) == 1
    assert origin(path) == "compiled ahead"


def test_opening_writes_nothing(cache, path):
    """Without `build` there is no folder, before and after a frame."""
    load(path).predict(frame())
    assert not cache.exists()


@pytest.mark.parametrize("part", ["payload", "key", "sidecar"])
def test_a_damaged_entry_is_not_read(cache, path, capfd, part):
    """A plan with another byte, a sidecar of another key or none: the model is compiled at opening, and `describe` says why."""
    built(capfd, path)
    plan, sidecar = next(cache.glob("*.plan")), next(cache.glob("openvino-*.json"))
    if part == "payload":
        content = bytearray(plan.read_bytes())
        content[len(content) // 2] ^= 1
        plan.write_bytes(bytes(content))
    elif part == "key":
        document = json.loads(sidecar.read_text())
        document["key"]["device"]["cpu"] = "another"
        sidecar.write_text(json.dumps(document))
    else:
        sidecar.write_text("{")
    found = origin(path)
    assert found.startswith("compiled at opening: ")
    assert {"payload": "sha256", "key": "key", "sidecar": "damaged"}[part] in found
    assert load(path).predict(frame(1)).label
    assert built(capfd, path).startswith("PASS  openvino; built in")
    assert origin(path) == "compiled ahead"


def test_what_openvino_does_not_take_is_compiled_anew(cache, path, monkeypatch):
    """An entry with the right sums that is no model, as another build of the library may leave, costs its start and no more."""
    bundle = open_bundle(path)
    spec = bundle.manifest.engines[0]
    monkeypatch.setattr(openvino_cache, "find", lambda *_: Entry(payload=b"no model", sha256="", facts={}))
    with load(path) as classifier:
        assert classifier.engine.describe()["model"].startswith("compiled at opening: the one compiled ahead is refused")
    assert selftest.check(bundle, spec).status == "PASS"


def test_a_folder_that_others_may_write_to_is_not_looked_at(cache, path, capfd):
    """The start is slower, not less safe."""
    built(capfd, path)
    cache.chmod(0o777)
    assert origin(path).startswith("compiled at opening: engines are not taken from")


def test_another_machine_or_model_has_another_key(path, monkeypatch):
    """Version, processor, instruction sets, cores, settings and both files of the model are all part of it."""
    bundle = open_bundle(path)
    spec = bundle.manifest.engines[0]
    version = load_library().__version__
    names = {openvino_cache.entry_key(spec, bundle.members, version).name, openvino_cache.entry_key(spec, bundle.members, "2027.1").name}
    more = dataclasses.replace(spec, settings={**spec.settings, "INFERENCE_NUM_THREADS": "1"})
    names.add(openvino_cache.entry_key(more, bundle.members, version).name)
    for role in spec.files:
        changed = {**bundle.members, spec.files[role]: memoryview(bytes(bundle.members[spec.files[role]]) + b" ")}
        names.add(openvino_cache.entry_key(spec, changed, version).name)
    host = openvino_cache._this_host(version)
    monkeypatch.setattr(openvino_cache.os, "sched_getaffinity", lambda _: set(range(77)))
    assert openvino_cache._this_host(version).cores == 77
    for change in ({"cpu": "x"}, {"instruction_sets": ("x",)}, {"cores": 99}, {"architecture": "x"}):
        monkeypatch.setattr(openvino_cache, "_this_host", lambda _, change=change: dataclasses.replace(host, **change))
        names.add(openvino_cache.entry_key(spec, bundle.members, version).name)
    assert len(names) == 2 + 1 + len(spec.files) + 4
    assert isinstance(host, HostKey)


def test_what_fails_its_golden_frames_is_not_kept(cache, tmp_path, capfd):
    """A bundle whose golden frames are another machine's is no better for being compiled ahead."""
    path = write_device_bundle(tmp_path / "y.edgekit", fault="golden-of-another-machine")
    ran = edgekit(capfd, "build", path)
    assert_refused(ran, "no engine of")
    assert "FAIL  openvino" in ran.out
    assert list(cache.glob("*.plan")) == []


@pytest.mark.parametrize("removable", [True, False])
def test_what_is_kept_and_fails_is_removed_or_told_to_be_there(cache, path, tmp_path, monkeypatch, capfd, removable):
    """Another bundle with the same model and other golden frames finds the model that is kept; where it cannot be removed, the reason says so."""

    def refuse(self, key):
        raise OutputError(f"{key.name} could not be removed", hint="remove it")

    built(capfd, path)
    if not removable:
        monkeypatch.setattr(EngineCache, "remove", refuse)
    ran = edgekit(capfd, "build", write_device_bundle(tmp_path / "y.edgekit", fault="golden-of-another-machine"))
    assert_refused(ran, "no engine of")
    assert ran.out.startswith("FAIL  openvino; already built")
    assert ("it is still read at a start: openvino-" in ran.out) is not removable
    assert (list(cache.glob("*.plan")) == []) is removable


def test_a_build_that_ends_before_its_golden_frames_leaves_nothing_that_answers(cache, path, monkeypatch, capfd):
    """Whatever ends it between compiling and trying; the next build begins anew."""

    def end(*_):
        raise KeyboardInterrupt

    bundle = open_bundle(path)
    with monkeypatch.context() as patched:
        patched.setattr(selftest, "check", end)
        with pytest.raises(KeyboardInterrupt):
            ahead.compile_ahead(bundle, bundle.manifest.engines[0], EngineCache(), Silent())
    assert sorted({one.suffix for one in cache.iterdir()}) == [".lock"]
    assert origin(path).startswith("compiled at opening: ")
    assert built(capfd, path).startswith("PASS  openvino; built in")


def test_an_entry_that_was_not_tried_is_not_read(cache, path, capfd):
    """Right sums are not enough: the sidecar must say that the golden frames were reproduced; a build makes it anew."""
    built(capfd, path)
    sidecar = next(cache.glob("openvino-*.json"))
    document = json.loads(sidecar.read_text())
    assert document.pop("golden_frames") == "PASS"
    sidecar.write_text(json.dumps(document))
    assert origin(path) == "compiled at opening: the one that is kept was not tried on golden frames"
    assert built(capfd, path).startswith("PASS  openvino; built in")
    assert origin(path) == "compiled ahead"


def test_a_trial_is_of_one_thread_and_ends(cache, path):
    """What another thread opens meanwhile does not read what is not kept yet, and nobody does afterwards."""
    with openvino_cache.on_trial(b"no model"):
        assert "refused" in origin(path)
        with ThreadPoolExecutor(1) as threads:
            assert threads.submit(origin, path).result() == "compiled at opening: it was not compiled ahead"
    assert origin(path) == "compiled at opening: it was not compiled ahead"


def test_what_is_not_read_back_is_told(cache, path, monkeypatch, capfd):
    """An export that cannot be loaded is not kept, and is no PASS although the golden frames are right without it."""
    monkeypatch.setattr(openvino_cache, "export", lambda _: b"no model")
    ran = edgekit(capfd, "build", path)
    assert_refused(ran, "no engine of")
    assert "what was compiled is not read back" in ran.out
    assert list(cache.glob("*.plan")) == []


def test_only_models_for_the_cpu_are_compiled_ahead(path):
    """A GPU's driver has a cache of its own, and other engines have no such export."""
    spec = open_bundle(path).manifest.engines[0]
    assert ahead.can_be_compiled_ahead(spec)
    assert not ahead.can_be_compiled_ahead(dataclasses.replace(spec, settings={**spec.settings, "DEVICE": "GPU"}))
    assert not ahead.can_be_compiled_ahead(dataclasses.replace(spec, name="onnxruntime"))
