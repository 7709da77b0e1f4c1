"""Against an earlier profile: what may be compared, and what is said."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from edgekit.errors import DataError, TargetError
from edgekit.profiler.baseline import ENGINE_KEYS, HOST_KEYS, Baseline, against, load_baseline
from edgekit.profiler.host import fingerprint
from edgekit.profiler.verdict import ALIKE, FASTER, NOT_JUDGED, SLOWER
from edgekit.schema.decode import encode

HOST = {
    "cpu_model": "Some CPU",
    "cores_usable": 4,
    "instruction_sets": ["avx2"],
    "governor": None,
    "kernel": "Linux 1",
    "packages": {"openvino": "1"},
}
ENGINE = {"name": "openvino", "version": "1", "device": "CPU", "precision": "f32", "threads": "4"}


def side(*, seed=0, slowdown=1.0, samples=800, **changes):
    series = slowdown * np.random.default_rng(seed).gamma(400.0, 0.0125, size=samples)
    made = Baseline(
        measured_at="2026-01-02T03:04:05+00:00",
        host=HOST,
        bundle={"name": "lung", "version": "1", "digest": "ab", "engine": ENGINE},
        frames={"count": 6, "shapes": [[480, 640]]},
        steady=True,
        milliseconds=series,
    )
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize(("slowdown", "word"), [(1.0, ALIKE), (1.1, SLOWER), (1.03, ALIKE), (0.9, FASTER)])
def test_words_of_slowdowns(slowdown, word):
    """A tenth is found; three hundredths are within what two days differ by."""
    assert against(side(), side(seed=1, slowdown=slowdown)).verdict.word == word


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"host": {**HOST, "cpu_model": "Another"}}, "cpu_model was Some CPU, is Another"),
        ({"host": {**HOST, "governor": "powersave"}}, "governor was not known, is powersave"),
        ({"host": {**HOST, "instruction_sets": ["avx2", "avx512"]}}, "instruction_sets"),
        ({"bundle": {"name": "lung", "version": "1", "digest": "ab", "engine": {**ENGINE, "threads": "2"}}}, "engine threads was 4, is 2"),
        ({"bundle": {"name": "lung", "version": "1", "digest": "ab", "engine": {**ENGINE, "name": "onnxruntime"}}}, "engine name"),
        ({"frames": {"count": 6, "shapes": [[512, 512]]}}, "frames' shapes"),
        ({"frames": {"count": 1, "shapes": [[480, 640]]}}, "frames' count"),
        ({"steady": False}, "this measurement was not steady"),
    ],
)
def test_what_was_not_measured_alike_is_not_judged(changes, reason):
    """Another machine, mode, engine, setting or frame: the reason names it, however fast it is."""
    found = against(side(), side(seed=1, slowdown=1.5, **changes)).verdict
    assert found.word == NOT_JUDGED
    assert reason in found.reason


def test_an_unsteady_baseline_is_not_judged():
    """Nor are two that were not."""
    assert "the baseline was not steady" in against(side(steady=False), side()).verdict.reason
    assert "the baseline and this measurement was" in against(side(steady=False), side(steady=False)).verdict.reason


def test_too_few_samples_are_not_judged():
    """Ten of the eleven that a median needs."""
    assert "10 and 800 samples" in against(side(), side(samples=10)).verdict.reason


def test_what_else_changed_is_told_and_judged():
    """Another bundle, library and kernel are what is looked for."""
    now = side(
        seed=1,
        slowdown=1.2,
        host={**HOST, "kernel": "Linux 2", "packages": {"openvino": "2", "numpy": "2"}},
        bundle={"name": "lung", "version": "2", "digest": "cd", "engine": {**ENGINE, "version": "2"}},
    )
    found = against(side(), now)
    assert found.verdict.word == SLOWER
    told = "; ".join(found.changes)
    for words in (
        "version was 1, is 2",
        "digest was ab, is cd",
        "engine version was 1, is 2",
        "kernel was Linux 1",
        "openvino was 1, is 2",
        "numpy was not known",
    ):
        assert words in told
    document = found.to_json()
    assert document["verdict"] == SLOWER
    assert document["ratio"]["p50"]["low"] > 1.05
    assert document["samples"] == 800


def test_this_machine_is_its_own_and_another_is_refused():
    """Before anything is measured; lists of JSON and tuples of Python are one."""
    machine = fingerprint()
    host = json.loads(json.dumps(encode(machine)))
    side(host=host).check_host(machine)
    with pytest.raises(TargetError, match="cores_usable was 4096"):
        side(host={**host, "cores_usable": 4096}).check_host(machine)


KEPT = [5.0, 5.5, 5.25] * 4


def stored(tmp_path, **changes):
    document = {
        "format_version": 1,
        "measured_at": "2026-01-02T03:04:05+00:00",
        "host": HOST,
        "bundle": {"name": "lung", "version": "1", "digest": "ab", "engine": ENGINE},
        "frames": {"count": 6, "shapes": [[480, 640]]},
        "warmup": {"excluded": 2, "steady": True},
        "series": {"latency_ms": [9.0, 8.0, *KEPT]},
        **changes,
    }
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not ...}))
    return path


def test_a_stored_profile_is_read_without_its_warm_up(tmp_path):
    """The twelve samples after it."""
    found = load_baseline(stored(tmp_path))
    assert found.milliseconds.tolist() == KEPT
    assert found.steady
    assert found.host == HOST


@pytest.mark.parametrize(
    "changes",
    [
        {"series": ...},
        {"series": {"latency_ms": []}},
        {"series": {"latency_ms": [1.0, 1.0, "fast"]}},
        {"series": {"latency_ms": [1.0, 1.0, float("nan")]}},
        {"series": {"latency_ms": [1.0, 1.0, -1.0]}},
        {"series": {"latency_ms": [1.0, 1.0, [1.0]]}},
        {"series": {"latency_ms": 5}},
        {"warmup": {"excluded": 2.0, "steady": True}},
        {"warmup": {"excluded": float("inf"), "steady": True}},
        {"warmup": {"excluded": True, "steady": True}},
        {"format_version": 99},
        {"format_version": ...},
        {"warmup": {"excluded": -1, "steady": True}},
        {"warmup": {"steady": True}},
        {"bundle": {"name": "x"}},
        {"host": 3},
    ],
)
def test_what_is_no_profile_is_refused(tmp_path, changes):
    """With the file's name, and what to give instead."""
    path = stored(tmp_path, **changes)
    with pytest.raises(DataError, match="is no profile") as raised:
        load_baseline(path)
    assert "edgekit profile" in raised.value.hint


@pytest.mark.parametrize(
    ("changes", "words", "hint"),
    [
        ({"warmup": {"excluded": 2, "steady": False}}, "was not steady", "nothing else running"),
        (
            {"warmup": {"excluded": 4, "steady": True}},
            "10 samples after the warm-up are too few to compare with, 11 are needed",
            "--seconds",
        ),
        ({"warmup": {"excluded": 40, "steady": True}}, "0 samples", "--seconds"),
    ],
)
def test_what_nothing_can_be_compared_with_is_refused_when_it_is_read(tmp_path, changes, words, hint):
    """Before minutes are spent, and with what helps: a new baseline, not a longer measurement now."""
    with pytest.raises(DataError, match=words) as raised:
        load_baseline(stored(tmp_path, **changes))
    assert hint in raised.value.hint
    assert "baseline" in raised.value.hint


@pytest.mark.parametrize("key", HOST_KEYS)
def test_every_fact_that_makes_a_machine_another_one_counts(key):
    """Whichever of them it is, and where it is not known on one side."""
    found = against(side(), side(seed=1, host={**HOST, key: "another"})).verdict
    assert found.word == NOT_JUDGED
    assert f"{key} was" in found.reason


@pytest.mark.parametrize("key", ENGINE_KEYS)
def test_every_fact_that_makes_an_engine_another_one_counts(key):
    """Name, device, precision and threads; the version is what is looked for."""
    engine = {**ENGINE, key: "another"}
    found = against(side(), side(seed=1, bundle={"name": "lung", "version": "1", "digest": "ab", "engine": engine})).verdict
    assert found.word == NOT_JUDGED
    assert f"engine {key} was" in found.reason


def test_what_makes_a_machine_another_one():
    """A key that is dropped from these lets two machines be compared."""
    assert set(HOST_KEYS) == {
        "device_model",
        "cpu_model",
        "architecture",
        "cores_physical",
        "cores_logical",
        "cores_usable",
        "cpu_limit",
        "instruction_sets",
        "governor",
        "frequency_max_mhz",
    }
    assert set(ENGINE_KEYS) == {"name", "device", "precision", "threads"}


def test_a_file_that_is_not_there_or_no_json_is_refused(tmp_path):
    """Each with its reason."""
    with pytest.raises(DataError, match="cannot be read: No such file"):
        load_baseline(tmp_path / "missing.json")
    (tmp_path / "x.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(DataError, match="is no profile"):
        load_baseline(tmp_path / "x.json")
