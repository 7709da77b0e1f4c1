"""A stand-in runtime for profiles: a module with `load` that a fresh process can import, and faults by name."""

from __future__ import annotations

import importlib
import sys
import textwrap

import numpy as np
import pytest

RUNTIME = '''
"""A classifier that answers at once, or fails in the way it was built to."""
import os, pathlib, sys, time
from types import SimpleNamespace
import numpy as np
from edgekit.errors import BundleError, DataError

FAULT = {fault!r}
HAS_MAP = {has_map!r}


class Prediction:
    def __init__(self, frame):
        self.stages_ms = {{"preprocess": 0.25, "infer": 0.5, "cam": 0.125}}
        self._frame, self._drawn = frame, False

    def overlay(self):
        if self._drawn:
            raise RuntimeError("drawn twice")
        self._drawn = True
        return np.repeat(self._frame[..., None], 3, axis=2)


class Classifier:
    def __init__(self, path):
        self.path, self.size_bytes, self.bundle_digest = pathlib.Path(path), 4096, "ab" * 32
        self.manifest = SimpleNamespace(name="tiny", version="1.2", accepted=True, cam=object() if HAS_MAP else None, state=None)
        self.engine = SimpleNamespace(describe=lambda: {{"name": "fake", "version": "1", "device": "CPU", "precision": "int8", "threads": "1"}})
        self.seen = []

        self.closed = False

    def close(self):
        self.closed = True

    def clip(self):
        return self

    def predict(self, frame, *, explain=True, gate=True):
        if FAULT == "refuses-frame":
            raise DataError("not a frame", hint="give another")
        assert frame.dtype == np.uint8
        self.seen.append(int(frame.flat[0]))
        return Prediction(frame)


def load(path):
    print("an engine's banner on stdout")
    if FAULT == "damaged":
        raise BundleError("tiny.edgekit is damaged", hint="copy it again")
    if FAULT == "exception":
        raise ValueError("a library's own words")
    if FAULT == "abort":
        os.abort()
    if FAULT == "exit":
        sys.exit(0)
    if FAULT == "hang":
        time.sleep(60)
    if FAULT == "large":
        Classifier.held = bytearray(b"x") * (200 << 20)
    if FAULT == "slow-load":
        time.sleep(0.2)
    if FAULT == "where":
        pathlib.Path({where!r}).write_text(os.getcwd() + "\\n" + "\\n".join(os.listdir(".")))
    return Classifier(path)
'''


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """Writes a runtime module with a fault and makes it importable here and in children; gives its name."""

    def build(fault="", *, has_map=True):
        name = f"tiny_runtime_{fault.replace('-', '_') or 'sound'}{'' if has_map else '_mapless'}"
        source = textwrap.dedent(RUNTIME).format(fault=fault, has_map=has_map, where=str(tmp_path / "where.txt"))
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()
        sys.modules.pop(name, None)
        return name

    return build


@pytest.fixture
def frames():
    """Three distinct grey frames; the first pixel says which."""
    return [np.full((48, 64), value, np.uint8) for value in (10, 20, 30)]


@pytest.fixture
def bundle(tmp_path):
    path = tmp_path / "tiny.edgekit"
    path.write_bytes(b"not read by the stand-in")
    return path
