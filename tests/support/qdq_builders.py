"""Explained float graphs by hand, to quantize: uint8 frame in, preamble, some operators, the float head of the map; and what ONNX says a rounding is, in numpy.

Values are called as the nodes that make them.
"""
# ruff: noqa: TID253 - building ONNX graphs takes onnx

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

SIDE, CLASSES = 8, 3
OPSET = 20


def frames(count=4, side=SIDE, seed=0):
    """uint8 (count, side, side, 1) of noise."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 1), dtype=np.uint8)


class Sketch:
    """Nodes and initializers, added one by one; `planes` is the normalized frame, float32 (1, 1, side, side)."""

    def __init__(self, side=SIDE, seed=0, opset=OPSET):
        self.side, self.opset = side, opset
        self.random = np.random.default_rng(seed)
        self.nodes, self.initializers = [], []
        self.outputs = []
        self.add("Cast", ["frame"], "preamble/float", to=TensorProto.FLOAT)
        self.add("Transpose", ["preamble/float"], "preamble/planes", perm=[0, 3, 1, 2])
        self.add("Sub", ["preamble/planes", self.constant("preamble/mean_value", np.full((1, 1, 1, 1), 127.5))], "preamble/mean")
        self.add("Mul", ["preamble/mean", self.constant("preamble/scale_value", np.full((1, 1, 1, 1), 1 / 127.5))], "planes")
        self.nodes[-1].name = "preamble/std"

    def add(self, op_type, inputs, name, **attributes):
        """A node of one output, which has the node's name."""
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name, values, dtype=np.float32):
        self.initializers.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def noise(self, *shape, scale=1.0):
        fan = max(1, int(np.prod(shape[1:])))
        return self.random.normal(size=shape) * scale / np.sqrt(fan)

    def conv(self, source, name, given, taken, *, kernel=3, group=1, bias=True, weight=None, **attributes):
        """A convolution that keeps the size, or has the strides that `attributes` say."""
        weight = self.noise(given, taken // group, kernel, kernel) if weight is None else weight
        inputs = [source, self.constant(f"{name}.weight", weight)]
        if bias:
            inputs.append(self.constant(f"{name}.bias", self.noise(given)))
        return self.add("Conv", inputs, name, group=group, kernel_shape=[kernel, kernel], pads=[kernel // 2] * 4, **attributes)

    def relu(self, source):
        return self.add("Relu", [source], f"{source}_relu")

    def linear(self, source, name, given, taken, *, bias=True):
        """MatMul, and an Add with a constant."""
        out = self.add("MatMul", [source, self.constant(f"{name}.weight", self.noise(taken, given))], name)
        return self.add("Add", [out, self.constant(f"{name}.bias", self.noise(given))], f"{name}_sum") if bias else out

    def head(self, source, channels, classes=CLASSES):
        """The float head of the map, as the stage `explain` writes it."""
        maps = [source, self.constant("cam_head/kernel", self.noise(classes, channels, 1, 1))]
        self.nodes.append(helper.make_node("Conv", maps, ["cam"], name="cam_head/maps", kernel_shape=[1, 1]))
        self.nodes.append(
            helper.make_node(
                "ReduceMean", ["cam", self.constant("cam_head/axes", [2, 3], np.int64)], ["mean"], name="cam_head/mean", keepdims=0
            )
        )
        bias = self.constant("cam_head/bias", self.noise(classes))
        self.nodes.append(helper.make_node("Add", ["mean", bias], ["logits"], name="cam_head/logits"))
        self.outputs = ["logits", "cam"]
        return self

    def gemm_head(self, source, taken, classes=CLASSES, **attributes):
        """A linear layer that makes the logits, without a map."""
        parts = [source, self.constant("fc.weight", self.noise(taken, classes)), self.constant("fc.bias", self.noise(classes))]
        self.nodes.append(helper.make_node("Gemm", parts, ["logits"], name="fc", **attributes))
        self.outputs = ["logits"]
        return self

    def proto(self):
        """The checked model with the shapes and types of every value."""
        graph = helper.make_graph(
            self.nodes,
            "by-hand",
            [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, self.side, self.side, 1])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self.outputs],
            self.initializers,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)
        made = onnx.shape_inference.infer_shapes(made, strict_mode=True, data_prop=True)
        onnx.checker.check_model(made, full_check=True)
        return made

    def model(self):
        return ir.from_proto(self.proto())

    def save(self, path):
        path.write_bytes(self.proto().SerializeToString())
        return path


def plain(width=16, **options):
    """Three convolutions in a row, the first from the frame, and the head."""
    s = Sketch(**options)
    first = s.relu(s.conv("planes", "stem", width, 1))
    second = s.relu(s.conv(first, "middle", width, width))
    return s.head(s.relu(s.conv(second, "last", width, width)), width)


def residual(width=16, **options):
    """A stem, a sum of its value with two convolutions of it, and the head."""
    s = Sketch(**options)
    stem = s.relu(s.conv("planes", "stem", width, 1))
    inner = s.relu(s.conv(stem, "inner", width, width))
    s.add("Add", [s.conv(inner, "outer", width, width), stem], "sum")
    return s.head(s.relu("sum"), width)


def transformer(width=16, **options):
    """Patches of 2 × 2, a normalized linear layer with a residual sum, and the head over the patches."""
    s = Sketch(**options)
    side = s.side // 2
    weight = s.noise(width, 1, 2, 2)
    s.add("Conv", ["planes", s.constant("patch.weight", weight)], "patch", kernel_shape=[2, 2], strides=[2, 2])
    s.add("Reshape", ["patch", s.constant("tokens_shape", [1, width, side * side], np.int64)], "rows")
    s.add("Transpose", ["rows"], "tokens", perm=[0, 2, 1])
    s.add("LayerNormalization", ["tokens", s.constant("norm.scale", np.ones(width)), s.constant("norm.bias", np.zeros(width))], "norm")
    s.add(
        "Add", ["tokens", s.linear(s.add("Gelu", [s.linear("norm", "up", 2 * width, width)], "gelu"), "down", width, 2 * width)], "stream"
    )
    s.add("Transpose", ["stream"], "channels", perm=[0, 2, 1])
    s.add("Reshape", ["channels", s.constant("map_shape", [1, width, side, side], np.int64)], "features")
    return s.head("features", width)


def run(model, tensors, names=None, *, optimize=False):
    """Values of a graph on frames: a list a name, each (frames, …). Without optimization every operator is computed as ONNX defines it."""
    import onnxruntime

    proto = ir.to_proto(model) if isinstance(model, ir.Model) else onnx.load_model_from_string(bytes(model))
    if names is not None:
        known = {info.name: info for info in (*proto.graph.value_info, *proto.graph.output)}
        del proto.graph.output[:]
        proto.graph.output.extend(known.get(name) or onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rows = [session.run(names, {"frame": np.ascontiguousarray(frame[None])}) for frame in tensors]
    return [np.concatenate([np.atleast_1d(part) for part in parts]) for parts in zip(*rows, strict=True)]


def quantize_linear(values, scale, zero_point, kind):
    """QuantizeLinear of the ONNX standard in numpy: divide, round half to even, add the zero point, saturate."""
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    return np.clip(np.rint(values / scale) + zero_point, low, high).astype(kind)


def node(model, name):
    (found,) = [item for item in model.graph if item.name == name]
    return found


def made_by(value):
    """Operator that makes a value; empty where none does."""
    producer = None if value is None else value.producer()
    return "" if producer is None else producer.op_type
