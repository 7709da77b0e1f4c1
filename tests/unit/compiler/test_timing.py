"""Timing of artefacts: what a share is a share of, and whose host it was measured on."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

from edgekit.compiler import timing
from edgekit.profiler.clock import Budget
from edgekit.profiler.host import fingerprint


class Engine:
    """Takes so many milliseconds, and counts."""

    def __init__(self, milliseconds):
        self.milliseconds = milliseconds
        self.calls = 0

    def infer(self, _):
        self.calls += 1
        time.sleep(self.milliseconds / 1000)


def test_a_share_is_of_the_reference_measured_in_turn(monkeypatch):
    """Half the time is a share of one half, whatever the order, and both ran as often."""
    engines = {"small": Engine(2), "large": Engine(4)}
    monkeypatch.setattr(timing, "open_artefact", lambda artefact, _: engines[artefact])
    monkeypatch.setattr(timing, "PAIR_BUDGET", Budget(seconds=0.5, min_samples=40, max_seconds=5.0))
    found = timing.latency_share("small", "large", ("a", "b"), np.zeros((1, 2, 2, 1), np.uint8))
    assert found.share == pytest.approx(0.5, abs=0.15)
    assert found.low <= found.share <= found.high
    assert found.share == pytest.approx(found.latency_ms / found.reference_ms)
    assert engines["small"].calls == engines["large"].calls


def test_each_runs_by_its_own_specification(monkeypatch):
    """A float reference must not be timed with the settings of an INT8 candidate."""
    opened = []
    monkeypatch.setattr(timing, "open_artefact", lambda artefact, spec: opened.append((artefact, spec)) or Engine(0))
    monkeypatch.setattr(timing, "PAIR_BUDGET", Budget(seconds=0.01, min_samples=40, max_seconds=1.0))
    timing.latency_share("candidate", "reference", ("int8", "f32"), np.zeros((1, 2, 2, 1), np.uint8))
    assert opened == [("candidate", "int8"), ("reference", "f32")]


def test_a_time_carries_its_host(monkeypatch):
    """Processor and cores; a device's model where it has one."""
    assert str(fingerprint().cores_usable) in timing.host_name()
    host = SimpleNamespace(device_model="Scanner 3", cpu_model="A processor", architecture="x86_64", cores_usable=4)
    monkeypatch.setattr(timing, "fingerprint", lambda: host)
    assert timing.host_name() == "Scanner 3, 4 cores"
