"""Files of the engine cache: how much memory reading one takes, and one that changes meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from edgekit.runtime.engines import cache_files
from edgekit.runtime.engines.engine_cache import MAX_PAYLOAD_BYTES

# A process of its own: what it may not have, the tests after it need.
SMALL_BOARD = """
import resource, sys
from pathlib import Path
from edgekit.runtime.engines import cache_files
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 64 * 2**20, used + 64 * 2**20))
try:
    print(len(cache_files.read(Path(sys.argv[1]), int(sys.argv[2]))))
except cache_files.UnusableFileError as error:
    print(error)
"""


def file_of(tmp_path, size_bytes):
    """A file of zeros that takes no room on the disk."""
    path = tmp_path / "x.plan"
    path.touch(0o600)
    os.truncate(path, size_bytes)
    return path


@pytest.mark.parametrize(
    ("size_bytes", "says"),
    [(100, "100"), (0, "0"), (2**30, "there is no memory for the 1073741824 bytes of x.plan")],
    ids=["small", "empty", "large"],
)
def test_reading_takes_the_memory_of_the_file(tmp_path, size_bytes, says):
    """On a board with less memory than the largest plan may have, a small one is read; one that is too large for it is a reason and no crash."""
    command = [sys.executable, "-c", SMALL_BOARD, str(file_of(tmp_path, size_bytes)), str(MAX_PAYLOAD_BYTES)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (ran.stdout.strip(), ran.stderr) == (says, "")


@pytest.mark.parametrize("more", [b"x", b"x" * 5000])
def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, monkeypatch, more):
    """What is longer than it was when it was opened is somebody's work in progress."""
    path = file_of(tmp_path, 100)
    real = os.fstat

    def growing(descriptor):
        status = real(descriptor)
        with path.open("ab") as file:
            file.write(more)
        return status

    monkeypatch.setattr(os, "fstat", growing)
    with pytest.raises(cache_files.UnusableFileError, match="was written to while it was read"):
        cache_files.read(path, MAX_PAYLOAD_BYTES)


def test_a_file_that_shrinks_is_given_as_it_is(tmp_path, monkeypatch):
    """What was read is what is there; whoever asked compares its size and digest."""
    path = file_of(tmp_path, 100)
    real = os.fstat

    def shrinking(descriptor):
        status = real(descriptor)
        os.truncate(path, 7)
        return status

    monkeypatch.setattr(os, "fstat", shrinking)
    assert len(cache_files.read(path, MAX_PAYLOAD_BYTES)) == 7
