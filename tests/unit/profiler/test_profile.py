"""A whole profile of a stand-in runtime: the document, its gaps, and what is timed."""

from __future__ import annotations

import importlib
import json
import threading
import time

import numpy as np
import pytest

from edgekit.errors import BundleError, DataError
from edgekit.profiler import failif, stages, watch
from edgekit.profiler import profile as profiling
from edgekit.profiler.clock import Budget
from edgekit.profiler.profile import PATHS, Options, profile


def profiled(runtime, bundle, frames, **options):
    chosen = Options(**{"seconds": 0.05, "repeats": 1, "runtime": runtime, **options})
    return json.loads(json.dumps(profile(bundle, frames, options=chosen).to_json(), allow_nan=False))


def test_the_document_has_the_keys_that_scripts_read(runtime, bundle, frames):
    """The contract's keys, every path a limit may name, and a reason for every figure that is null."""
    document = profiled(runtime(), bundle, frames)
    assert set(document["latency_ms"]) == {"p50", "p90", "p95", "p99", "max", "samples"}
    assert set(document["stages_ms"]) == {"read", "preprocess", "infer", "cam", "overlay"}
    assert {"cold_start_ms", "peak_memory_mib", "host", "bundle"} <= set(document)
    figures = failif.paths(document)
    assert set(figures) >= PATHS
    assert {path for path in PATHS if figures[path] is None} <= set(document["unavailable"])


def test_the_bundle_is_named_without_its_folder(runtime, bundle, frames, tmp_path):
    """Name, version, digest, size and engine are there; no path of this machine is anywhere in the document."""
    document = profiled(runtime(), bundle, frames)
    assert document["bundle"] == {
        "file": "tiny.edgekit",
        "name": "tiny",
        "version": "1.2",
        "digest": "ab" * 32,
        "size_bytes": 4096,
        "accepted": True,
        "engine": {"name": "fake", "version": "1", "device": "CPU", "precision": "int8", "threads": "1"},
    }
    assert document["frames"] == {"count": 3, "shapes": [[48, 64]]}
    assert str(tmp_path) not in json.dumps(document)


def test_the_series_and_the_percentiles_are_of_the_same_calls(runtime, bundle, frames):
    """Samples kept and excluded add up to the series; the largest kept sample is the max."""
    document = profiled(runtime(), bundle, frames)
    excluded, series = document["warmup"]["excluded"], document["series"]
    assert len(series["latency_ms"]) == len(series["start_s"]) == document["latency_ms"]["samples"] + excluded
    assert document["latency_ms"]["samples"] == document["stages_ms"]["infer"]["samples"]
    assert max(series["latency_ms"][excluded:]) == pytest.approx(document["latency_ms"]["max"], abs=1e-4)
    assert document["stages_ms"]["infer"]["p50"] == 0.5


def test_a_short_measurement_has_no_p99_and_says_so(runtime, bundle, frames):
    """Too few samples give null, and a limit on it is an error with the reason."""
    document = profiled(runtime(), bundle, frames, seconds=0.0)
    assert document["latency_ms"]["p99"] is None
    assert "662" in document["unavailable"]["latency_ms.p99"]
    assert document["warmup"]["steady"] is False
    assert "too few" in document["unavailable"]["warmup.variation"]


def test_a_bundle_without_a_map_has_no_figures_for_it(runtime, bundle, frames):
    """The map and its overlay are null with the reason, and nothing is drawn."""
    document = profiled(runtime(has_map=False), bundle, frames)
    for stage in ("cam", "overlay"):
        assert document["stages_ms"][stage] == {"p50": None, "p95": None, "samples": 0}
        assert document["unavailable"][f"stages_ms.{stage}.p50"] == "the bundle has no map"
    assert document["stages_ms"]["infer"]["p50"] is not None


def test_progress_names_its_stages_in_order(runtime, bundle, frames):
    """Each stage ends at 1."""
    told = []
    options = Options(seconds=0.02, repeats=2, runtime=runtime())
    profile(bundle, frames, options=options, on_progress=lambda stage, share: told.append((stage, share)))
    names = ["cold start", "predict", "read", "overlay", "map on and off", "overlay on and off"]
    assert list(dict.fromkeys(stage for stage, _ in told)) == names
    assert all((stage, 1.0) in told for stage in names)


def test_frames_take_turns_and_every_overlay_is_fresh(runtime, frames):
    """The stand-in refuses to draw a prediction twice; each frame is used as often as the others."""
    classifier = importlib.import_module(runtime()).load("x")
    stages.measure_overlay(classifier, frames, Budget(seconds=0, min_samples=9))
    assert classifier.seen == [10, 20, 30] * 3


def test_the_users_files_are_what_is_read(runtime, bundle, frames, tmp_path):
    """A damaged one is an error about that file."""
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    stages.write_png(frames[:1], tmp_path)
    (tmp_path / "0.png").rename(good)
    bad.write_bytes(good.read_bytes()[:60])
    assert profiled(runtime(), bundle, frames, files=(good,))["stages_ms"]["read"]["samples"] > 0
    with pytest.raises(DataError, match=r"bad\.png"):
        profiled(runtime(), bundle, frames, files=(good, bad))


def test_written_frames_are_read_back_unchanged(frames, tmp_path):
    """The reading that is timed gives the pixels that were written, grey and RGB."""
    colour = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    for path, frame in zip(stages.write_png([*frames, colour], tmp_path), [*frames, colour], strict=True):
        assert np.array_equal(stages.read_first(path), frame)


def test_there_must_be_a_frame(runtime, bundle):
    """An empty list is refused before any process starts."""
    with pytest.raises(DataError, match="no frame to measure with"):
        profile(bundle, [], options=Options(runtime=runtime("hang")))


def test_a_damaged_bundle_is_the_bundles_error(runtime, bundle, frames):
    """It comes out of the fresh process as the BundleError that it is."""
    with pytest.raises(BundleError, match="is damaged"):
        profiled(runtime("damaged"), bundle, frames)


def test_energy_is_measured_at_rest_and_at_work(runtime, bundle, frames, tmp_path):
    """A board that takes 5 W all the time: both powers are 5 W, and nothing is above rest; the meter says what it sees."""
    rail = tmp_path / "root/sys/class/hwmon/hwmon0"
    rail.mkdir(parents=True)
    for name, text in (("name", "ina3221"), ("in1_label", "VDD_IN"), ("in1_input", "5000"), ("curr1_input", "1000")):
        (rail / name).write_text(text)
    document = profiled(runtime(), bundle, frames, seconds=0.5, root=tmp_path / "root")
    energy, counted = document["energy"], document["timeline"]["energy_j"]
    assert (energy["source"], energy["scope"]) == ("INA3221", "whole board (VDD_IN)")
    assert (energy["idle_w"], energy["busy_w"]) == (pytest.approx(5.0), pytest.approx(5.0))
    assert energy["mj_per_frame_above_idle"] == pytest.approx(0.0, abs=1e-6)
    assert energy["mj_per_frame"] * energy["frames"] == pytest.approx(1e3 * (counted[-1] - counted[0]))
    assert counted[-1] - counted[0] >= 5.0 * 0.5
    assert not any(thread.name == "edgekit-power" for thread in threading.enumerate())


def board(tmp_path):
    rail = tmp_path / "root/sys/class/hwmon/hwmon0"
    rail.mkdir(parents=True)
    for name, text in (("name", "ina3221"), ("in1_label", "VDD_IN"), ("in1_input", "5000"), ("curr1_input", "1000")):
        (rail / name).write_text(text)
    return rail


def test_a_meter_that_fails_at_rest_does_not_end_the_profile(runtime, bundle, frames, tmp_path, monkeypatch):
    """Latency is there, energy is null, and the reason is the meter's."""
    rail = board(tmp_path)
    original = profiling.open_meter

    def opened(root):
        found = original(root)
        (rail / "curr1_input").unlink()
        found._thread.join(10)
        return found

    monkeypatch.setattr(profiling, "open_meter", opened)
    document = profiled(runtime(), bundle, frames, seconds=0.2, root=tmp_path / "root")
    assert document["latency_ms"]["p50"] is not None
    assert document["energy"]["mj_per_frame"] is None
    assert "INA3221 can no longer be read" in document["unavailable"]["energy.mj_per_frame"]


def test_without_a_meter_there_is_no_power_at_rest(runtime, bundle, frames, tmp_path):
    """Not 0 W, from which everything would be above rest."""
    found = profile(bundle, frames, options=Options(seconds=0.05, repeats=1, runtime=runtime(), fps=50.0, root=tmp_path))
    for seen in (found.observed, found.extras.paced[1]):
        assert isinstance(seen.rest_w, str)
        assert "no RAPL counter" in seen.rest_w


def test_the_wait_for_the_power_at_rest_is_told(runtime, bundle, frames, tmp_path):
    """Up to five seconds in which nothing else moves."""
    board(tmp_path)
    told = []
    options = Options(seconds=0.5, repeats=1, runtime=runtime(), root=tmp_path / "root")
    profile(bundle, frames, options=options, on_progress=lambda stage, share: told.append((stage, share)))
    assert told.count(("at rest", 1.0)) == 1
    assert [stage for stage, _ in told].index("at rest") < [stage for stage, _ in told].index("predict")


def test_the_machine_is_the_one_under_the_root(runtime, bundle, frames, tmp_path):
    """Its processor too, not only its sensors."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("model name\t: A made-up processor\n")
    assert profiled(runtime(), bundle, frames, root=tmp_path)["host"]["cpu_model"] == "A made-up processor"


def test_no_reading_is_in_a_latency(runtime, bundle, frames, monkeypatch):
    """The watch reads in both runs, each time while no frame is answered."""
    monkeypatch.setattr(watch, "INTERVAL_NS", 30_000_000)
    module = importlib.import_module(runtime())
    usual, sensors = module.Classifier.predict, watch.SensorFiles.read
    answering, seen = [], []

    def answer(self, frame, **given):
        answering.append(1)
        time.sleep(0.002)
        answering.pop()
        return usual(self, frame, **given)

    def read(self):
        seen.append(bool(answering))
        time.sleep(0.002)
        return sensors(self)

    monkeypatch.setattr(module.Classifier, "predict", answer)
    monkeypatch.setattr(watch.SensorFiles, "read", read)
    # Two hundred milliseconds between frames: on a busy machine a reading takes tens.
    document = profiled(module.__name__, bundle, frames, seconds=1.5, fps=5.0)
    assert len(document["timeline"]["t_s"]) >= 6
    assert len(document["paced"]["timeline"]["t_s"]) >= 4
    assert document["timeline"]["reading_ms"] >= 2
    assert not any(seen)


def test_the_frames_of_every_part_take_turns(runtime, bundle, frames, monkeypatch):
    """Also those from a clock and those after pauses."""
    module = importlib.import_module(runtime())
    opened = []
    load = module.load
    monkeypatch.setattr(module, "load", lambda path: opened.append(load(path)) or opened[-1])
    starts = {}

    def told(stage, share):
        starts.setdefault(stage, len(opened[0].seen) if opened else 0)

    options = Options(seconds=0.2, repeats=1, runtime=module.__name__, fps=50.0, idle=True)
    profile(bundle, frames, options=options, on_progress=told)
    seen = opened[0].seen
    assert set(seen[starts["50 frames a second"] :]) == {10, 20, 30}
    assert set(seen[starts["after pauses"] :]) == {10, 20, 30}


def test_a_paced_run_that_cannot_keep_up_is_judged_by_what_answers_take(runtime, bundle, frames, monkeypatch):
    """What frames wait for grows from the first to the last; the machine has not become slower."""
    module = importlib.import_module(runtime())
    usual = module.Classifier.predict

    def slower(self, frame, **given):
        time.sleep(0.004)
        return usual(self, frame, **given)

    monkeypatch.setattr(module.Classifier, "predict", slower)
    document = profiled(module.__name__, bundle, frames, seconds=0.3, fps=500.0)
    waits = document["paced"]["series"]["latency_ms"]
    assert waits[-1] > 5 * waits[5]
    assert document["paced"]["timeline"]["sustained_ratio"] < 1.8


def test_every_part_is_closed_behind_the_profile(runtime, bundle, frames, monkeypatch):
    """The bundle and the one it is compared with are given back, also where a frame is refused on the way."""
    module = importlib.import_module(runtime())
    opened = []
    load = module.load
    monkeypatch.setattr(module, "load", lambda path: opened.append(load(path)) or opened[-1])
    profiled(module.__name__, bundle, frames, compare=bundle)
    assert [classifier.closed for classifier in opened] == [True, True]


def test_extra_parts_come_after_the_latency(runtime, bundle, frames):
    """So that they cannot move it: told in this order."""
    told = []
    options = Options(seconds=0.1, repeats=1, runtime=runtime(), fps=100.0, idle=True, compare=bundle)
    profile(bundle, frames, options=options, on_progress=lambda stage, _: told.append(stage))
    order = list(dict.fromkeys(told))
    # Nothing of the frames from a clock is left out as warm-up: the saturated run must be just before them.
    assert order.index("100 frames a second") < order.index("after pauses")
    assert order.index("predict") < min(order.index(name) for name in ("100 frames a second", "after pauses", "comparison"))
