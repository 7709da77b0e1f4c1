"""What `edgekit build` keeps of a build that goes wrong, and what it takes for an answer."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from trt_device import Progress, choose, engines_of_the_bundle, numpy_engine, prepared, statuses, write_built_bundle

from edgekit.errors import OutputError, TargetError
from edgekit.profiler import engine_choice
from edgekit.profiler.jetson_state import Clock, PowerMode
from edgekit.runtime.classifier import load
from edgekit.runtime.engines import cache_files
from edgekit.runtime.engines.base import EngineNotBuiltError
from edgekit.runtime.engines.choice_file import Power


@pytest.fixture
def path(tmp_path):
    return write_built_bundle(tmp_path / "x.edgekit")


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


def raising(error):
    """A function that raises, whatever it is given."""

    def call(*_, **__):
        raise error

    return call


def in_mode(monkeypatch, mode, gpu_mhz=None):
    """The device in a power mode."""
    monkeypatch.setattr(engine_choice, "this_power", lambda: Power(mode=mode, gpu_mhz=gpu_mhz))


def test_another_power_mode_is_told(monkeypatch, tmp_path, path):
    """Engines of another mode answer as before, and every build says in which one they were built and what builds them again; doing that ends it."""
    device = prepared(monkeypatch, tmp_path, float16=numpy_engine(seconds=0.004))
    in_mode(monkeypatch, "15W", 612.0)
    assert choose(path).notes == ()
    in_mode(monkeypatch, "MAXN_SUPER", 1020.0)
    plans = [next(device.cache.glob(f"{name}-*.plan")) for name in ("tensorrt-int8", "tensorrt-fp16")]
    for again in (False, True, False):
        progress = Progress()
        outcome = choose(path, again=again, progress=progress)
        assert outcome.order == ("tensorrt-int8", "tensorrt-fp16")
        assert [told[1] for told in progress.told if told[0] == "note"] == list(outcome.notes)
        for plan, note in zip(plans, outcome.notes, strict=True):
            assert note.startswith(f"{plan.name[:13]} was built in the power mode 15W, now it is MAXN_SUPER: ")
            assert f"remove {plan} and run edgekit build" in note
    plans[0].unlink()
    assert [note[:13] for note in choose(path).notes] == ["tensorrt-fp16"]
    plans[1].unlink()
    assert choose(path).notes == ()
    assert load(path).engine_notes == []


def test_an_order_of_another_power_mode_is_told(monkeypatch, tmp_path, path):
    """Back in the mode that the engines were built in, an order that was found in another one is told until they are timed again."""
    prepared(monkeypatch, tmp_path, float16=numpy_engine(seconds=0.004))
    in_mode(monkeypatch, "15W")
    choose(path)
    in_mode(monkeypatch, "25W")
    choose(path, again=True)
    in_mode(monkeypatch, "15W")
    for _ in range(2):
        assert choose(path).notes == (
            "the engines were timed in the power mode 25W, now it is 15W; edgekit build BUNDLE --again times them in this one",
        )
    assert choose(path, again=True).notes == ()
    assert choose(path).notes == ()


@pytest.mark.parametrize(("before", "now"), [("", "15W"), ("15W", ""), ("", ""), ("15W", "15W")])
def test_a_mode_that_is_not_known_is_not_another_one(monkeypatch, tmp_path, path, before, now):
    """There is no note where one of the two modes cannot be read, or where it is the same with another clock."""
    prepared(monkeypatch, tmp_path)
    in_mode(monkeypatch, before, 612.0)
    choose(path)
    in_mode(monkeypatch, now, 1020.0)
    assert choose(path).notes == ()


def test_a_refused_engine_is_not_told_to_answer(monkeypatch, tmp_path, path):
    """Only an engine that may answer has a note of its mode; of one that is refused there is nothing to say."""
    device = prepared(monkeypatch, tmp_path, float16=numpy_engine(off=0.5))
    in_mode(monkeypatch, "15W")
    choose(path)
    in_mode(monkeypatch, "25W")
    assert [note[:33] for note in choose(path).notes] == ["tensorrt-int8 was built in the po"]
    next(device.cache.glob("tensorrt-int8-*.plan")).unlink()
    assert choose(path).notes == ()


def test_engines_that_all_were_refused_have_no_mode(monkeypatch, tmp_path, path):
    """Where none passes, none is timed: no mode is written down, and none is told later, also where they passed before."""
    device = prepared(monkeypatch, tmp_path)
    in_mode(monkeypatch, "15W")
    choose(path)
    device.world.engines.update(engines_of_the_bundle(int8=numpy_engine(off=0.5), float16=numpy_engine(off=0.5)))
    assert choose(path, again=True).order == ()
    (choice,) = device.cache.glob("choice-*.json")
    assert json.loads(choice.read_text())["power"] == {"mode": "", "gpu_mhz": None}
    in_mode(monkeypatch, "25W")
    assert choose(path).notes == ()


@pytest.mark.parametrize("before", [False, True], ids=["never", "once"])
def test_engines_that_could_not_be_timed_have_no_mode(monkeypatch, tmp_path, path, before):
    """Where timing fails the manifest's order stands, which no mode has made: a later build in another one does not say that they were timed."""
    device = prepared(monkeypatch, tmp_path)
    in_mode(monkeypatch, "15W")
    if before:
        choose(path)
    with monkeypatch.context() as failing_clock:
        failing_clock.setattr(engine_choice.clock, "measure_pair", raising(TargetError("launch timed out")))
        assert choose(path, again=True).notes == ("not timed, so the manifest's order stands: launch timed out",)
    (choice,) = device.cache.glob("choice-*.json")
    assert json.loads(choice.read_text())["power"] == {"mode": "", "gpu_mhz": None}
    for plan in device.cache.glob("tensorrt-*.json"):
        document = json.loads(plan.read_text())
        if "power" in document:
            plan.write_text(json.dumps({**document, "power": {"mode": "25W", "gpu_mhz": None}}))
    in_mode(monkeypatch, "25W")
    assert choose(path).notes == ()


def test_what_is_written_down_of_the_mode(monkeypatch, tmp_path, path):
    """Mode and clock stand beside each plan and in the choice; the builder's timings of one mode are not taken in another."""
    device = prepared(monkeypatch, tmp_path)
    in_mode(monkeypatch, "15W", 612.0)
    choose(path)
    for file in (*device.cache.glob("tensorrt-int8-*.json"), *device.cache.glob("choice-*.json")):
        assert json.loads(file.read_text())["power"] == {"mode": "15W", "gpu_mhz": 612.0}
    assert len(list(device.cache.glob("tensorrt-timings-*.plan"))) == 1
    next(device.cache.glob("tensorrt-int8-*.plan")).unlink()
    in_mode(monkeypatch, "25W")
    choose(path)
    assert len(list(device.cache.glob("tensorrt-timings-*.plan"))) == 2


def test_a_build_that_timed_nothing_leaves_the_mode_as_it_was(monkeypatch, tmp_path, path):
    """Where no engine can be opened, the order stands as it was found, and so does the mode that it was found in."""
    device = prepared(monkeypatch, tmp_path)
    in_mode(monkeypatch, "15W")
    choose(path)
    (choice,) = device.cache.glob("choice-*.json")
    before = choice.read_bytes()
    in_mode(monkeypatch, "25W")
    device.cuda.fail = {"host_alloc"}
    choose(path, again=True)
    assert choice.read_bytes() == before


@pytest.mark.parametrize("power", [{"mode": 1}, {"mode": "15W", "gpu_mhz": "fast"}, [], None])
def test_a_damaged_mode_makes_a_choice_none(monkeypatch, tmp_path, path, power):
    """A choice in which anything does not fit is as good as none; beside a plan it is not known, and the plan is whole."""
    device = prepared(monkeypatch, tmp_path)
    choose(path)
    sidecar = next(device.cache.glob("tensorrt-int8-*.json"))
    (choice,) = device.cache.glob("choice-*.json")
    for file in (sidecar, choice):
        file.write_text(json.dumps({**json.loads(file.read_text()), "power": power}))
    assert load(path).engine_name == "openvino"
    outcome = choose(path)
    assert outcome.tried[0].built.cached
    assert (outcome.tried[0].built.power, outcome.tried[0].earlier) == (Power(), False)


def test_a_choice_of_before_the_mode_was_written_down(monkeypatch, tmp_path, path):
    """Plans and choices without it are taken as they are."""
    device = prepared(monkeypatch, tmp_path)
    choose(path)
    for file in device.cache.glob("*.json"):
        document = json.loads(file.read_text())
        document.pop("power", None)
        for one in document.get("tried", []):
            del one["built"]["power"]
        file.write_text(json.dumps(document))
    in_mode(monkeypatch, "15W")
    outcome = choose(path)
    assert (outcome.notes, [one.earlier for one in outcome.tried]) == ((), [True, True])


@pytest.mark.parametrize(
    ("mode", "clocks", "expected"),
    [
        (None, (), Power()),
        (PowerMode(id=2, name="MAXN_SUPER", source=""), (("cpu policy0", 1728.0), ("gpu 17000000.gpu", 1020.0)), ("MAXN_SUPER", 1020.0)),
        (PowerMode(id=2, name=None, source=""), (("gpu gpu-gpc-0", 1300.0), ("gpu gpu-nvd-0", 1692.0), ("gpu x", None)), ("2", 1692.0)),
    ],
)
def test_the_mode_of_this_device(monkeypatch, mode, clocks, expected):
    """The mode's name, its number where only that is known, and the highest of the GPU's clocks alone."""
    made = [
        Clock(name=name, current_mhz=None, lowest_mhz=None, highest_mhz=highest, governor=None, locked=None, reason="")
        for name, highest in clocks
    ]
    monkeypatch.setattr(engine_choice, "read_power_mode", lambda: (mode, ""))
    monkeypatch.setattr(engine_choice, "read_clocks", lambda: tuple(made))
    found = engine_choice.this_power()
    assert found == (expected if isinstance(expected, Power) else Power(mode=expected[0], gpu_mhz=expected[1]))


def test_a_clock_that_moved_is_no_new_choice(monkeypatch, tmp_path, path):
    """Heat lowers the highest frequency for a while: a disk that cannot be written to is then no error, and in another mode it is one."""
    prepared(monkeypatch, tmp_path, float16=numpy_engine(seconds=0.004))
    in_mode(monkeypatch, "15W", 612.0)
    choose(path)
    no_room_for(monkeypatch, ".json")
    in_mode(monkeypatch, "15W", 408.0)
    assert choose(path, again=True).notes == ()
    in_mode(monkeypatch, "25W")
    with pytest.raises(OutputError, match="choice-"):
        choose(path, again=True)
