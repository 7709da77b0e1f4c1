"""A runtime for `stream.py`: the bundle as it is, and then the same CPU time again and again, so that a quick model stands for one that needs longer.

The time is spent in the inference process itself, counting, and is measured as CPU time of its thread: a core that is shared with other work makes it longer, as it
makes an engine's own work longer. A pause would not.
"""

from __future__ import annotations

import os
import time
from typing import Any

import edgekit

PAD = "EDGEKIT_BENCHMARK_PAD_MS"
"""Environment variable: milliseconds of CPU time after each answer."""


def load(path: str, engine: str | None = None) -> Padded:
    """As `edgekit.load`, for a supervisor's process."""
    return Padded(edgekit.load(path, engine=engine), float(os.environ[PAD]))


class PaddedClip:
    """A clip whose answers cost more."""

    def __init__(self, clip: Any, pad_ms: float) -> None:
        self._clip, self._pad_ns = clip, round(pad_ms * 1e6)

    def predict(self, frame: Any, *, explain: bool = True, gate: bool = True) -> Any:
        try:
            return self._clip.predict(frame, explain=explain, gate=gate)
        finally:
            until_ns = time.thread_time_ns() + self._pad_ns
            while time.thread_time_ns() < until_ns:
                pass

    def reset(self) -> None:
        self._clip.reset()


class Padded(PaddedClip):
    """A classifier, likewise."""

    def __init__(self, classifier: Any, pad_ms: float) -> None:
        super().__init__(classifier, pad_ms)
        self._pad_ms = pad_ms

    def clip(self) -> PaddedClip:
        return PaddedClip(self._clip.clip(), self._pad_ms)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clip, name)
