"""torchvision beside a PyTorch that its extension was not built for."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

from edgekit.compiler import torchvision_ops


def test_the_model_libraries_import_in_a_fresh_interpreter():
    """With or without a working extension; calling an operator that it lacks still fails."""
    code = """
import torch
from edgekit.compiler.torchvision_ops import define_missing_operators, _extension_loads
define_missing_operators()
define_missing_operators()
import torchvision
import timm
boxes, scores = torch.rand(2, 4), torch.rand(2)
try:
    torch.ops.torchvision.nms(boxes, scores, 0.5)
    print("works", _extension_loads())
except (NotImplementedError, RuntimeError):
    print("fails", _extension_loads())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] in ("works True", "fails False")


def test_without_torchvision_nothing_is_defined(monkeypatch):
    """A machine that compiles ONNX files alone has no torchvision."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(torchvision_ops, "_kept", [])
    torchvision_ops.define_missing_operators.__wrapped__()
    assert torchvision_ops._kept == []
