"""Timing of artefacts: what a share is a share of, and whose host it was measured on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import device_bundles
import pytest

from edgekit.catalog.target import load_target
from edgekit.compiler import timing
from edgekit.compiler.pack import engine_spec
from edgekit.compiler.stages.quantize import Artefact
from edgekit.errors import ModelError
from edgekit.profiler.clock import Budget
from edgekit.profiler.host import fingerprint

FRAME = device_bundles.frame()[None, :, :, None]


def tiny_ir(folder):
    """A small graph of OpenVINO's, as files."""
    files = {}
    for role, content in device_bundles.graph(outputs=3).items():
        files[role] = folder / f"model.{role}"
        files[role].write_bytes(content)
    return files


class Engine:
    """Takes so many milliseconds, and counts."""

    def __init__(self, milliseconds):
        self.milliseconds = milliseconds
        self.calls = 0

    def initial_state(self):
        return None

    def infer(self, _, state):
        assert state is None
        self.calls += 1
        time.sleep(self.milliseconds / 1000)


def test_a_share_is_of_the_reference_measured_in_turn(monkeypatch):
    """Half the time is a share of one half, whatever the order, and both ran as often."""
    small, large = Engine(2), Engine(4)
    monkeypatch.setattr(timing, "PAIR_BUDGET", Budget(seconds=0.5, min_samples=40, max_seconds=5.0))
    found = timing.measure([small, large], FRAME)
    assert found.share == pytest.approx(0.5, abs=0.15)
    assert found.low <= found.share <= found.high
    assert found.share == pytest.approx(found.latency_ms / found.reference_ms)
    assert small.calls == large.calls


def test_a_real_pair_is_timed_in_a_process_without_torch(tmp_path):
    """Through the engine of each specification; the same model twice takes about as long."""
    members = tiny_ir(tmp_path)
    artefact = Artefact(files=members, sha256="", precision="f32", outputs=3)
    spec = engine_spec(load_target("x86-64"), artefact)
    found = timing.latency_share(artefact, artefact, (spec, spec), FRAME)
    assert 0.3 < found.share < 3
    assert found.samples > 100
    modules = "import sys, edgekit.compiler.timing; print(sorted({'torch', 'nncf', 'onnx'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", modules], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_process_that_fails_is_told(tmp_path):
    """With its last words; nothing is measured."""
    artefact = Artefact(files={"xml": tmp_path / "none.xml", "bin": tmp_path / "none.bin"}, sha256="", precision="f32", outputs=3)
    spec = engine_spec(load_target("x86-64"), artefact)
    with pytest.raises(ModelError, match="the process that times artefacts ended with 1") as caught:
        timing.latency_share(artefact, artefact, (spec, spec), FRAME)
    assert "none." in caught.value.hint


def test_nothing_of_the_working_folder_is_executed(tmp_path, monkeypatch):
    """A file that lies where the command is started and is named like a module that the process imports is not that module; paths are told in full."""
    monkeypatch.chdir(tmp_path)
    for name in ("json", "base64", "edgekit", "numpy"):
        Path(f"{name}.py").write_text("import pathlib; pathlib.Path(__file__).with_suffix('.executed').touch()")
    Path("model").mkdir()
    artefact = Artefact(files=tiny_ir(Path("model")), sha256="", precision="f32", outputs=3)
    spec = engine_spec(load_target("x86-64"), artefact)
    assert timing.latency_share(artefact, artefact, (spec, spec), FRAME, tries=1).samples > 100
    assert list(tmp_path.glob("*.executed")) == []


def test_a_time_carries_its_host(monkeypatch):
    """Processor and cores; a device's model where it has one."""
    assert str(fingerprint().cores_usable) in timing.host_name()
    host = SimpleNamespace(device_model="Scanner 3", cpu_model="A processor", architecture="x86_64", cores_usable=4)
    monkeypatch.setattr(timing, "fingerprint", lambda: host)
    assert timing.host_name() == "Scanner 3, 4 cores"


@pytest.mark.parametrize(
    ("timings", "expected"),
    [
        ([(0.5, False), (0.3, True), (0.2, True)], 0.3),
        ([(0.9, False), (0.3, False), (0.5, False), (0.4, False), (0.6, False)], 0.5),
    ],
    ids=["first-steady", "never-steady"],
)
def test_a_busy_machine_is_timed_again(timings, expected):
    """The first steady timing counts; where none is steady, the middle one."""
    left = iter(timings)

    def timed():
        share, steady = next(left)
        return timing.LatencyShare(latency_ms=share, reference_ms=1.0, share=share, low=share, high=share, samples=150, steady=steady)

    assert timing.steadiest(timed, 5).share == expected
