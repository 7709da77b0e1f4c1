"""Counting layers in what the engine inspector says, in the words of several versions of TensorRT."""

from __future__ import annotations

import json

import pytest

from edgekit.profiler.engine_layers import LayerCounts, count_layers


def layer(kind, taken, **more):
    """A layer that takes one tensor of a format."""
    return {"Name": "x", "LayerType": kind, "Inputs": [{"Name": "a", "Format/Datatype": taken}], **more}


def text(*layers, key="Bindings"):
    return json.dumps({"Layers": list(layers), key: ["frame", "logits"]})


OLD = "Thirty-two wide channel vectorized row major Int8 format"
NEW = "Int8(1024,32:32,8,1)"


@pytest.mark.parametrize("key", ["Bindings", "I/O Tensors"])
def test_the_whole(key):
    """Layers are counted by kind, whatever the list of inputs and outputs is called."""
    found = count_layers(
        text(
            layer("Reformat", "Row major UInt8 format", ParameterType="Reformat"),
            layer("CaskConvolution", OLD, ParameterType="Convolution", Weights={"Type": "Int8", "Count": 9}),
            layer("CaskConvolution", "Row major linear FP16 format", ParameterType="Convolution"),
            layer("CaskGemmMatrixMultiply", NEW),
            layer("PoolingV2", OLD),
            key=key,
        )
    )
    assert found == LayerCounts(layers=5, weighted=3, int8=2, reformats=1, unknown=0)
    assert found.int8_share == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("one", "kind"),
    [
        (layer("CaskConvolution", "Row major Int8 format"), "int8"),
        (layer("CaskConvolution", "Int8"), "int8"),
        (layer("conv", NEW), "int8"),
        (layer("gemm", "Int8"), "int8"),
        (layer("CaskConvolution", "Half(64,1:8,8,1)"), "weighted"),
        (layer("CaskConvolution", "Float"), "weighted"),
        (layer("CaskConvolution", "Row major linear FP32"), "weighted"),
        (layer("MatrixMultiply", "BFloat16"), "weighted"),
        # Weights that are kept in int8 and computed in float are no work in int8.
        (layer("CaskConvolution", "Half", Weights={"Type": "Int8", "Count": 9}), "weighted"),
        (layer("CaskConvolution", "N/A due to dynamic shapes"), "unknown"),
        ({"Name": "x", "LayerType": "CaskConvolution"}, "unknown"),
        ({"Name": "x", "LayerType": "CaskConvolution", "Inputs": ["a"]}, "unknown"),
        (layer("Myelin", "Int8"), "unknown"),
        (layer("", "Half", Name="{ForeignNode[a...b]}"), "unknown"),
        (layer("Reformat", "Int8"), "reformats"),
        (layer("NoOp", "Int8"), None),
        (layer("PointWiseV2", "Int8"), None),
        ({"Name": "x"}, None),
    ],
)
def test_one_layer(one, kind):
    """A layer counts as what it is, and as nothing else."""
    found = count_layers(text(one))
    expected = {"weighted": 0, "int8": 0, "reformats": 0, "unknown": 0}
    if kind is not None:
        expected[kind] = 1
    expected["weighted"] += expected["int8"]
    assert found == LayerCounts(layers=1, **expected)


def test_without_weights_there_is_no_share():
    """No convolution and no matrix product: no share, rather than 0."""
    assert count_layers(text(layer("Reformat", "Int8"))).int8_share is None


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("", "did not answer with JSON"),
        ("conv1\nconv2", "did not answer with JSON"),
        ("[" * 100_000, "did not answer with JSON"),
        ("[]", "has no layers"),
        ("{}", "has no layers"),
        ('{"Layers": []}', "has no layers"),
        ('{"Layers": [{"Name": "x"}]}', "has no layers"),
        ('{"Layers": ["conv1", "conv2"], "Bindings": []}', "tells only their names"),
    ],
)
def test_what_tells_nothing(answer, says):
    """An answer without details gives the reason and no numbers."""
    found = count_layers(answer)
    assert isinstance(found, str)
    assert says in found
