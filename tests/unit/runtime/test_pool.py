"""Frames are answered at the same time, in order, and only where fewer threads change nothing."""

from __future__ import annotations

import dataclasses
import threading
import time

import numpy as np
import pytest
from device_bundles import SETTINGS, frame, write_device_bundle

from edgekit.errors import DataError, TargetError
from edgekit.runtime import pool as module
from edgekit.runtime.classifier import load
from edgekit.runtime.pool import Pool


@pytest.fixture
def path(tmp_path):
    return write_device_bundle(tmp_path / "x.edgekit")


def test_answers_are_the_classifiers_in_order(path):
    """Every frame gets the answer that one classifier gives, whoever answers it and however long that takes."""
    with Pool(path, 3) as pool, load(path) as classifier:

        def work(own, seed):
            time.sleep(0.01 if seed % 4 == 0 else 0)
            return own.predict(frame(seed)).logits

        assert list(pool.map(work, range(20))) == [classifier.predict(frame(seed)).logits for seed in range(20)]


def test_each_classifier_is_one_workers(path):
    """No classifier is used by two at once, and all of them are used."""
    busy, used, gate = [], set(), threading.Barrier(2, timeout=20)
    with Pool(path, 2) as pool:

        def work(own, number):
            if number < 2:
                gate.wait()
            if own in busy:
                raise AssertionError("it is in use")
            busy.append(own)
            used.add(own)
            own.predict(frame(number))
            busy.remove(own)

        list(pool.map(work, range(12)))
        assert used == set(pool.classifiers)


def test_items_are_taken_as_results_are(path):
    """Two a worker may wait: nobody reads a whole folder ahead."""
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    with Pool(path, 2) as pool:
        results = pool.map(lambda _, number: number, items())
        assert next(results) == 0
        assert len(taken) == 4
        results.close()
    assert len(taken) == 4


def test_an_error_comes_out_in_its_turn(path):
    """What was before it is given, and nothing after it."""

    def work(own, number):
        if number == 2:
            raise DataError("broken")
        return own.predict(frame(number)).label

    with Pool(path, 2) as pool:
        results = pool.map(work, range(9))
        assert [next(results) for _ in range(2)]
        with pytest.raises(DataError, match="broken"):
            next(results)
        assert next(results, None) is None


def test_work_that_nobody_waits_for_ends(path):
    """Results that are no longer taken end the work that is being done, and nothing new begins."""
    begun, seen = threading.Event(), []

    def work(_, number):
        if number == 0:
            return
        begun.set()
        seen.append(pool.stopping.wait(20))

    with Pool(path, 2) as pool:
        results = pool.map(work, range(50))
        next(results)
        begun.wait(20)
        results.close()
    assert 1 <= len(seen) <= 2
    assert all(seen)


def test_cores_are_shared(path, monkeypatch):
    """Each classifier has its share of the threads, at least one, and none is pinned to the first core."""
    monkeypatch.setattr(module, "cores", lambda: 4)
    for workers, threads in ((1, "4"), (2, "2"), (3, "1"), (8, "1")):
        bundle = module._shared(module.open_bundle(path), max(1, module.cores() // workers))
        assert bundle.manifest.engines[0].settings == {
            **SETTINGS,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": "1",
            "ENABLE_CPU_PINNING": "NO",
        }
    with Pool(path, 2) as pool:
        assert {classifier.engine.describe()["threads"] for classifier in pool.classifiers} <= {"1", "2"}


def test_a_classifier_that_fails_its_golden_frames_answers_nothing(tmp_path):
    """Where fewer threads round otherwise than was proven, there is no pool."""
    path = write_device_bundle(tmp_path / "y.edgekit", fault="golden-of-another-machine")
    with pytest.raises(TargetError, match="with fewer threads openvino fails its golden frames"):
        Pool(path, 2)


@pytest.mark.parametrize("workers", [0, -1, 65])
def test_a_number_of_workers_that_is_none(path, workers):
    """One line, before anything is opened."""
    with pytest.raises(TargetError, match="workers are not between 1 and 64"):
        Pool(path, workers)


def test_what_runs_on_no_cores_is_refused(path):
    """A GPU answers one frame at a time."""
    bundle = module.open_bundle(path)
    spec = bundle.manifest.engines[0]
    for other in (dataclasses.replace(spec, settings={**SETTINGS, "DEVICE": "GPU"}), dataclasses.replace(spec, name="tensorrt-int8")):
        golden, cam = _golden(bundle, other)
        changed = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, engines=(other,), golden=golden, cam=cam))
        with pytest.raises(TargetError, match="one frame at a time"):
            module._shared(changed, 1)


def _golden(bundle, spec):
    golden, cam = bundle.manifest.golden, bundle.manifest.cam
    return (
        dataclasses.replace(golden, logits={spec.name: "golden/logits.npy"}, tolerance={spec.name: 1.0}),
        dataclasses.replace(cam, golden={spec.name: "golden/maps.npy"}, golden_tolerance={spec.name: 1.0}),
    )


def test_a_pool_that_is_closed_answers_nothing(path):
    """Its classifiers are closed with it."""
    with Pool(path, 2) as pool:
        kept = pool.classifiers
    with pytest.raises(TargetError, match="closed"):
        kept[0].predict(np.zeros((8, 8), np.uint8))
