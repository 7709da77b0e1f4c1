"""Interrupted work: nothing half-written under a final name, and the same command goes on where it stopped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from command_line import files_below
from compile_builders import NAME

from edgekit.bundle import writer
from edgekit.catalog.recipe import load_recipe
from edgekit.compiler.pipeline import compile_recipe
from edgekit.compiler.progress import Silent

COMPILE = [sys.executable, "-m", "edgekit", "compile"]


def start_compile(project, workdir, out, *, stop_after=None, signal_number=signal.SIGINT):
    """Compiles in a process of its own; sends a signal when a stage is finished. Returns exit code and stderr."""
    command = [*COMPILE, str(project.recipe), "--workdir", str(workdir), "--out", str(out)]
    # Another hash seed and working directory than this process has: results must not depend on them.
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=workdir.parent,
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONUNBUFFERED": "1"},
    )
    watchdog = threading.Timer(240, process.kill)
    watchdog.start()
    lines = []
    for line in process.stderr:
        lines.append(line)
        if stop_after is not None and line.strip().startswith(stop_after):
            process.send_signal(signal_number)
            stop_after = None
    watchdog.cancel()
    return process.wait(), "".join(lines)


def test_an_interrupted_compile_resumes_to_the_same_bytes(project, tmp_path):
    """Ctrl-C leaves nothing; the same command then resumes, to the bytes of another process, folder and hash seed."""
    workdir, out = tmp_path / "work", tmp_path / "out" / "other-name.edgekit"
    code, told = start_compile(project, workdir, out, stop_after="load")
    assert code == 130
    assert told.rstrip().endswith("interrupted; the same command goes on where it stopped")
    assert "Traceback" not in told
    assert not out.parent.exists()
    assert [path.name for path in workdir.iterdir() if path.name.startswith(".")] == []
    finished = {path.name for path in workdir.iterdir()}
    assert any(name.startswith("load-") for name in finished)
    code, told = start_compile(project, workdir, out)
    assert code == 0, told
    assert "load (cached)" in told
    assert finished <= {path.name for path in workdir.iterdir()}
    assert out.read_bytes() == project.bundle.read_bytes()


class _Stop(Silent):
    """Interrupts at the begin of a stage."""

    def __init__(self, stage):
        self.stage = stage

    def begin(self, stage, *, cached):  # noqa: ARG002 - the protocol's
        if stage.startswith(self.stage):
            raise KeyboardInterrupt


@pytest.mark.parametrize("stage", ["load", "frames test", "baseline", "explain", "quantize ptq", "measure ptq on test", "latency"])
def test_an_interruption_at_any_stage(stage, project, tmp_path):
    """Wherever a compile is interrupted, no result and no temporary file is left."""
    before = files_below(project.workdir).keys()
    with pytest.raises(KeyboardInterrupt):
        compile_recipe(load_recipe(project.recipe), out=tmp_path / "out", workdir=project.workdir, progress=_Stop(stage))
    assert list(tmp_path.iterdir()) == []
    assert files_below(project.workdir).keys() == before


def test_an_interruption_while_the_bundle_is_written(project, tmp_path, monkeypatch):
    """An interruption in the middle of the write leaves the old bundle whole, and nothing else."""
    out = tmp_path / f"{NAME}.edgekit"
    shutil.copy(project.unaccepted, out)

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        writer.write_atomically(out, [project.bundle.read_bytes()])
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert out.read_bytes() == project.unaccepted.read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_frames_are_answered(number, code, project, tmp_path):
    """`run` ends with the shell's code for the signal and without a traceback; overlays that are there are whole."""
    many = tmp_path / "frames"
    many.mkdir()
    for index in range(3000):
        (many / f"{index}.png").symlink_to(project.frame)
    process = subprocess.Popen(
        [sys.executable, "-m", "edgekit", "run", str(project.bundle), str(many), "--overlay", str(tmp_path / "maps"), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().startswith('{"input"')
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code
    assert told.strip() == "interrupted"
    assert [path.name for path in (tmp_path / "maps").iterdir() if path.suffix != ".png"] == []
    assert 0 < len(list((tmp_path / "maps").iterdir())) < 3000


def test_a_damaged_cache_is_made_again(project, tmp_path):
    """A stage result that was changed on the disk is not used."""
    workdir = tmp_path / "work"
    shutil.copytree(project.workdir, workdir)
    for damaged in workdir.glob("explain-*/*"):
        if damaged.suffix != ".json":
            data = bytearray(damaged.read_bytes())
            data[len(data) // 2] ^= 1
            damaged.write_bytes(data)
    notes = []

    class Told(Silent):
        def note(self, text):
            notes.append(text)

    compile_recipe(load_recipe(project.recipe), out=tmp_path / "x.edgekit", workdir=workdir, progress=Told())
    assert "the cached result of explain is damaged and is made again" in notes
    assert (tmp_path / "x.edgekit").read_bytes() == project.bundle.read_bytes()


@pytest.mark.slow
def test_the_same_recipe_twice_with_a_cleared_cache(project, tmp_path):
    """Two fresh processes with empty work folders write the same bytes."""
    for number in range(2):
        code, told = start_compile(project, tmp_path / f"work-{number}", tmp_path / f"{number}.edgekit")
        assert code == 0, told
        assert "cached" not in told
    assert (tmp_path / "0.edgekit").read_bytes() == (tmp_path / "1.edgekit").read_bytes() == project.bundle.read_bytes()
