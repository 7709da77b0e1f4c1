"""What `edgekit build` keeps of a build that goes wrong, and what it takes for an answer."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from trt_device import Progress, engines_of_the_bundle, install, numpy_engine, write_built_bundle

from edgekit.bundle.reader import open_bundle
from edgekit.errors import OutputError, TargetError
from edgekit.profiler import engine_choice
from edgekit.profiler.clock import Budget
from edgekit.runtime.classifier import load
from edgekit.runtime.engines import cache_files
from edgekit.runtime.engines.base import EngineNotBuiltError
from edgekit.runtime.engines.engine_cache import EngineCache

QUICK = Budget(seconds=0.0, min_samples=40, max_seconds=20.0)


def choose(path, *, again=False, progress=None):
    return engine_choice.choose(open_bundle(path), EngineCache(), progress or Progress(), budget=QUICK, again=again)


def statuses(outcome):
    return [(one.engine, one.status, one.earlier) for one in outcome.tried]


@pytest.fixture
def path(tmp_path):
    return write_built_bundle(tmp_path / "x.edgekit")


def prepared(monkeypatch, tmp_path, **engines):
    return install(monkeypatch, tmp_path / "cache", engine=engines_of_the_bundle(**engines))


def no_room_for(monkeypatch, *endings):
    """A disk that has no room for files with these endings."""
    real = cache_files.write

    def write(path, content):
        if path.suffix in endings:
            raise OutputError(f"{path} cannot be written: No space left on device")
        real(path, content)

    monkeypatch.setattr(cache_files, "write", write)


@pytest.mark.parametrize("endings", [(".plan",), (".plan", ".json")], ids=["plans", "anything"])
def test_a_full_disk_takes_no_engine_away(monkeypatch, tmp_path, path, endings):
    """Where a damaged plan cannot be written anew, the engine is untried with the reason, and the other goes on answering."""
    device = prepared(monkeypatch, tmp_path, float16=numpy_engine(seconds=0.004))
    assert choose(path).order == ("tensorrt-int8", "tensorrt-fp16")
    (plan,) = device.cache.glob("tensorrt-int8-*.plan")
    plan.write_bytes(b"x")
    with monkeypatch.context() as full:
        no_room_for(full, *endings)
        if ".json" in endings:
            with pytest.raises(OutputError, match="choice-"):
                choose(path)
        else:
            outcome = choose(path)
            assert statuses(outcome) == [("tensorrt-int8", "NOT RUN", False), ("tensorrt-fp16", "PASS", True)]
            assert outcome.order == ("tensorrt-fp16",)
            assert "No space left on device" in outcome.tried[0].reason
        assert load(path).engine_name == "tensorrt-fp16"
    assert statuses(choose(path)) == [("tensorrt-int8", "PASS", False), ("tensorrt-fp16", "PASS", True)]
    assert load(path).engine_name == "tensorrt-int8"


def test_a_build_that_stops_half_way_takes_no_engine_away(monkeypatch, tmp_path, path):
    """A build that is interrupted once the new plan is written leaves the other engine answering; the new plan, which nobody tried, does not answer."""
    device = prepared(monkeypatch, tmp_path, float16=numpy_engine(seconds=0.004))
    choose(path)
    (plan,) = device.cache.glob("tensorrt-int8-*.plan")
    plan.write_bytes(b"x")
    real = device.world.plan
    # A builder does not give the same bytes twice.
    monkeypatch.setattr(type(device.world), "plan", lambda _, content: real({**content, "again": True}))

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(engine_choice.selftest, "check", interrupted)
        with pytest.raises(KeyboardInterrupt):
            choose(path)
    assert plan.read_bytes() != b"x"
    classifier = load(path)
    assert classifier.engine_name == "tensorrt-fp16"
    assert "is not the one that reproduced the golden frames here" in classifier.engine_notes[0]


def test_a_choice_that_names_no_plan_lets_none_answer(monkeypatch, tmp_path, path):
    """What may answer is the plan that the choice names; where it names none, no plan is opened."""
    device = prepared(monkeypatch, tmp_path)
    choose(path)
    (choice,) = device.cache.glob("choice-*.json")
    document = json.loads(choice.read_text())
    choice.write_text(json.dumps({**document, "plans": dict.fromkeys(document["plans"], "")}))
    assert load(path).engine_name == "openvino"


def failing(error):
    """An engine that runs the frame it is opened with and fails on every other one."""
    right = numpy_engine()

    def compute(taken):
        pixels = taken["frame"]
        ramp = np.arange(pixels.size, dtype=np.uint32).astype(np.uint8).reshape(pixels.shape)
        if np.array_equal(pixels, ramp):
            return right.compute(taken)
        raise error

    return dataclasses.replace(right, compute=compute)


def test_a_failure_on_a_frame_is_not_a_verdict(monkeypatch, tmp_path, path):
    """An engine that gave no answer was not seen to differ: it is tried again by the next build, without being asked."""
    device = prepared(monkeypatch, tmp_path, int8=failing(TargetError("cuStreamSynchronize: launch timed out")))
    outcome = choose(path)
    assert statuses(outcome) == [("tensorrt-int8", "NOT RUN", False), ("tensorrt-fp16", "PASS", False)]
    assert (outcome.tried[0].reason, outcome.tried[0].max_difference) == ("cuStreamSynchronize: launch timed out", None)
    with pytest.raises(EngineNotBuiltError, match="not built and tried here yet: cuStreamSynchronize"):
        load(path, engine="tensorrt-int8")
    device.world.engines.update(engines_of_the_bundle())
    assert statuses(choose(path)) == [("tensorrt-int8", "PASS", False), ("tensorrt-fp16", "PASS", True)]
    assert (device.cuda.live, device.cuda.users) == ([], 0)


def test_a_failure_on_a_frame_takes_no_engine_away(monkeypatch, tmp_path, path):
    """With --again an engine that passed and now gives no answer goes on: what was seen of it stands, and a note says so."""
    device = prepared(monkeypatch, tmp_path, float16=numpy_engine(seconds=0.004))
    choose(path)
    device.world.engines.update(engines_of_the_bundle(int8=failing(TargetError("launch timed out"))))
    outcome = choose(path, again=True)
    assert [one.status for one in outcome.tried] == ["NOT RUN", "PASS"]
    assert outcome.order == ("tensorrt-int8", "tensorrt-fp16")
    assert outcome.notes == ("tensorrt-int8 could not be tried, so what an earlier build found of it stands: launch timed out",)


@pytest.mark.parametrize("again", [False, True])
def test_an_answer_that_is_no_number_is_a_verdict(monkeypatch, tmp_path, path, again):
    """NaN was seen: the engine is refused for good, also where it passed before."""
    device = prepared(monkeypatch, tmp_path, **({} if again else {"int8": numpy_engine(off=float("nan"))}))
    if again:
        choose(path)
        device.world.engines.update(engines_of_the_bundle(int8=numpy_engine(off=float("nan"))))
    outcome = choose(path, again=again)
    assert statuses(outcome) == [("tensorrt-int8", "FAIL", False), ("tensorrt-fp16", "PASS", False)]
    assert (outcome.order, load(path).engine_name) == (("tensorrt-fp16",), "tensorrt-fp16")
    assert statuses(choose(path)) == [("tensorrt-int8", "FAIL", True), ("tensorrt-fp16", "PASS", True)]
