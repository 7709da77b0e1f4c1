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
    """

    def __init__(
        self, logits: ArrayLike, cam: ArrayLike | None, before: Callable[[], object] = lambda: None, *, offset: ArrayLike | None = None
    ) -> None:
        cam, offset = (None if given is None else np.array(given, dtype=np.float32) for given in (cam, offset))
        self.raw = RawOutput(logits=np.array(logits, dtype=np.float32), cam=cam, offset=offset)
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
    def map_shape(self):
        return None if self.raw.cam is None else self.raw.cam.shape

    @property
    def gives_offset(self):
        return self.raw.offset is not None

    def _infer(self, tensor: NDArray[np.uint8]) -> RawOutput:  # noqa: ARG002 - the contract's
        self.before()
        return self.raw
