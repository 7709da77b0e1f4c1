"""Decoding with GDCM, in a child process: JPEG Lossless and 12-bit JPEG, which nothing else under a permissive licence decodes.

Rules this file keeps:

1. GDCM ends the process it runs in when a frame is damaged (an uncaught C++ exception). So it runs in a process of its own: what ends is the
   child, and the caller gets an error. The child is started with the first frame that needs it and ended with the object.
2. GDCM is told the codestream's precision and not Bits Stored: with fewer bits than the codestream it wraps values around.
3. The child's answer is believed in its length only after it was compared; a child that does not answer in time is killed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.errors import DataError, MissingEngineError

EXTRA = "edgekit-toolkit[dicom-lossless-jpeg]"

DECODE_TIMEOUT_S = 60.0
"""Longest that one frame may take to decode; a frame of 64 million pixels takes a few seconds."""


class GdcmProcess:
    """A child process that decodes frames of one file; whoever makes it closes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._child: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        """Ends the child."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()

    def decode(self, data: bytes, size_bytes: int, **request: Any) -> bytes:
        """Decodes one frame.

        Args:
            data: The compressed frame.
            size_bytes: What it must decode to.
            request: What `gdcm_worker.decode` needs.

        Returns:
            `size_bytes` bytes of little-endian samples, colour by pixel.

        Raises:
            DataError: When the frame cannot be decoded, or decodes to another size.
            MissingEngineError: When GDCM is not installed.
        """
        if importlib.util.find_spec("gdcm") is None:
            message = f"{self._path}: no decoder for lossless or 12-bit JPEG is installed"
            raise MissingEngineError(message, hint=f"install the extra: {EXTRA}")
        answer = b""
        with (
            contextlib.suppress(OSError),
            self._timed(self._started()) as (child_input, child_output),
        ):  # OSError: the child died on the way
            child_input.write(json.dumps({**request, "length": len(data)}).encode() + b"\n" + data)
            child_input.flush()
            head = child_output.read(8)
            if len(head) == 8 and struct.unpack("<Q", head)[0] == size_bytes:
                answer = child_output.read(size_bytes)
        if len(answer) != size_bytes:
            raise DataError(f"{self._path}: a compressed frame is damaged", hint="export or copy the object again")
        return answer

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            program = str(Path(__file__).with_name("gdcm_worker.py"))
            pipe = subprocess.PIPE
            self._child = subprocess.Popen(  # noqa: S603 (our own program, no shell, nothing from the file in its arguments)
                [sys.executable, program], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL
            )
        return self._child

    @contextlib.contextmanager
    def _timed(self, child: subprocess.Popen[bytes]) -> Iterator[tuple[Any, Any]]:
        timer = threading.Timer(DECODE_TIMEOUT_S, child.kill)
        timer.start()
        try:
            yield child.stdin, child.stdout
        finally:
            timer.cancel()
