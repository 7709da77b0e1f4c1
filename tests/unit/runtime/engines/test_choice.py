"""The order in which engines are tried, and which of them may not answer here."""

from __future__ import annotations

import dataclasses
import json
import sys

import device_onnx
import numpy as np
import pytest
import trt_device
from device_bundles import frame, logits_of, write_device_bundle
from fake_cuda import ORIN
from trt_device import MODELS, Progress, choose, engines_of_the_bundle, install, numpy_engine, prepared, statuses, write_built_bundle

import edgekit
from edgekit.bundle.reader import open_bundle
from edgekit.errors import BundleError, MissingEngineError, OutputError, TargetError
from edgekit.profiler import engine_choice
from edgekit.runtime.classifier import load
from edgekit.runtime.engines import cache_files, tensorrt_build
from edgekit.runtime.engines import cuda as cuda_layer
from edgekit.runtime.engines.base import EngineNotBuiltError
from edgekit.runtime.engines.engine_cache import EngineCache
from edgekit.runtime.engines.tensorrt_engine import TensorRtEngine


@pytest.fixture
def path(tmp_path):
    return write_built_bundle(tmp_path / "x.edgekit")


def test_the_faster_engine_answers(monkeypatch, tmp_path, path):
    """Of two that reproduce the golden frames the faster one answers, although the manifest has it second."""
    prepared(monkeypatch, tmp_path, int8=numpy_engine(seconds=0.005))
    outcome = choose(path)
    assert outcome.order == ("tensorrt-fp16", "tensorrt-int8")
    assert [one.status for one in outcome.tried] == ["PASS", "PASS"]
    assert outcome.tried[0].latency_ms > 5 > outcome.tried[1].latency_ms > 0
    prediction = edgekit.load(path).predict(frame())
    assert (prediction.engine, prediction.engine_notes) == ("tensorrt-fp16", ())
    np.testing.assert_allclose(list(prediction.logits.values()), logits_of(frame(), 2), atol=1e-4)


def test_without_a_difference_the_manifests_order_stands(monkeypatch, tmp_path, path):
    """An engine is not preferred for a difference that the timing cannot tell from noise."""
    prepared(monkeypatch, tmp_path, int8=numpy_engine(seconds=0.004), float16=numpy_engine(seconds=0.004))
    monkeypatch.setattr(engine_choice.clock, "measure_pair", equal)
    assert choose(path).order == ("tensorrt-int8", "tensorrt-fp16")


def equal(a, b, budget, *, on_progress):
    """A measurement in which the first is a little faster, and the interval says that it may not be."""
    series = engine_choice.clock.Samples(durations_ns=np.full(40, 1000), starts_ns=np.arange(40))
    return engine_choice.clock.Comparison(a=series, b=series, excluded=0, ratio=0.99, low=0.97, high=1.01, steady=True)


def test_a_fast_engine_that_differs_never_answers(monkeypatch, tmp_path, path):
    """An engine that does not reproduce the golden frames here is passed over with the reason, however fast it is, and its plan stays unused."""
    prepared(monkeypatch, tmp_path, int8=numpy_engine(off=0.5), float16=numpy_engine(seconds=0.005))
    outcome = choose(path)
    assert outcome.order == ("tensorrt-fp16",)
    assert outcome.tried[0].status == "FAIL"
    assert outcome.tried[0].latency_ms is None
    assert outcome.tried[0].max_difference == pytest.approx(0.5, abs=1e-4)
    assert outcome.tried[1].latency_ms > 5
    classifier = load(path)
    assert classifier.engine_name == "tensorrt-fp16"
    assert classifier.engine_notes == []


def test_where_no_built_engine_may_answer_the_next_of_the_bundle_does(monkeypatch, tmp_path, path):
    """With both refused, OpenVINO of the same bundle answers, and every answer says why."""
    prepared(monkeypatch, tmp_path, int8=numpy_engine(off=0.5), float16=numpy_engine(off=float("nan")))
    assert choose(path).order == ()
    prediction = load(path).predict(frame())
    assert prediction.engine == "openvino"
    assert [note.partition(": ")[0] for note in prediction.engine_notes] == ["tensorrt-int8", "tensorrt-fp16"]
    assert "refused when it was built here: this machine's arithmetic differs" in prediction.engine_notes[0]
    assert "NaN or infinite" in prediction.engine_notes[1]
    np.testing.assert_allclose(list(prediction.logits.values()), logits_of(frame(), 2), atol=1e-4)


def test_an_engine_that_cannot_be_built_is_told(monkeypatch, tmp_path, path):
    """A build that fails is one engine's failure: the other is tried and answers."""
    files = engines_of_the_bundle()
    install(monkeypatch, tmp_path / "cache", engine=dict(list(files.items())[1:]))
    outcome = choose(path)
    assert (outcome.tried[0].status, outcome.tried[0].built, outcome.order) == ("NOT RUN", None, ("tensorrt-fp16",))
    assert "refuses the model" in outcome.tried[0].reason


def test_a_built_plan_that_was_not_tried_does_not_answer(monkeypatch, tmp_path, path):
    """A plan in the cache is not enough: without the record of its golden frames the next engine answers."""
    device = prepared(monkeypatch, tmp_path)
    choose(path)
    (choice,) = device.cache.glob("choice-*.json")
    choice.unlink()
    classifier = load(path)
    assert classifier.engine_name == "openvino"
    assert all("were not built and tried on this device yet" in note for note in classifier.engine_notes)
    assert len(classifier.engine_notes) == 2


def test_after_an_update_the_next_engine_answers_until_it_is_built_again(monkeypatch, tmp_path, path):
    """Plans and choices of another TensorRT do not count; building again makes them count."""
    prepared(monkeypatch, tmp_path)
    choose(path)
    assert load(path).engine_name.startswith("tensorrt")
    install(monkeypatch, tmp_path / "cache", "10.16", engine=engines_of_the_bundle())
    classifier = load(path)
    assert classifier.engine_name == "openvino"
    assert "tried with tensorrt 10.3.0, here 10.16" in classifier.engine_notes[0]
    choose(path)
    assert load(path).engine_name.startswith("tensorrt")


def test_a_damaged_plan_gives_way_to_the_next_engine(monkeypatch, tmp_path, path):
    """A plan that was changed after it was tried is not run: the next in order answers, with the reason."""
    device = prepared(monkeypatch, tmp_path, int8=numpy_engine(seconds=0.005))
    assert choose(path).order[0] == "tensorrt-fp16"
    (plan,) = device.cache.glob("tensorrt-fp16-*.plan")
    plan.write_bytes(plan.read_bytes()[:-1] + b"x")
    classifier = load(path)
    assert classifier.engine_name == "tensorrt-int8"
    assert classifier.engine_notes == [
        "tensorrt-fp16: tensorrt-fp16 is not built on this device: the plan is not the one that was built (sha256)"
    ]


def test_without_tensorrt_the_next_engine_answers(monkeypatch, tmp_path, path):
    """On a machine without TensorRT the bundle's other engine answers, and says what is missing."""
    prepared(monkeypatch, tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    classifier = load(path)
    assert classifier.engine_name == "openvino"
    assert all("TensorRT cannot be loaded" in note for note in classifier.engine_notes)


def test_a_cache_that_others_may_write_to_gives_way_to_the_next_engine(monkeypatch, tmp_path, path):
    """Nothing is loaded from such a folder."""
    device = prepared(monkeypatch, tmp_path)
    choose(path)
    device.cache.chmod(0o777)
    classifier = load(path)
    assert classifier.engine_name == "openvino"
    assert "others than its owner may write" in classifier.engine_notes[0]


def test_who_names_an_engine_gets_that_one_or_an_error(monkeypatch, tmp_path, path):
    """There is no way round for an engine that was asked for by its name."""
    prepared(monkeypatch, tmp_path)
    with pytest.raises(TargetError, match="were not built and tried on this device yet"):
        load(path, engine="tensorrt-int8")
    choose(path)
    assert load(path, engine="tensorrt-int8").engine.describe()["name"] == "tensorrt-int8"


def test_where_nothing_runs_every_reason_is_told(monkeypatch, tmp_path):
    """One error names each engine and why; its hint is the remedy."""
    prepared(monkeypatch, tmp_path)
    path = write_built_bundle(tmp_path / "x.edgekit", fallback=False)
    with pytest.raises(TargetError, match=r"no engine of the bundle runs here: tensorrt-int8: .*; tensorrt-fp16: ") as caught:
        load(path)
    assert "edgekit build BUNDLE" in caught.value.hint
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingEngineError, match="TensorRT cannot be loaded"):
        load(path)


def test_a_bundle_without_such_engines(monkeypatch, tmp_path):
    """There is nothing to build in a bundle for a PC, and its engines are tried as they are listed without a look at the cache."""
    prepared(monkeypatch, tmp_path)
    path = write_device_bundle(tmp_path / "x.edgekit")
    with pytest.raises(TargetError, match="no engine that is built on the device, only openvino"):
        choose(path)
    assert load(path).engine_notes == []


def test_what_is_missing_is_not_a_failed_engine(monkeypatch, tmp_path, path):
    """Without TensorRT nothing is written down: there is nothing wrong with the engines."""
    device = prepared(monkeypatch, tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingEngineError):
        choose(path)
    assert not device.cache.exists()


def test_a_plan_that_contradicts_the_manifest_is_no_reason_for_another_engine(monkeypatch, tmp_path, path):
    """A model of another shape than its manifest says is a wrong bundle, not a device that cannot run it."""
    prepared(monkeypatch, tmp_path)
    choose(path)
    other = open_bundle(write_built_bundle(tmp_path / "y.edgekit", fault="map-not-listed"))
    device = tensorrt_build.this_device()
    EngineCache().store_choice(other.digest, device, EngineCache().load_choice(open_bundle(path).digest, device))
    with pytest.raises(BundleError, match="computes maps of the shape"):
        load(other.path)


def test_everything_is_given_back(monkeypatch, tmp_path, path):
    """After building, trying and timing, no memory of the GPU is held."""
    device = prepared(monkeypatch, tmp_path)
    choose(path)
    assert (device.cuda.live, device.cuda.users) == ([], 0)


def test_engines_are_closed_when_they_were_tried(monkeypatch, tmp_path, path):
    """Nothing waits for the garbage collector: each engine is closed after its golden frames and after its timing."""
    prepared(monkeypatch, tmp_path)
    closed = []
    close = TensorRtEngine.close
    monkeypatch.setattr(TensorRtEngine, "close", lambda engine: (closed.append(engine.describe()["name"]), close(engine)))
    choose(path)
    assert sorted(closed) == ["tensorrt-fp16"] * 2 + ["tensorrt-int8"] * 2


def test_progress_of_every_step(monkeypatch, tmp_path, path):
    """Building, golden frames and timing are told, each with a beginning and an end."""
    prepared(monkeypatch, tmp_path)
    progress = Progress()
    choose(path, progress)
    stages = [told[1] for told in progress.told if told[0] == "begin"]
    assert stages == [
        "build tensorrt-int8",
        "golden frames of tensorrt-int8",
        "build tensorrt-fp16",
        "golden frames of tensorrt-fp16",
        "time tensorrt-fp16 against tensorrt-int8",
    ]
    assert [told[0] for told in progress.told].count("end") == len(stages)


def test_an_engine_that_was_refused_here_is_refused_by_its_name(monkeypatch, tmp_path, path):
    """Naming an engine is no way round its golden frames: the refusal is the error, and the plan is not loaded."""
    device = prepared(monkeypatch, tmp_path, int8=numpy_engine(off=0.5))
    choose(path)
    device.world.calls.clear()
    with pytest.raises(TargetError, match="refused when it was built here: this machine's arithmetic differs") as caught:
        load(path, engine="tensorrt-int8")
    assert "--again" in caught.value.hint
    assert not [name for name in device.world.names() if "deserialize" in name]
    assert load(path, engine="tensorrt-fp16").predict(frame()).engine == "tensorrt-fp16"


def test_a_named_engine_of_another_kind_looks_at_no_gpu(monkeypatch, tmp_path, path):
    """Whoever names the CPU's engine gets it where the GPU does not answer."""
    prepared(monkeypatch, tmp_path)

    def broken():
        raise AssertionError("the GPU was asked")

    monkeypatch.setattr(cuda_layer, "open_cuda", broken)
    assert load(path, engine="openvino").engine_name == "openvino"


def test_a_second_build_takes_what_the_first_found(monkeypatch, tmp_path, path):
    """Where bundle, device and plans are the same, nothing is built, run, timed or written, and each engine is said to be an earlier finding."""
    device = prepared(monkeypatch, tmp_path, int8=numpy_engine(off=0.5))
    first = choose(path)
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in device.cache.iterdir()}
    device.world.calls.clear()
    device.cuda.fail = {"host_alloc"}
    progress = Progress()
    second = choose(path, progress)
    assert (first.order, second.order) == (("tensorrt-fp16",), ("tensorrt-fp16",))
    assert statuses(second) == [("tensorrt-int8", "FAIL", True), ("tensorrt-fp16", "PASS", True)]
    assert [one.latency_ms for one in second.tried] == [one.latency_ms for one in first.tried]
    assert {told[2] for told in progress.told if told[0] == "begin"} == {True}
    assert device.world.names() == []
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in device.cache.iterdir()} == before


@pytest.mark.parametrize("again", [False, True])
def test_a_build_that_goes_wrong_takes_no_working_engine_away(monkeypatch, tmp_path, path, again):
    """Where the GPU has no memory for a moment, an engine that passed with the plan that is still there goes on answering, also after --again."""
    device = prepared(monkeypatch, tmp_path, int8=numpy_engine(seconds=0.004))
    assert choose(path).order == ("tensorrt-fp16", "tensorrt-int8")
    device.cuda.fail = {"host_alloc"}
    outcome = choose(path, again=again)
    assert outcome.order == ("tensorrt-fp16", "tensorrt-int8")
    assert [one.status for one in outcome.tried] == (["NOT RUN"] * 2 if again else ["PASS"] * 2)
    assert [note.partition(" ")[0] for note in outcome.notes] == (["tensorrt-int8", "tensorrt-fp16"] if again else [])
    device.cuda.fail = set()
    assert (load(path).engine_name, load(path).engine_notes) == ("tensorrt-fp16", [])
    assert statuses(choose(path)) == [("tensorrt-int8", "PASS", True), ("tensorrt-fp16", "PASS", True)]


def test_again_finds_what_has_changed(monkeypatch, tmp_path, path):
    """With --again an engine that does not reproduce the golden frames any more is refused, though an earlier build saw it pass; its plan is kept."""
    device = prepared(monkeypatch, tmp_path)
    choose(path)
    device.world.engines.update(engines_of_the_bundle(int8=numpy_engine(off=0.5)))
    assert len(choose(path).order) == 2
    outcome = choose(path, again=True)
    assert statuses(outcome) == [("tensorrt-int8", "FAIL", False), ("tensorrt-fp16", "PASS", False)]
    assert outcome.tried[0].built.cached
    assert (outcome.order, load(path).engine_name) == (("tensorrt-fp16",), "tensorrt-fp16")


def test_what_could_not_be_tried_is_tried_the_next_time(monkeypatch, tmp_path, path):
    """NOT RUN does not last: the next build tries that engine, and leaves the one that passed alone."""
    device = prepared(monkeypatch, tmp_path)
    right = dict(device.world.engines)
    device.world.engines.pop(MODELS["tensorrt-int8"])
    assert statuses(choose(path)) == [("tensorrt-int8", "NOT RUN", False), ("tensorrt-fp16", "PASS", False)]
    with pytest.raises(EngineNotBuiltError, match=r"not built and tried here yet: TensorRT 10\.3\.0 refuses the model"):
        load(path, engine="tensorrt-int8")
    device.world.engines.update(right)
    outcome = choose(path)
    assert statuses(outcome) == [("tensorrt-int8", "PASS", False), ("tensorrt-fp16", "PASS", True)]
    assert set(outcome.order) == {"tensorrt-int8", "tensorrt-fp16"}


def test_an_engine_whose_plan_changed_is_tried_again(monkeypatch, tmp_path, path):
    """An earlier finding holds for its plan: where that is damaged, the engine is built and tried, and the other's finding stays."""
    device = prepared(monkeypatch, tmp_path)
    choose(path)
    (plan,) = device.cache.glob("tensorrt-int8-*.plan")
    plan.write_bytes(b"x")
    assert statuses(choose(path)) == [("tensorrt-int8", "PASS", False), ("tensorrt-fp16", "PASS", True)]
    assert load(path).engine_notes == []


def edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


SPOILT = {
    "tried-of-another-version": lambda found: found.update(tried=[{"engine": "tensorrt-int8"}]),
    "tried-says-otherwise": lambda found: found["tried"][0].update(status="FAIL"),
    "another-plan": lambda found: found["plans"].update({"tensorrt-int8": "0" * 64}),
    "another-entry": lambda found: found["entries"].update({"tensorrt-int8": "tensorrt-int8-x"}),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_an_earlier_finding_that_does_not_fit_is_none(monkeypatch, tmp_path, path, fault):
    """A choice in which anything of an engine does not fit makes that engine be tried again."""
    device = prepared(monkeypatch, tmp_path)
    choose(path)
    edit(next(device.cache.glob("choice-*.json")), SPOILT[fault])
    assert statuses(choose(path))[0] == ("tensorrt-int8", "PASS", False)


def test_only_the_plan_that_was_tried_answers(monkeypatch, tmp_path, path):
    """A whole plan with a fitting sidecar that is not the one of the golden frames is not loaded."""
    device = prepared(monkeypatch, tmp_path)
    choose(path)
    edit(next(device.cache.glob("choice-*.json")), lambda found: found["plans"].update(dict.fromkeys(found["plans"], "0" * 64)))
    device.world.calls.clear()
    classifier = load(path)
    assert classifier.engine_name == "openvino"
    assert "is not the one that reproduced the golden frames here" in classifier.engine_notes[0]
    assert not [name for name in device.world.names() if "deserialize" in name]


def test_two_power_modes_keep_a_choice_each(monkeypatch, tmp_path, path):
    """A build in another mode leaves the choice of the first as it was; going back needs no build."""
    device = prepared(monkeypatch, tmp_path)
    choose(path)
    device.cuda.facts = dataclasses.replace(ORIN, multiprocessors=4)
    assert "tried with multiprocessors 8, here 4" in load(path).engine_notes[0]
    choose(path)
    assert load(path).engine_notes == []
    device.cuda.facts = ORIN
    assert (load(path).engine_notes, len(list(device.cache.glob("choice-*.json")))) == ([], 2)


def test_timing_that_fails_keeps_the_manifests_order(monkeypatch, tmp_path, path):
    """Engines that passed may answer though they could not be timed; why is a note, and the choice is kept."""
    prepared(monkeypatch, tmp_path)

    def fail(*_, **__):
        raise TargetError("the GPU is gone")

    monkeypatch.setattr(engine_choice.clock, "measure_pair", fail)
    progress = Progress()
    outcome = choose(path, progress)
    assert (outcome.order, outcome.notes) == (
        ("tensorrt-int8", "tensorrt-fp16"),
        ("not timed, so the manifest's order stands: the GPU is gone",),
    )
    assert ("note", outcome.notes[0]) in progress.told
    assert load(path).engine_notes == []


def test_a_cache_that_cannot_be_written_serves(monkeypatch, tmp_path, path):
    """With whole plans and their choice on a read-only disk, opening works, and so does a build, with and without --again; only a new one is an error."""
    device = prepared(monkeypatch, tmp_path)
    choose(path)

    def refuse(*_, **__):
        raise OutputError("read-only", hint="none")

    monkeypatch.setattr(cache_files, "write", refuse)
    monkeypatch.setattr(cache_files, "probe", refuse)
    assert load(path).engine_notes == []
    assert len(choose(path).order) == 2
    monkeypatch.setattr(engine_choice.clock, "measure_pair", equal)
    edit(next(device.cache.glob("choice-*.json")), lambda found: found.update(order=["tensorrt-int8", "tensorrt-fp16"]))
    assert len(choose(path, again=True).order) == 2
    device.world.engines.update(engines_of_the_bundle(int8=numpy_engine(off=0.5)))
    with pytest.raises(OutputError, match="read-only"):
        choose(path, again=True)


def test_a_model_that_asks_for_another_file_is_an_error_on_every_device(monkeypatch, tmp_path):
    """A model of the bundle that is not whole in itself is no reason for another engine, whether or not TensorRT is there."""
    prepared(monkeypatch, tmp_path)
    outside = device_onnx.field(7, device_onnx.field(5, device_onnx.field(8, "w") + device_onnx.field(14, 1)))
    monkeypatch.setitem(trt_device.MODELS, "tensorrt-int8", outside)
    path = write_built_bundle(tmp_path / "x.edgekit")
    for call in (lambda: choose(path), lambda: load(path)):
        with pytest.raises(BundleError, match="it keeps weights in another file"):
            call()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BundleError, match="it keeps weights in another file"):
        load(path)


def test_a_gpu_that_fails_while_frames_come_gives_way(monkeypatch, tmp_path, path):
    """After an error that nothing on the GPU survives, the frame is answered by the bundle's other engine, with every reason."""
    device = prepared(monkeypatch, tmp_path)
    choose(path)
    classifier = load(path)
    first = classifier.engine_name
    device.cuda.fail = {"synchronize", "free", "host_alloc"}
    prediction = classifier.predict(frame())
    assert prediction.engine == "openvino"
    assert prediction.engine_notes[0] == f"{first}: failed on a frame: synchronize: out of memory"
    assert len(prediction.engine_notes) == 2
    np.testing.assert_allclose(list(prediction.logits.values()), logits_of(frame(), 2), atol=1e-4)
    assert device.cuda.users == 0
