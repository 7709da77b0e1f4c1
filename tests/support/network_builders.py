"""Tiny networks, and the files a trained model comes in.

Any test may `from network_builders import tiny_network, model_spec, input_spec` (`tests/conftest.py` puts this folder on the path). Importing this file
imports torch.
"""
# ruff: noqa: TID253 - see above

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from edgekit.catalog.recipe import ModelSpec
from edgekit.compiler.load.source import OPSET
from edgekit.compiler.torchvision_ops import define_missing_operators
from edgekit.schema.model_io import InputSpec

LABELS = ("a", "b", "c")
SIDE = 32

define_missing_operators()  # before any test imports timm or torchvision


def input_spec(**changes):
    """Grey frames of 32 × 32 for a model of three channels."""
    fields = {"color": "grey", "channels": 3, "resize": (SIDE, SIDE), "mean": (127.5,) * 3, "std": (127.5,) * 3}
    return InputSpec(**{**fields, **changes})


def model_spec(source="timm:test_resnet", weights=None, **changes):
    """A classifier of three labels."""
    fields = {"source": str(source), "weights": None if weights is None else str(weights), "labels": LABELS, "task": "multiclass"}
    return ModelSpec(**{**fields, **changes})


def binary_spec(source="timm:test_resnet", weights=None, **changes):
    """A classifier of two labels, with one logit or two."""
    return model_spec(source, weights, labels=("negative", "positive"), task="binary", positive="positive", **changes)


def frames(spec, count=2, seed=0):
    """uint8 (count, height, width, frame channels) of noise."""
    shape = (count, *spec.size, spec.frame_channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def settle(module, seed=0, *, channels=3):
    """Gives batch normalizations the running figures of some noise, as training would.

    Leaving them out would show, and a deep network with random weights still tells one frame from another.
    """
    parts = [part for part in module.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    if parts:
        for part in parts:
            part.momentum = 1.0
        with torch.no_grad():
            module.train()(torch.randn(4, channels, 64, 64, generator=torch.Generator().manual_seed(seed)))
    return module.eval()


def create(source, outputs=3, *, seed=0, **arguments):
    """An architecture of timm or torchvision with random weights, by the name a recipe gives it; settled."""
    import timm
    import torchvision

    kind, _, name = source.partition(":")
    torch.manual_seed(seed)
    if kind == "timm":
        return settle(timm.create_model(name, num_classes=outputs, **arguments), seed, channels=arguments.get("in_chans", 3))
    return settle(torchvision.models.get_model(name, weights=None, num_classes=outputs, **arguments), seed)


def tiny_network(outputs=3, *, channels=3, seed=0, last=()):
    """Convolution, batch normalization, pooling, linear head; `last` is appended."""
    torch.manual_seed(seed)
    parts = [
        torch.nn.Conv2d(channels, 8, 3, stride=2, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(inplace=True),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, outputs),
    ]
    return settle(torch.nn.Sequential(*parts, *last), seed, channels=channels)


def run_torch(module, spec, tensors):
    """The module's own logits on frames, computed here and not by edgekit: float32 (frames, outputs)."""
    planes = tensors.astype(np.float32).transpose(0, 3, 1, 2)
    planes = (planes - np.array(spec.mean, dtype=np.float32).reshape(1, -1, 1, 1)) / np.array(spec.std, dtype=np.float32).reshape(
        1, -1, 1, 1
    )
    with torch.inference_mode():
        return module(torch.from_numpy(np.ascontiguousarray(planes))).numpy()


def run_onnx(graph, tensors, *, features=False):
    """Outputs of an ONNX graph for one input at a time: a list an output, float32 (frames, …); the features of the input gate alone, or all but them."""
    import onnxruntime

    data = graph if isinstance(graph, bytes) else graph.read_bytes()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    given = [output.name for output in session.get_outputs() if (output.name == "features") == features]
    rows = [session.run(given, {name: np.ascontiguousarray(tensors[index : index + 1])}) for index in range(len(tensors))]
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def classifier_nodes(channels=3, outputs=3, seed=0):
    """Nodes and initializers of conv → relu → mean → gemm, from "x" to "y"."""
    random = np.random.default_rng(seed)
    weights = {
        "kernel": random.normal(size=(4, channels, 3, 3)),
        "matrix": random.normal(size=(4, outputs)),
        "bias": random.normal(size=outputs),
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "matrix", "bias"], ["y"]),
    ]
    return nodes, [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]


def onnx_model(nodes, initializers, *, inputs=None, outputs=None, opset=OPSET, domains=(), functions=()):
    """An ONNX model; by default one float32 input x (1, 3, 32, 32) and one output y (1, 3)."""
    graph = helper.make_graph(
        nodes,
        "g",
        inputs or [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        outputs or [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])],
        initializers,
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10)


def tiny_onnx(**options):
    """The classifier of `classifier_nodes` as a model."""
    nodes, initializers = classifier_nodes()
    return onnx_model(nodes, initializers, **options)


def write_onnx(path, model):
    """Writes without any check."""
    path.write_bytes(model.SerializeToString())
    return path


__all__ = [
    "LABELS",
    "SIDE",
    "binary_spec",
    "classifier_nodes",
    "create",
    "frames",
    "input_spec",
    "model_spec",
    "onnx",
    "onnx_model",
    "run_onnx",
    "run_torch",
    "settle",
    "tiny_network",
    "tiny_onnx",
    "write_onnx",
]
