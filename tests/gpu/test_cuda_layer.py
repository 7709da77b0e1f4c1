"""The CUDA layer on a real GPU, by way of each Python binding: memory, streams, graphs, errors, and many hours' worth of frames.

A kernel of our own stands in for TensorRT. What is checked is in `tests/support/gpu_checks.py`; the fast suite runs the same checks on a fake GPU.

Does not prove that a Jetson does the same: its memory is the CPU's, and its driver is another.
"""

from __future__ import annotations

import pytest
from gpu import rig_of
from gpu_checks import CHECKS

from edgekit.runtime.engines.cuda import ADAPTERS


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_on_a_gpu(adapter, check, record_property):
    """Each adapter does on a GPU what the engine asks of it."""
    CHECKS[check](rig_of(adapter), record_property)
