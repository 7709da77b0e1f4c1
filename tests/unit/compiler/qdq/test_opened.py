"""Graphs from files that edgekit's exporter did not write."""
# ruff: noqa: TID253 - builds and reads graphs

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper
from qdq_builders import frames, plain, residual, run

from edgekit.compiler.progress import Silent
from edgekit.compiler.quantize.qdq import build
from edgekit.compiler.quantize.qdq.opened import open_graph
from edgekit.compiler.quantize.qdq.rules import RULES
from edgekit.errors import ModelError

WRITINGS = {"onnxruntime": build.Writing(), "tensorrt": build.Writing(opset=19, typed=True)}
everyone = pytest.mark.parametrize("dialect", tuple(RULES))


def foreign(path, *, opset=20, names="none", constants=False):
    """The residual network as another tool might write it: nodes without names or with one for all, weights in Constant nodes, an older opset."""
    proto = residual().proto()
    for item in proto.graph.node:
        if not item.name.startswith(("preamble/", "cam_head/")):
            item.name = "" if names == "none" else "node"
    if opset < 18:
        mean = next(item for item in proto.graph.node if item.op_type == "ReduceMean")
        del mean.input[1:]
        mean.attribute.append(helper.make_attribute("axes", [2, 3]))
        del proto.graph.initializer[[item.name for item in proto.graph.initializer].index("cam_head/axes")]
    if constants:
        moved = [item for item in proto.graph.initializer if not item.name.startswith("preamble")]
        nodes = [
            helper.make_node("Constant", [], [item.name], value=numpy_helper.from_array(numpy_helper.to_array(item))) for item in moved
        ]
        for item in moved:
            proto.graph.initializer.remove(item)
        kept = list(proto.graph.node)
        del proto.graph.node[:]
        proto.graph.node.extend([*nodes, *kept])
    del proto.opset_import[:]
    proto.opset_import.append(helper.make_opsetid("", opset))
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())
    return path


@everyone
@pytest.mark.parametrize("names", ["none", "one-for-all"])
@pytest.mark.parametrize("constants", [False, True], ids=["initializers", "constants"])
@pytest.mark.parametrize("opset", [11, 13, 17, 20])
def test_a_foreign_graph_is_quantized_like_our_own(dialect, names, constants, opset, tmp_path):
    """Valid in the dialect's opset, as many roundings, and the same answers."""
    path = foreign(tmp_path / "foreign.onnx", opset=opset, names=names, constants=constants)
    own = residual().save(tmp_path / "own.onnx")
    rounding = build.Rounding(rules=RULES[dialect], method="extremes", weight_limit=127)
    counts, answers = [], []
    for source in (path, own):
        model = build.quantize(source, rounding, WRITINGS[dialect], frames(4), Silent())
        build.write(model, WRITINGS[dialect], tmp_path / "made.onnx", frames(4), Silent())
        counts.append(sorted(item.op_type for item in model.graph if "Linear" in item.op_type))
        answers.append(run((tmp_path / "made.onnx").read_bytes(), frames(4))[0])
    assert counts[0] == counts[1]
    np.testing.assert_allclose(*answers, atol=0.02 * np.abs(answers[1]).max())


def test_names_are_given_once(tmp_path):
    """The same file has the same names, each of them once, and names that are there already stay."""
    path = foreign(tmp_path / "foreign.onnx", names="one-for-all")
    first, second = (open_graph(path) for _ in range(2))
    names = [item.name for item in first.graph]
    assert len(set(names)) == len(names)
    assert all(names)
    assert names == [item.name for item in second.graph]
    assert [item.name for item in open_graph(plain().save(tmp_path / "own.onnx")).graph] == [item.name for item in plain().model().graph]


def test_a_graph_that_cannot_be_raised_is_refused(tmp_path):
    """The error says which opset is there and which is needed."""
    proto = onnx.load(foreign(tmp_path / "foreign.onnx", opset=11))
    next(item for item in proto.graph.node if item.op_type == "Relu").op_type = "Rectify"
    (tmp_path / "broken.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="opset 11 cannot be taken to opset 13"):
        open_graph(tmp_path / "broken.onnx")


def test_writing_is_repeatable(tmp_path):
    """The same graph and frames give the same bytes."""
    path = residual().save(tmp_path / "graph.onnx")
    rounding = build.Rounding(rules=RULES["tensorrt"], method="least-error", weight_limit=127)
    made = []
    for name in ("a", "b"):
        model = build.quantize(path, rounding, WRITINGS["tensorrt"], frames(4), Silent())
        build.write(model, WRITINGS["tensorrt"], tmp_path / name, frames(4), Silent())
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]


def test_what_is_no_valid_onnx_is_not_written(tmp_path):
    """A graph that ONNX's checker refuses leaves no file."""
    model = plain().model()
    model.graph.sort()
    next(item for item in model.graph if item.op_type == "Relu").attributes["beta"] = ir.AttrFloat32("beta", 1.0)
    with pytest.raises(ModelError, match="not valid ONNX"):
        build.write(model, build.Writing(), tmp_path / "made.onnx", frames(1), Silent())
    assert not (tmp_path / "made.onnx").exists()
