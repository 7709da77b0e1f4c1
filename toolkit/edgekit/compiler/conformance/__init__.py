"""Whether an ONNX graph is one that the TensorRT of a device takes, and takes well, without a device: one file a family of rules.

Does not prove that the device builds the graph: TensorRT's own parser and builder have the last word, on the device.
"""

from edgekit.compiler.conformance.finding import Finding, Rule
from edgekit.compiler.conformance.rules import RULES, check, check_file

__all__ = ["RULES", "Finding", "Rule", "check", "check_file"]
