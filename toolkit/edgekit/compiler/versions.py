"""Versions of the libraries whose code a result depends on; part of every stage's key and of the manifest."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

COMPILE_LIBRARIES = ("nncf", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "openvino", "pillow", "timm", "torch", "torchvision")


def versions(*names: str) -> dict[str, str]:
    """Name to version of the installed ones of some distributions."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
