"""NVIDIA's own parser and strongly typed builder take what edgekit writes, and refuse each hard rule's violation."""

from __future__ import annotations

import pytest
import trt_rtx
from trt_graphs import FAULTS, quantized_network

# Fault → where it is refused, the node that is named, and a part of the reason.
REFUSED = {
    "zero-point-not-0": ("parse", "/r2.q", "Non-zero zero point"),
    "zero-point-uint8-128": ("parse", "/r2.q", "Non-zero zero point"),
    "weight-zero-point-not-0": ("parse", "/c2.w.dq", "Non-zero zero point"),
    "scale-0": ("parse", "/r2.q", "must all be positive"),
    "scale-negative": ("parse", "/r2.q", "must all be positive"),
    "weight-scale-0": ("parse", "/c2.w.dq", "must all be positive"),
    "int32-bias": ("parse", "/c2.b.dq", "Int32 but must have type"),
    "conv-integer": ("parse", "/c2.integer", "checkConvInteger"),
    "qlinear-conv": ("parse", "/c2.quantized", "checkQLinearConv"),
    "dynamic-quantize-linear": ("parse", "/d", "checkDynamicQuantizeLinear"),
    "unique": ("parse", "/unique", "checkUnique"),
    "maxpool-dilation": ("parse", "/changed", "does not support dilations"),
    "add-float16-float32": ("parse", "/sum", "must have same input types"),
    "conv-float32-bias": ("parse", "/c2", "`input` and `bias` must be of same type"),
    "weight-scale-float32": ("parse", "/c2", "`input` and `kernel` must be of same type"),
    "open-batch": ("build", "", "no optimization profile"),
}
# What breaks a rule of TensorRT on Jetson and is taken here all the same: the reason why being taken proves nothing.
TAKEN = ("activation-per-channel", "weight-axis-1", "zero-point-missing", "zero-point-uint8-0")


def _result(**options):
    return trt_rtx.parse_and_build(quantized_network(**options).SerializeToString())


@pytest.mark.parametrize("opset", [17, 19, 20])
def test_the_whole_network_builds(opset):
    """The network without a fault parses and builds without an error, in float32 with opset 17 and in float16 from 19 on."""
    result = _result(opset=opset)
    assert (result.ok, result.stage, result.errors) == (True, "done", ())
    assert result.plan_bytes > 0


@pytest.mark.parametrize("fault", sorted(REFUSED))
def test_a_broken_rule_is_refused(fault):
    """The parser or the builder refuses the fault, for its reason and at its node."""
    stage, node, reason = REFUSED[fault]
    result = _result(fault=fault)
    told = "\n".join(result.errors)
    assert (result.ok, result.stage, result.plan_bytes) == (False, stage, 0)
    assert node in told
    assert reason in told


@pytest.mark.parametrize("fault", TAKEN)
def test_what_only_jetsons_refuse_is_taken(fault):
    """These break a rule of TensorRT on Jetson and build here; when that ends, the rule has one more witness and this table is to be changed."""
    assert _result(fault=fault).ok


def test_every_fault_has_its_verdict():
    """Each fault of the builder is either refused or taken in the tables above."""
    assert sorted([*REFUSED, *TAKEN]) == sorted(FAULTS)


def test_bytes_that_are_no_model_are_refused():
    """What is not an ONNX model ends in the parser with an error."""
    result = trt_rtx.parse_and_build(b"not a model")
    assert not result.ok
    assert result.stage == "parse"
    assert result.errors
