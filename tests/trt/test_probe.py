"""The graphs of one convolution, on NVIDIA's own parser and builder."""

from __future__ import annotations

import pytest
import trt_rtx

from edgekit.runtime.engines.probe_graph import PRECISIONS, one_convolution


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_real_builder_takes_one_convolution(precision):
    """Each precision parses and builds, strongly typed, without an error; a refusal would blame a device for our graph."""
    result = trt_rtx.parse_and_build(one_convolution(precision, typed=True))
    assert (result.ok, result.stage, result.errors) == (True, "done", ())
    assert result.plan_bytes > 0
