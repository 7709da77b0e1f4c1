"""An engine that answers as told, for what no real graph would do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgekit.runtime.engines.base import Engine, RawOutput


class FakeEngine(Engine):
    """Gives the same logits and maps for every frame.

    Args:
        logits: (outputs,).
        cam: (outputs, rows, columns), or None.
        offset: (outputs,), or None.
        before: Called before every answer.
        features: (channels,), or None.
    """

    def __init__(
        self,
        logits: ArrayLike,
        cam: ArrayLike | None,
        before: Callable[[], object] = lambda: None,
        *,
        offset: ArrayLike | None = None,
        features: ArrayLike | None = None,
    ) -> None:
        cam, offset, features = (None if given is None else np.array(given, dtype=np.float32) for given in (cam, offset, features))
        self.raw = RawOutput(logits=np.array(logits, dtype=np.float32), cam=cam, offset=offset, features=features)
        self.before = before

    @classmethod
    def open(cls, spec, members):
        raise NotImplementedError

    @staticmethod
    def available():
        raise NotImplementedError

    def describe(self):
        return {"name": "fake"}

    @property
    def input_shape(self):
        return (1, 16, 16, 1)

    @property
    def output_shapes(self):
        outputs = self.raw.logits.shape[-1]
        shapes = {"logits": (1, outputs)}
        if self.raw.cam is not None:
            shapes["cam"] = (1, *self.raw.cam.shape)
        if self.raw.offset is not None:
            shapes["offset"] = (1, outputs)
        if self.raw.features is not None:
            shapes["features"] = (1, *self.raw.features.shape)
        return shapes

    def _infer(self, tensor: NDArray[np.uint8], state: NDArray[np.float32] | None) -> RawOutput:  # noqa: ARG002 - the contract's
        self.before()
        return self.raw
