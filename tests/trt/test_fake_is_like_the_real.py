"""What the fake does to wrong code, and to right code, NVIDIA's real library does too."""

from __future__ import annotations

import pytest
import trt_rtx
from trt_fake import FakeEngine, FakeTensor, fake_tensorrt
from trt_graphs import OUTPUTS, SIDE, quantized_network

# Each leaves in `result` what is to be compared, or ends with an exception, whose kind is.
PREPARED = """
log = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(log)
network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
parser = trt.OnnxParser(network, log)
config = builder.create_builder_config()
"""
MONITOR = """
class Monitor(trt.IProgressMonitor):
    def __init__(self, going=True):
        trt.IProgressMonitor.__init__(self)
        self.going = going
    def phase_start(self, phase_name, parent_phase, num_steps): pass
    def phase_finish(self, phase_name): pass
    def step_complete(self, phase_name, step): return self.going
"""
SNIPPETS = {
    "builder-without-logger": "trt.Builder()",
    "builder-with-a-text": "trt.Builder('log')",
    "gone-function": "builder.build_engine(network, config)",
    "gone-property": "config.max_workspace_size = 1",
    "unknown-attribute-of-a-config": "config.no_such_name = 1",
    "read-only-property": "config.num_optimization_profiles = 1",
    "gone-flag": "trt.BuilderFlag.FP16",
    "gone-network-flag": "trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
    "text-for-a-number": "config.builder_optimization_level = '3'",
    "number-for-a-number": "config.builder_optimization_level = 2\nresult = config.builder_optimization_level",
    "number-for-an-enum": "config.set_flag(0)",
    "unknown-keyword": "builder.create_network(flag=1)",
    "keyword": "result = builder.create_network(flags=0) is None",
    "class-without-constructor": "trt.ICudaEngine()",
    "default-optimization-level": "result = config.builder_optimization_level",
    "no-monitor": "config.progress_monitor = None",
    "monitor": MONITOR + "config.progress_monitor = Monitor()",
    "monitor-without-constructor": "class M(trt.IProgressMonitor):\n    def __init__(self): pass\nconfig.progress_monitor = M()",
    "monitor-that-ends-the-build": MONITOR + "parser.parse(ONNX)\nm = Monitor(False)\nconfig.progress_monitor = m\n"
    "result = builder.build_serialized_network(network, config) is None",
    "not-a-monitor": "config.progress_monitor = object()",
    "parse": "result = parser.parse(ONNX)",
    "parse-a-view": "result = parser.parse(memoryview(ONNX))",
    "parse-nothing": "result = parser.parse(b'')",
    "parse-a-text": "parser.parse('model')",
    "parse-without-an-argument": "parser.parse()",
    "no-errors": "parser.parse(ONNX)\nresult = parser.num_errors",
    "inputs": "parser.parse(ONNX)\nresult = network.num_inputs, network.get_input(0).name, tuple(network.get_input(0).shape)",
    "outputs": "parser.parse(ONNX)\nresult = [network.get_output(i).name for i in range(network.num_outputs)]",
    "build": "parser.parse(ONNX)\nresult = type(builder.build_serialized_network(network, config)).__name__",
    "build-nothing": "result = builder.build_serialized_network(network, config) is None",
    "plan-length": "parser.parse(ONNX)\nlen(builder.build_serialized_network(network, config))",
    "plan-item": "parser.parse(ONNX)\nbuilder.build_serialized_network(network, config)[0]",
    "plan-method": "parser.parse(ONNX)\nbuilder.build_serialized_network(network, config).hex()",
    "plan-as-bytes": "parser.parse(ONNX)\np = builder.build_serialized_network(network, config)\nresult = len(bytes(p)) == p.nbytes",
    "plan-as-view": "parser.parse(ONNX)\np = builder.build_serialized_network(network, config)\nresult = memoryview(p).nbytes == p.nbytes",
    "enum-of-another": "result = trt.BuilderFlag.TF32 == trt.TensorIOMode.INPUT",
    "enum-as-number": "result = int(trt.TensorIOMode.OUTPUT), trt.TensorIOMode.OUTPUT.name",
    "enum-or": "trt.BuilderFlag.TF32 | trt.BuilderFlag.REFIT",
    "enum-of-a-number": "result = trt.TensorIOMode(1) == trt.TensorIOMode.INPUT",
    "flags": "config.set_flag(trt.BuilderFlag.REFIT)\nresult = config.get_flag(trt.BuilderFlag.REFIT), config.get_flag(trt.BuilderFlag.DEBUG)",
    "dims": "d = trt.Dims((1, 2))\nresult = len(d), tuple(d), d[1]",
    "dims-beyond": "trt.Dims((1, 2))[2]",
    "volume": "result = trt.volume((2, 3))",
    "nptype": "result = trt.nptype(trt.DataType.UINT8).__name__",
    "own-logger": "class L(trt.ILogger):\n    def __init__(self):\n        trt.ILogger.__init__(self)\n    def log(self, severity, msg): pass\n"
    "result = type(trt.Builder(L())).__name__",
    "own-logger-without-constructor": "class L(trt.ILogger):\n    def __init__(self): pass\ntrt.Builder(L())",
}
MODEL = quantized_network().SerializeToString()


@pytest.fixture(scope="module")
def real():
    return trt_rtx.outcomes([PREPARED + snippet for snippet in SNIPPETS.values()], MODEL)


def _fake():
    engine = FakeEngine(
        inputs=(FakeTensor(name="frame", dtype="UINT8", shape=(1, SIDE, SIDE, 3)),),
        outputs=(
            FakeTensor(name="logits", dtype="FLOAT", shape=(1, OUTPUTS)),
            FakeTensor(name="cam", dtype="FLOAT", shape=(1, OUTPUTS, SIDE, SIDE)),
        ),
        compute=lambda _: {},
    )
    return fake_tensorrt("11.4", engine=engine)


@pytest.mark.parametrize("name", sorted(SNIPPETS))
def test_the_outcome_is_the_same(name, real):
    """The same code ends the same way, by value or by kind of exception."""
    code = PREPARED + SNIPPETS[name]
    assert trt_rtx.outcome(code, _fake(), MODEL) == real[code]
