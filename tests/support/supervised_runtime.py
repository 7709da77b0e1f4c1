"""A stand-in runtime for inference processes: it answers at once, and fails in the way that the frame's first pixel or a file beside the bundle says.

A supervisor is given it by its name (`runtime="supervised_runtime"`); nothing in a bundle or the environment can ask for it. The file `BUNDLE.fault` holds the fault
of the next start, and `BUNDLE.starts` gets a line a start.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np

from edgekit.bundle.reader import open_bundle
from edgekit.errors import BundleError, DataError, TargetError
from edgekit.runtime.engines.base import EngineNotBuiltError

FINE, HANG, HANG_IN_C, KILLED, CRASH, REFUSED, NOT_BUILT, OWN_KIND, FOREIGN_LABEL, NO_NUMBER, SLOW, NOT_ASSESSABLE, LOUD = range(13)
"""What the first pixel of a frame asks for."""
SLOW_S = 1.2


class OwnKindError(TargetError):
    """A kind that no supervisor knows."""


class Prediction(SimpleNamespace):
    """What a supervisor's process reads of a `Prediction`."""

    def cam_for(self, label):
        return self.maps[label]


class Clip:
    """Counts its frames, so that a test can see whose state it is."""

    alive: ClassVar[weakref.WeakSet[Clip]] = weakref.WeakSet()

    def __init__(self, classifier):
        self._classifier = classifier
        self.alive.add(self)
        self.reset()

    def reset(self):
        self._seen = 0

    def predict(self, frame, *, explain=True, gate=True):
        self._seen += 1
        return self._classifier.answer(frame, explain, gate, self._seen)


class Classifier:
    def __init__(self, path):
        bundle = open_bundle(path)
        self.manifest, self.bundle_digest = bundle.manifest, bundle.digest
        self.engine_name, self.engine_notes = "openvino", ["onnxruntime: not installed"]

    def clip(self):
        return Clip(self)

    def close(self):
        pass

    def predict(self, frame, *, explain=True, gate=True):
        return self.answer(frame, explain, gate, 0)

    def answer(self, frame, explain, gate, seen):
        asked = int(frame.flat[0])
        fail(asked)
        first, second = self.manifest.output.labels
        mean = float("nan") if asked == NO_NUMBER else float(frame.mean())
        maps = {first: np.full((1, 1), -mean, np.float32), second: np.full((1, 1), mean, np.float32)}
        if asked == NOT_ASSESSABLE and gate:
            return self._prediction(label=None, probabilities={}, logits={}, assessable=False, reason="it is flat", maps={}, cam=None)
        return self._prediction(
            label="cat" if asked == FOREIGN_LABEL else second,
            probabilities={first: 0.25, second: 0.75},
            logits={first: -mean, second: float(seen)},
            assessable=asked != NOT_ASSESSABLE,
            reason="it is flat" if asked == NOT_ASSESSABLE else "" if explain else "not asked for",
            maps=maps,
            cam=maps[second] if explain else None,
        )

    def _prediction(self, **fields):
        return Prediction(
            accepted=self.manifest.accepted,
            engine=self.engine_name,
            engine_notes=(f"{len(Clip.alive)} clips",),
            stages_ms={"infer": 0.5},
            latency_ms=0.5,
            **fields,
        )


def fail(asked):
    if asked == HANG:
        time.sleep(3600)
    if asked == HANG_IN_C:
        pow(7, 10**9)  # holds the interpreter's lock, as an engine's call may
    if asked == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    if asked == CRASH:
        raise ValueError("an engine's own words")
    if asked == REFUSED:
        raise DataError("no frame of mine", hint="another one")
    if asked == NOT_BUILT:
        raise EngineNotBuiltError("build it first", hint="edgekit build")
    if asked == OWN_KIND:
        raise OwnKindError("of its own kind")
    if asked == SLOW:
        time.sleep(SLOW_S)
    if asked == LOUD:
        sys.stdout.write("an engine's banner\n" * 100_000)


def load(path, engine=None):
    fault_file = Path(f"{path}.fault")
    fault = fault_file.read_text() if fault_file.exists() else ""
    with Path(f"{path}.starts").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    if fault == "abort":
        os.abort()
    if fault == "exception":
        raise ValueError("a library's own words")
    if fault == "exit":
        sys.exit(0)
    if fault == "hang":
        time.sleep(3600)
    if fault == "refused":
        raise BundleError("this bundle is damaged", hint="copy it again")
    if engine == "tensorrt":
        raise TargetError("the bundle holds no 'tensorrt' engine")
    return Classifier(path)
