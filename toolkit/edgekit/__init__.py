"""edgekit: compile a trained classifier into a proven device bundle, and run that bundle without PyTorch.

The public names are loaded on first use, so that `import edgekit` costs next to nothing on a device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.errors import EdgekitError as EdgekitError
    from edgekit.runtime.classifier import Classifier as Classifier
    from edgekit.runtime.classifier import load as load
    from edgekit.runtime.prediction import Prediction as Prediction

__version__ = "0.1.0"
__all__ = ["Classifier", "EdgekitError", "Prediction", "__version__", "load"]

_HOMES = {
    "Classifier": "edgekit.runtime.classifier",
    "EdgekitError": "edgekit.errors",
    "Prediction": "edgekit.runtime.prediction",
    "load": "edgekit.runtime.classifier",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgekit' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
