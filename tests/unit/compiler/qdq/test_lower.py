"""Graphs for older opsets mean the same, or are refused by the operator's name."""

from __future__ import annotations

import numpy as np
import onnx  # noqa: TID253 - checks what was written
import onnx_ir as ir  # noqa: TID253 - as above
import pytest
from qdq_builders import Sketch, frames, node, run, transformer

from edgekit.compiler.quantize.qdq.lower import lower
from edgekit.errors import ModelError


def around(make):
    """A network with the operators that `make` adds behind a 16-channel map, which it hands on in that shape."""
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1))
    return s.head(make(s, stem), 16)


def rows(s, source):
    """(1, 64, 16): positions, then channels."""
    s.add("Reshape", [source, s.constant("flat", [1, 16, 64], np.int64)], "flattened")
    return s.add("Transpose", ["flattened"], "rows", perm=[0, 2, 1])


def back(s, source):
    s.add("Transpose", [source], "columns", perm=[0, 2, 1])
    return s.add("Reshape", ["columns", s.constant("map", [1, 16, 8, 8], np.int64)], "again")


def normalized(*, bias=True, axis=-1, epsilon=None):
    def make(s, source):
        shape = (16,) if axis in (-1, 2) else (64, 16)
        parts = [rows(s, source), s.constant("norm.scale", s.noise(*shape) + 1)]
        if bias:
            parts.append(s.constant("norm.bias", s.noise(*shape)))
        return back(s, s.add("LayerNormalization", parts, "norm", axis=axis, **({} if epsilon is None else {"epsilon": epsilon})))

    return make


def reduced(kind, **attributes):
    def make(s, source):
        mean = s.add(kind, [source, s.constant("axes", [2, 3], np.int64)], "reduced", keepdims=1, **attributes)
        return s.add("Add", [source, mean], "sum")

    return make


def split(count, sizes=None, axis=1):
    def make(s, source):
        inputs = [source] if sizes is None else [source, s.constant("sizes", sizes, np.int64)]
        names = [f"part_{index}" for index in range(count)]
        from onnx import helper

        more = {"num_outputs": count} if sizes is None else {}
        s.nodes.append(helper.make_node("Split", inputs, names, name="split", axis=axis, **more))
        return s.add("Concat", names[::-1], "joined", axis=axis)

    return make


def pooled(s, source):
    return s.add("AveragePool", [source], "pool", kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1], dilations=[1, 1], count_include_pad=1)


def padded(s, source):
    s.add("Pad", [source, s.constant("pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64), s.constant("with", np.array(0.5))], "padded")
    return s.conv("padded", "narrow", 16, 16)


def grid(mode):
    def make(s, source):
        points = np.random.default_rng(0).uniform(-0.9, 0.9, (1, 8, 8, 2))
        return s.add("GridSample", [source, s.constant("grid", points)], "sampled", mode=mode)

    return make


def enlarged(**attributes):
    def make(s, source):
        parts = [source, "", s.constant("scales", [1, 1, 2, 2])]
        return s.add("Resize", parts, "enlarged", mode="linear", coordinate_transformation_mode="half_pixel", **attributes)

    return make


SAME = {
    "gelu": lambda s, x: s.add("Gelu", [x], "gelu"),
    "gelu-tanh": lambda s, x: s.add("Gelu", [s.conv(x, "wide", 16, 16, weight=s.noise(16, 16, 3, 3) * 3)], "gelu", approximate="tanh"),
    "layer-normalization": normalized(),
    "layer-normalization-without-bias": normalized(bias=False, epsilon=1e-3),
    "layer-normalization-over-two-axes": normalized(axis=1),
    "reduce-mean": reduced("ReduceMean"),
    "reduce-mean-that-says-its-default": reduced("ReduceMean", noop_with_empty_axes=0),
    "reduce-max": reduced("ReduceMax"),
    "reduce-sum": reduced("ReduceSum"),
    "reduce-l1": reduced("ReduceL1"),
    "reduce-l2": reduced("ReduceL2"),
    "reduce-sum-of-squares": reduced("ReduceSumSquare"),
    "reduce-log-sum-exp": reduced("ReduceLogSumExp"),
    "split-in-even-parts": split(4),
    "split-in-uneven-parts": split(3),
    "split-by-sizes": split(2, [6, 10]),
    "split-counted-from-the-end": split(2, axis=-3),
    "average-pool": pooled,
    "grid-sample": grid("linear"),
    "grid-sample-cubic": grid("cubic"),
    "pad": padded,
    "resize": enlarged(),
    "resize-that-says-its-defaults": enlarged(antialias=0, keep_aspect_ratio_policy="stretch"),
}


@pytest.mark.parametrize("make", SAME.values(), ids=SAME)
@pytest.mark.parametrize(("opset", "without"), [(17, ()), (17, ("LayerNormalization",)), (19, ())], ids=["17", "17-for-8.5", "19"])
def test_the_older_graph_answers_as_the_newer(make, opset, without):
    """Valid at the older opset by ONNX's own checker, and the same numbers; nothing is left of what the opset or the engine does not have."""
    sketch = around(make)
    model = sketch.model()
    lower(model, opset, without=without)
    proto = ir.to_proto(model)
    assert [entry.version for entry in proto.opset_import] == [opset]
    onnx.checker.check_model(proto, full_check=True)
    assert not {"Gelu" if opset < 20 else "", *without} & {item.op_type for item in proto.graph.node}
    for before, after in zip(run(sketch.model(), frames(3)), run(model, frames(3)), strict=True):
        np.testing.assert_allclose(after, before, atol=4e-6 * np.abs(before).max())


def test_a_whole_transformer_for_an_engine_without_layer_normalization():
    """TensorRT 8.5 has neither LayerNormalization nor Gelu."""
    sketch = transformer()
    model = sketch.model()
    lower(model, 17, without=frozenset({"LayerNormalization"}))
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    for before, after in zip(run(sketch.model(), frames(3)), run(model, frames(3)), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-5)


def test_the_same_opset_changes_nothing():
    """What the target reads as it is, it gets as it is."""
    model = transformer().model()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    lower(model, 20)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def dilated(s, source):
    return s.add("AveragePool", [source], "pool", kernel_shape=[2, 2], dilations=[2, 2], strides=[1, 1])


def padded_axes(s, source):
    return s.add("Pad", [source, s.constant("pads", [1, 1], np.int64), "", s.constant("axes", [2], np.int64)], "pad")


REFUSED = {
    "Mish": lambda s, x: s.add("Mish", [x], "mish"),
    "AveragePool": dilated,
    "Pad": padded_axes,
    "Resize": enlarged(antialias=1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_older_form_is_refused_by_its_name(name):
    """The error names the operator and the node, and not a checker's complaint about the whole graph."""
    model = around(REFUSED[name]).model()
    with pytest.raises(ModelError, match=rf"the operator {name} \(\w+\)"):
        lower(model, 17)


def test_a_mean_over_nothing_is_refused():
    """Before opset 18 a mean without axes was one over all of them."""
    model = around(lambda s, x: s.add("Relu", [x], "idle")).model()
    node(model, "idle").op_type = "ReduceMean"
    node(model, "idle").attributes["noop_with_empty_axes"] = ir.AttrInt64("noop_with_empty_axes", 1)
    with pytest.raises(ModelError, match="reduces nothing"):
        lower(model, 17)


@pytest.mark.parametrize("name", ["GroupNormalization", "RMSNormalization", "Swish", "DeformConv"])
def test_what_is_newer_is_refused_by_its_name(name):
    """Also where nothing is known of it but the opset that brought it."""
    model = around(lambda s, x: s.add("Relu", [x], "newer")).model()
    node(model, "newer").op_type = name
    with pytest.raises(ModelError, match=rf"the operator {name} \(\w+\)"):
        lower(model, 17)
