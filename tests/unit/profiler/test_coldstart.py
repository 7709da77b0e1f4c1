"""Fresh processes: their stages, their memory, and what becomes of their faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.errors import BundleError, DataError, EdgekitError, TargetError
from edgekit.profiler import coldstart
from edgekit.profiler.coldstart import ColdStart, Run, measure_cold_start
from edgekit.profiler.memory import Memory

HAS_PROC = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system has no /proc")


def run(total, peak=50.0):
    memory = Memory(peak_mib=peak, resident_mib=40.0, proportional_mib=None, unavailable={"proportional_mib": "why"})
    return Run(interpreter_ms=1.0, import_ms=2.0, load_ms=3.0, first_result_ms=4.0, total_ms=total, memory=memory)


def test_the_stages_make_up_the_total(runtime, bundle, frames):
    """Loading that sleeps 200 ms shows in load and in nothing else, and the parts add up to the total."""
    told = []
    found = measure_cold_start(bundle, frames[0], repeats=2, runtime=runtime("slow-load"), on_progress=told.append)
    figures = found.figures()
    assert told == [0.5, 1.0]
    assert figures["repeats"] == 2
    assert figures["load"] >= 200
    assert figures["first_result"] < 200
    for each in found.runs:
        assert min(each.interpreter_ms, each.import_ms, each.load_ms, each.first_result_ms) > 0
        parts = each.interpreter_ms + each.import_ms + each.load_ms + each.first_result_ms
        assert each.total_ms == pytest.approx(parts)


@HAS_PROC
def test_the_memory_is_that_of_the_child(runtime, bundle, frames):
    """A bundle that holds 200 MiB costs 200 MiB more than one that does not, whatever this process holds."""
    held = bytearray(b"x") * (300 << 20)
    small, large = (measure_cold_start(bundle, frames[0], repeats=1, runtime=runtime(fault)).memory for fault in ("", "large"))
    assert len(held) == 300 << 20
    assert small.peak_mib < 250
    assert 180 < large.peak_mib - small.peak_mib < 260


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("damaged", (BundleError, "tiny.edgekit is damaged", "copy it again")),
        ("refuses-frame", (DataError, "not a frame", "give another")),
        ("exception", (TargetError, r"crashed before its first result \(exit status 1\)", "ValueError: a library's own words")),
        ("abort", (TargetError, r"crashed before its first result \(signal 6\)", "")),
        ("exit", (TargetError, r"crashed before its first result \(exit status 0\)", "it said nothing")),
    ],
)
def test_a_child_that_fails_is_one_clear_error(runtime, bundle, frames, fault, expected):
    """An edgekit error arrives as itself; a traceback, a signal and a silent end become a TargetError with the last words."""
    kind, message, hint = expected
    with pytest.raises(kind, match=message) as caught:
        measure_cold_start(bundle, frames[0], repeats=3, runtime=runtime(fault))
    assert type(caught.value) is kind
    assert hint in caught.value.hint


def test_a_child_that_hangs_is_ended(runtime, bundle, frames, monkeypatch):
    """It does not outlive its time."""
    monkeypatch.setattr(coldstart, "TIMEOUT_S", 1.0)
    with pytest.raises(TargetError, match="no answer in a fresh process within 1 s"):
        measure_cold_start(bundle, frames[0], runtime=runtime("hang"))


def test_the_child_sees_no_files_of_the_caller(runtime, bundle, frames, tmp_path, monkeypatch):
    """It runs in a folder of its own, so a numpy.py beside the caller is not imported."""
    trap = tmp_path / "elsewhere"
    trap.mkdir()
    (trap / "json.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(trap)
    measure_cold_start(bundle, frames[0], repeats=1, runtime=runtime("where"))
    folder, *names = (tmp_path / "where.txt").read_text().splitlines()
    assert Path(folder) not in (trap, tmp_path)
    assert set(names) == {"frame.npy", "stderr.txt"}
    assert not Path(folder).exists()


def test_figures_are_medians_and_keep_the_first_total_apart():
    """One slow start in three does not move the medians."""
    found = ColdStart(runs=(run(900.0, 90.0), run(100.0), run(110.0)))
    assert found.figures() == {
        "interpreter": 1.0,
        "import": 2.0,
        "load": 3.0,
        "first_result": 4.0,
        "total": 110.0,
        "first_total": 900.0,
        "repeats": 3,
    }
    assert found.memory.peak_mib == 50.0
    assert found.memory.proportional_mib is None
    assert found.memory.unavailable == {"proportional_mib": "why"}


def test_it_must_be_repeated_at_least_once(bundle, frames):
    """No repetition has no median."""
    with pytest.raises(EdgekitError, match="cannot be repeated 0 times"):
        measure_cold_start(bundle, frames[0], repeats=0)
