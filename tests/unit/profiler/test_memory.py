"""Memory figures from a process folder, real and made up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.profiler import memory

STATUS = "Name:\tpython\nVmPeak:\t  900000 kB\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\n"
ROLLUP = "55be840f6000-7fff3045c000 ---p 00000000 00:00 0   [rollup]\nRss:  102400 kB\nPss:  51200 kB\nPss_Dirty:  1 kB\n"


def process(folder, **files):
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_figures_are_read_in_mib(tmp_path):
    """A kB of the kernel is 1024 bytes; the peak is VmHWM, not the address space."""
    found = memory.read(process(tmp_path, status=STATUS, smaps_rollup=ROLLUP))
    assert (found.peak_mib, found.resident_mib, found.proportional_mib) == (200.0, 100.0, 50.0)
    assert found.unavailable == {}


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({}, {"peak_mib", "resident_mib", "proportional_mib"}),
        ({"status": STATUS}, {"proportional_mib"}),
        ({"status": "VmRSS:\t 1024 kB\n", "smaps_rollup": ROLLUP}, {"peak_mib"}),
        ({"status": "VmHWM:\t many kB\nVmRSS:\t 12 MB\n", "smaps_rollup": ROLLUP}, {"peak_mib", "resident_mib"}),
    ],
    ids=["no files", "no rollup", "no peak", "not numbers of kB"],
)
def test_what_cannot_be_read_is_none_with_a_reason(tmp_path, files, missing):
    """Nothing is guessed, and every gap is explained."""
    found = memory.read(process(tmp_path, **files))
    assert {name for name in ("peak_mib", "resident_mib", "proportional_mib") if getattr(found, name) is None} == missing
    assert set(found.unavailable) == missing
    assert all(found.unavailable.values())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system has no /proc")
def test_a_child_does_not_inherit_the_peak_of_its_parent():
    """A child of a process with 300 MiB more than it needs reports its own peak, which ru_maxrss would not."""
    child = "from edgekit.profiler import memory; print(memory.read().peak_mib)"
    parent = f"import subprocess, sys; held = bytearray(b'x') * (300 << 20); print(subprocess.run([sys.executable, '-c', {child!r}], capture_output=True, text=True, check=True).stdout)"
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True)
    assert 1 < float(done.stdout) < 150


def test_what_is_held_is_read_from_one_file(tmp_path):
    """Proportional memory, and what is no file's with what was swapped out of it; an older kernel may lack one."""
    rollup = tmp_path / "smaps_rollup"
    rollup.write_text("Pss: 2048 kB\nPss_Anon: 9 kB\nAnonymous: 1024 kB\nSwap: 512 kB\n")
    assert memory.held_mib(tmp_path) == (2.0, 1.5)
    rollup.write_text("Pss: 2048 kB\n")
    assert memory.held_mib(tmp_path) == (2.0, None)
    rollup.unlink()
    assert memory.held_mib(tmp_path) == (None, None)
