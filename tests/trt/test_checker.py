"""The conformance checker and NVIDIA's own parser say the same of the same graphs and operators."""

from __future__ import annotations

import pytest
import trt_rtx
from trt_graphs import FAULTS, quantized_network

from edgekit.catalog.target import load_target
from edgekit.compiler import conformance
from edgekit.compiler.conformance.operators_table import INTEGER, NEVER, SINCE

# A plugin of the full TensorRT, which TensorRT for RTX has none of.
PLUGINS = {"DeformConv"}
# Fault → the rules that it breaks, and no other.
RULES = {
    "activation-per-channel": {"Q4"},
    "add-float16-float32": {"Q8"},
    "conv-float32-bias": {"Q8"},
    "conv-integer": {"Q7"},
    # Its zero point and its scale are computed, and no constants.
    "dynamic-quantize-linear": {"Q1", "Q2", "Q3", "Q7"},
    "int32-bias": {"Q6"},
    "maxpool-dilation": {"R1"},
    "open-batch": {"Q13"},
    "qlinear-conv": {"Q7"},
    "scale-0": {"Q3"},
    "scale-negative": {"Q3"},
    "unique": {"O1"},
    "weight-axis-1": {"Q5"},
    "weight-scale-0": {"Q3"},
    "weight-scale-float32": {"Q8"},
    "weight-zero-point-not-0": {"Q1"},
    "zero-point-missing": {"Q2"},
    "zero-point-not-0": {"Q1"},
    "zero-point-uint8-0": {"Q2"},
    "zero-point-uint8-128": {"Q1", "Q2"},
}


def _errors(model, target):
    return [finding for finding in conformance.check(model, load_target(target)) if finding.severity == "error"]


@pytest.mark.parametrize(("target", "opset"), [("jetson-orin-nano-8gb", 19), ("jetson-agx-orin-64gb", 19), ("jetson-agx-xavier", 17)])
def test_the_checker_takes_what_the_parser_takes(target, opset):
    """The network that NVIDIA's parser and builder take without an error has none for the checker either."""
    assert _errors(quantized_network(opset=opset), target) == []


@pytest.mark.parametrize("fault", RULES)
def test_the_checker_refuses_every_fault(fault):
    """What NVIDIA's parser or builder refuses, and what only a Jetson's would, the checker refuses before, by the rule that is there for it."""
    assert {finding.rule for finding in _errors(quantized_network(fault=fault), "jetson-agx-orin-64gb")} == RULES[fault]


def test_every_fault_has_its_rules():
    """No fault is left out of the table."""
    assert sorted(RULES) == sorted(FAULTS)


def test_the_parser_has_the_operators_of_the_table():
    """Every operator that the checker's table allows is one that the parser says it has; plugins apart."""
    assert set(SINCE) - trt_rtx.supported(SINCE) == PLUGINS


def test_the_parser_has_none_of_the_refused_operators():
    """No operator that the checker refuses for every version is one that the parser has: nothing is refused without need."""
    assert trt_rtx.supported({*NEVER, *INTEGER}) == frozenset()
