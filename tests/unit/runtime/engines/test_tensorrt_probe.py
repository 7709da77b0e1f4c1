"""One convolution in each precision, built on the fakes: what passes, what fails, and why."""

from __future__ import annotations

import sys

import pytest
from trt_device import install, numpy_engine
from trt_fake import versions

from edgekit.errors import MissingEngineError
from edgekit.runtime.engines import cuda as cuda_layer
from edgekit.runtime.engines import probe_graph
from edgekit.runtime.engines.tensorrt_probe import FLAGS, NEEDS, probe


@pytest.mark.parametrize("version", versions())
def test_every_version_builds_every_precision(monkeypatch, tmp_path, version):
    """Each precision is built and taken back, the accelerators are counted, the GPU is given back, and the cache is not touched."""
    device = install(monkeypatch, tmp_path / "cache", version)
    found = probe()
    typed = int(version.split(".")[0]) >= 10
    assert [(one.precision, one.status) for one in found.probes] == [
        ("fp32", "PASS"),
        ("fp16", "PASS" if typed else "NOT RUN"),
        ("int8", "PASS"),
    ]
    assert all(one.seconds >= 0 and not one.reason for one in found.probes if one.status == "PASS")
    assert typed or "chooses itself where it works in fp16" in found.probes[1].reason
    assert found.dla_cores == 0
    assert device.world.names().count("Runtime.deserialize_cuda_engine") == (3 if typed else 2)
    assert (device.cuda.users, device.cache.exists()) == (0, False)


@pytest.mark.parametrize("version", ["8.6", "10.3"])
def test_a_graph_is_for_the_version(monkeypatch, tmp_path, version):
    """TensorRT before 10 gets the graphs in float32, later ones those with types."""
    asked = []
    right = probe_graph.one_convolution
    monkeypatch.setattr(probe_graph, "one_convolution", lambda name, *, typed: asked.append((name, typed)) or right(name, typed=typed))
    install(monkeypatch, tmp_path, version)
    probe()
    typed = version == "10.3"
    assert asked == [(name, typed) for name in probe_graph.PRECISIONS if typed or name != "fp16"]


def test_the_builder_may_use_what_the_precision_needs(monkeypatch, tmp_path):
    """Before version 10 the builder is allowed int8 for int8 and nothing for fp32; fp16, where it would choose the types itself, is not built."""
    device = install(monkeypatch, tmp_path, "8.6")
    probe()
    allowed = []
    for call in device.world.calls:
        if call.name == "Builder.create_builder_config":
            allowed.append([])
        if call.name == "IBuilderConfig.set_flag":
            allowed[-1].append(call.arguments["flag"].name)
    assert allowed == [[], ["INT8"]]


def test_one_precision_that_fails_does_not_hide_the_others(monkeypatch, tmp_path):
    """A graph that is refused is FAIL with the library's reason; the others are tried all the same."""
    known = {probe_graph.one_convolution(name, typed=True): numpy_engine() for name in ("fp32", "int8")}
    install(monkeypatch, tmp_path, engine=known)
    found = {one.precision: one for one in probe().probes}
    assert {name: one.status for name, one in found.items()} == {"fp32": "PASS", "fp16": "FAIL", "int8": "PASS"}
    assert "refuses the model" in found["fp16"].reason
    assert found["fp16"].seconds is None


@pytest.mark.parametrize("fail", ["builder", "parse", "build", "runtime", "deserialize"])
def test_a_library_that_does_not_work_here_fails(monkeypatch, tmp_path, fail):
    """A library that is installed and finds no kernels for this GPU is FAIL at whichever step it shows."""
    device = install(monkeypatch, tmp_path, fail=[fail])
    found = probe()
    assert [one.status for one in found.probes] == ["FAIL"] * 3
    assert all(one.reason for one in found.probes)
    assert found.dla_cores == (None if fail == "builder" else 0)
    assert device.cuda.users == 0


def test_without_the_library_nothing_was_run(monkeypatch, tmp_path):
    """Without TensorRT every precision is NOT RUN with the reason."""
    install(monkeypatch, tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    found = probe()
    assert {one.status for one in found.probes} == {"NOT RUN"}
    assert "TensorRT cannot be loaded" in found.probes[0].reason


def test_without_a_binding_of_cuda_nothing_was_run(monkeypatch, tmp_path):
    """Without a way to the GPU every precision is NOT RUN with the reason."""
    install(monkeypatch, tmp_path)

    def missing():
        raise MissingEngineError("no binding", hint="install one")

    monkeypatch.setattr(cuda_layer, "open_cuda", missing)
    found = probe()
    assert [(one.status, one.reason) for one in found.probes] == [("NOT RUN", "no binding")] * 3


def test_precisions_are_the_same_everywhere():
    """Every precision that is probed has a graph, and every engine needs one of them."""
    assert tuple(FLAGS) == probe_graph.PRECISIONS
    assert set(NEEDS.values()) <= set(FLAGS)
