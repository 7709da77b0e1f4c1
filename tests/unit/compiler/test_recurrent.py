"""Recurrent models on the compile side: how they are opened and run, what their graphs become, and what is refused of them."""
# ruff: noqa: TID253 - the tests of what loads torch and writes graphs load them

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from network_builders import frames
from recurrent_builders import CELLS, INPUT, STATES, Recurrent, recurrent_spec
from torch import nn

from edgekit.bundle.manifest import EngineSpec
from edgekit.catalog.compress import CompressSpec, DistillSpec, PruneSpec, QuantizeSpec
from edgekit.catalog.recipe import load_recipe
from edgekit.catalog.target import load_target
from edgekit.compiler import checks, pack
from edgekit.compiler.clips import HeldStates
from edgekit.compiler.dialects import dialect_of
from edgekit.compiler.explain.head import PREFIX
from edgekit.compiler.load import RECURRENT, SOURCES, open_source
from edgekit.compiler.load.recurrent import RecurrentTorchModel
from edgekit.compiler.load.source import RecurrentSource, normalize
from edgekit.compiler.progress import Silent
from edgekit.compiler.stages.explain import ExplainStage
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.load import FloatGraph
from edgekit.compiler.stages.measure import MeasureStage, open_artefact
from edgekit.compiler.workspace import file_digest
from edgekit.errors import CatalogError, ModelError
from edgekit.runtime.selftest import answer_clip

FRAMES = frames(INPUT, count=8)
everyone = pytest.mark.parametrize("kind", CELLS)


def source(kind, module=None, **changes):
    return RecurrentTorchModel(module or Recurrent(kind), recurrent_spec(kind, **changes), INPUT)


def explained(kind, folder, choice="auto", module=None):
    """The explained graph of a network."""
    folder.mkdir(exist_ok=True)
    source(kind, module).export(folder / "model.onnx")
    graph = FloatGraph(path=folder / "model.onnx", sha256=file_digest(folder / "model.onnx"), notes=())
    stage = ExplainStage(graph=graph, input=INPUT, map=choice, state=STATES[kind])
    stage.apply(folder, Silent())
    return stage.ensures(folder)


def along(module, tensors):
    """Logits and next states of a clip, by the module itself."""
    state, answers, states = torch.zeros(STATES[module.kind]), [], []
    with torch.no_grad():
        for index in range(len(tensors)):
            logits, state = module(torch.from_numpy(normalize(tensors[index : index + 1], INPUT)), state)
            answers.append(logits[0].numpy())
            states.append(state.numpy())
    return np.stack(answers), np.stack(states)


# The source.


@everyone
def test_clips_do_not_see_each_other(kind):
    """Each clip is run from zeros, also where its frames stand between those of another, and the states are what each frame was given."""
    module = Recurrent(kind)
    clips = ["x", "y", "x", "x", "y", "x", "y", "y"]
    found = source(kind, module).run_clips(FRAMES, clips, lambda _: None)
    for clip in ("x", "y"):
        rows = [index for index, name in enumerate(clips) if name == clip]
        logits, states = along(module, FRAMES[rows])
        np.testing.assert_allclose(found.logits[rows], logits, atol=1e-6)
        np.testing.assert_array_equal(found.states[rows[0]], 0)
        np.testing.assert_allclose(found.states[rows[1:]], states[:-1], atol=1e-6)


def test_the_state_of_a_clip_is_zeros_at_first():
    """A state is kept by its clip alone."""
    held = HeldStates((1, 2), ["a", "b", "a"])
    held.after(0, np.ones((1, 2), np.float32))
    np.testing.assert_array_equal(held.before(1), np.zeros((1, 2)))
    np.testing.assert_array_equal(held.before(2), np.ones((1, 2)))


class _Wrong(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, frame, state):
        return self.answer(frame, state)


def _logits(frame, count=3):
    return frame.mean().reshape(1, 1).repeat(1, count)


WRONG = {
    "no-state": (lambda frame, state: _logits(frame) + state.sum(), "does not return two tensors"),
    "another-state": (lambda frame, state: (_logits(frame) + state.sum(), state[:, :2]), r"returns a state of \[1, 2\]"),
    "more-outputs": (lambda frame, state: (_logits(frame, 4) + state.sum(), state), "has 4 outputs, the recipe names 3 labels"),
    "state-unused": (lambda frame, state: (_logits(frame), state), "answers alike whatever the state"),
    "fails": (lambda frame, state: frame @ state, "fails on a frame"),
}


@pytest.mark.parametrize(("answer", "says"), WRONG.values(), ids=WRONG)
def test_what_is_no_recurrent_model(answer, says):
    """What does not take a frame and a state, and give logits and a state that matter, is refused when it is opened."""
    with pytest.raises(ModelError, match=says):
        source("gru-cell", _Wrong(answer))


def test_a_state_that_grows_without_bound_is_refused():
    """NaN or infinity on the data itself is no reference."""
    module = _Wrong(lambda frame, state: (_logits(frame) + state.sum(), (state + 1) * 1e30))
    with pytest.raises(ModelError, match="NaN or infinite"):
        source("gru-cell", module).run_clips(FRAMES, ["x"] * len(FRAMES), lambda _: None)


@pytest.mark.parametrize("kind", sorted(set(SOURCES) - set(RECURRENT)))
def test_kinds_that_take_a_frame_alone(kind):
    """A state is refused for sources that could only drop it."""
    with pytest.raises(CatalogError, match=rf"\[model\] state is given, but a model from {kind}: takes a frame alone"):
        open_source(recurrent_spec(source=f"{kind}:x"), INPUT)


def test_a_factory_is_opened_as_recurrent(tmp_path, monkeypatch):
    """`python:` with a state gives a source of clips."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recurrent_factory_of_a_test.py").write_text("from recurrent_builders import Recurrent as build\n")
    opened = open_source(recurrent_spec(source="python:recurrent_factory_of_a_test:build", arguments={"kind": "gru-cell"}), INPUT)
    assert isinstance(opened, RecurrentSource)
    found = opened.run_clips(FRAMES, ["x"] * len(FRAMES), lambda _: None)
    np.testing.assert_allclose(found.logits, along(opened.module, FRAMES)[0], atol=1e-6)


# The graph.


def engine_of(graph, name, rung="float", folder=None):
    """A rung of the graph for an engine, opened."""
    target = load_target({"openvino": "x86-64", "onnxruntime": "x86-64-onnxruntime"}[name])
    dialect = dialect_of(target)
    split = PreparedSplit(tensors=FRAMES, truth=np.zeros((len(FRAMES), 3), dtype=bool), samples=(), sha256="frames")
    stage = dialect.exact(graph) if rung == "float" else dialect.make(graph, rung, split)
    made = folder / f"{name}-{rung}"
    made.mkdir()
    stage.apply(made, Silent())
    artefact = stage.ensures(made)
    return artefact, dialect.spec(artefact)


@everyone
@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_the_float_graph_answers_as_the_module(tmp_path, kind, name):
    """Logits and states of the exported, explained graph along a clip are those of PyTorch, on either engine."""
    module = Recurrent(kind).eval()
    artefact, spec = engine_of(explained(kind, tmp_path, module=module), name, folder=tmp_path)
    found = answer_clip(open_artefact(artefact, spec), FRAMES)
    logits, states = along(module, FRAMES)
    np.testing.assert_allclose(np.stack([raw.logits for raw in found]), logits, atol=1e-4)
    np.testing.assert_allclose(np.stack([raw.next_state for raw in found]), states, atol=1e-4)


@pytest.mark.parametrize("kind", ["gru-cell", "lstm-cell"])
def test_the_map_is_the_gradient_through_the_cell(tmp_path, kind):
    """A cell of plain operators has a map: autograd's gradient times features; what the state and the gates add is offset."""
    module = Recurrent(kind).eval()
    graph = explained(kind, tmp_path, module=module)
    assert graph.kind == "gradient"
    artefact, spec = engine_of(graph, "onnxruntime", folder=tmp_path)
    found = answer_clip(open_artefact(artefact, spec), FRAMES[:3])
    _, states = along(module, FRAMES)
    for index, raw in enumerate(found):
        features = module.cnn(torch.from_numpy(normalize(FRAMES[index : index + 1], INPUT))).detach().requires_grad_()
        before = torch.from_numpy(states[index - 1]) if index else torch.zeros(STATES[kind])
        logits, _ = module.tail(features, before)
        for label in range(3):
            (slope,) = torch.autograd.grad(logits[0, label], features, retain_graph=True)
            positions = features.shape[2] * features.shape[3]
            np.testing.assert_allclose(raw.cam[label], (slope * features).sum(1)[0].detach().numpy() * positions, atol=1e-4)
        np.testing.assert_allclose(raw.cam.mean(axis=(1, 2)) + raw.offset, raw.logits, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "choice", "says"),
    [
        ("gru", "auto", "the operator GRU"),
        ("lstm", "auto", "the operator LSTM"),
        ("gru", "masking", "features are not masked"),
        ("gru-cell", "none", "the recipe asks for none"),
    ],
)
def test_a_recurrent_model_without_a_map_says_why(tmp_path, kind, choice, says):
    """Where the pass knows no rule, or none is wanted, there is no map, and nothing else is recommended that would be refused."""
    graph = explained(kind, tmp_path, choice)
    assert not graph.has_map
    assert says in graph.reason
    assert "makes one by masking" not in graph.reason


@everyone
def test_what_depends_on_the_state_stays_in_float(tmp_path, kind):
    """Weights of the convolutions are int8 and no others; nothing of the recurrent part is rounded, and its nodes have the head's names."""
    graph = explained(kind, tmp_path)
    nodes = {node.name: node for node in ir.load(graph.path).graph}
    assert not any(name.startswith(PREFIX) for name, node in nodes.items() if node.op_type == "Conv")
    cell = {"Gemm", "GRU", "LSTM", "Sigmoid", "Tanh"}
    assert all(name.startswith(PREFIX) for name, node in nodes.items() if node.op_type in cell)
    artefact, _ = engine_of(graph, "onnxruntime", "ptq", tmp_path)
    model = onnx.load(artefact.files["onnx"])
    integers = {item.name for item in model.graph.initializer if item.data_type == onnx.TensorProto.INT8 and len(item.dims) > 1}
    restored = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in integers}
    readers = {node.op_type for node in model.graph.node if restored.intersection(node.input)}
    assert readers == {"Conv"}
    assert len(integers) == 2


@everyone
@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_the_quantized_graph_follows_the_float_one(tmp_path, kind, name):
    """Along a clip INT8 convolutions keep logits and states near; nothing runs away from frame to frame."""
    module = Recurrent(kind).eval()
    artefact, spec = engine_of(explained(kind, tmp_path, module=module), name, "ptq", tmp_path)
    tensors = np.concatenate([FRAMES] * 4)
    found = answer_clip(open_artefact(artefact, spec), tensors)
    logits, states = along(module, tensors)
    assert artefact.precision == "int8"
    for given, wanted in (([raw.logits for raw in found], logits), ([raw.next_state for raw in found], states)):
        apart = np.abs(np.stack(given) - wanted)
        assert 0 < apart.max() < 0.1 * max(1.0, np.ptp(wanted))


def test_measuring_runs_clips_in_order(tmp_path):
    """The answers to frames of two clips in turn are those of each clip alone."""
    artefact, spec = engine_of(explained("gru-cell", tmp_path), "onnxruntime", folder=tmp_path)
    clips = tuple("xyxyxyxy")
    stage = MeasureStage(artefact=artefact, engine=spec, tensors=FRAMES, tensors_sha256="", clips=clips)
    stage.apply(tmp_path, Silent())
    found = stage.ensures(tmp_path)
    for first in (0, 1):
        alone = answer_clip(open_artefact(artefact, spec), FRAMES[first::2])
        np.testing.assert_array_equal(found.logits[first::2], np.stack([raw.logits for raw in alone]))
    assert stage.requires() != dataclasses.replace(stage, clips=tuple("xxxxyyyy")).requires()


def test_golden_states_are_packed():
    """The manifest's entry names a member and a tolerance for each engine; a plain graph has none."""
    states = {"openvino": np.random.default_rng(0).normal(size=(6, 1, 4)).astype(np.float32)}
    spec, members = pack._state_spec(SimpleNamespace(state=(1, 4)), states)
    assert (spec.shape, spec.golden) == ((1, 4), {"openvino": "golden/openvino-states.npy"})
    assert 0.04 < spec.tolerance["openvino"] < 0.06
    assert list(members) == ["golden/openvino-states.npy"]
    assert pack._state_spec(SimpleNamespace(state=None), {}) == (None, {})


def test_an_engine_entry_is_that_of_any_model(tmp_path):
    """The engine's entry of a recurrent artefact has its logits, and nothing of the state."""
    artefact, spec = engine_of(explained("gru", tmp_path), "openvino", folder=tmp_path)
    assert isinstance(spec, EngineSpec)
    assert spec.outputs == artefact.outputs == 3


# The recipe.


REFUSED = {
    "compress.prune": lambda recipe: _compressed(recipe, prune=PruneSpec(latency_target=0.5), distill=DistillSpec()),
    "compress.distill": lambda recipe: _compressed(recipe, distill=DistillSpec()),
    "compress.quantize.ladder: qat": lambda recipe: _ladder(recipe, "ptq", "qat"),
    "compress.quantize.ladder: float-fallback": lambda recipe: _ladder(recipe, "ptq", "float-fallback"),
    "explain.compare": lambda recipe: dataclasses.replace(recipe, explain=dataclasses.replace(recipe.explain, compare=("grad-cam",))),
    "data.columns.mask": lambda recipe: dataclasses.replace(
        recipe, data=dataclasses.replace(recipe.data, columns=dataclasses.replace(recipe.data.columns, mask="mask"))
    ),
}


def _compressed(recipe, **parts):
    return dataclasses.replace(recipe, compress=CompressSpec(**parts))


def _ladder(recipe, *rungs):
    return _compressed(recipe, quantize=QuantizeSpec(ladder=rungs))


@pytest.fixture
def recipe():
    plain = load_recipe("phantom-lung", settings=["data.manifest=x.csv"])
    plain = dataclasses.replace(plain, compress=CompressSpec(), data=dataclasses.replace(plain.data, columns=type(plain.data.columns)()))
    return dataclasses.replace(plain, model=dataclasses.replace(plain.model, state=(1, 4)))


@pytest.mark.parametrize(("name", "change"), REFUSED.items(), ids=REFUSED)
def test_what_takes_single_frames_is_refused(recipe, name, change):
    """What is not made for a recurrent model is named before any work; without a state it is made."""
    checks.check_recurrent(recipe)
    changed = change(recipe)
    with pytest.raises(CatalogError, match=name):
        checks.check_recurrent(changed)
    checks.check_recurrent(dataclasses.replace(changed, model=dataclasses.replace(changed.model, state=None)))


@pytest.mark.parametrize("rungs", [("ptq",), ("ptq", "ptq-full"), ("float",)])
def test_rungs_of_a_recurrent_model(recipe, rungs):
    """What is quantized after training, or not at all, is made."""
    checks.check_recurrent(_ladder(recipe, *rungs))


def test_a_state_in_a_recipe_has_a_shape():
    """A shape that is none is refused where it is read."""
    with pytest.raises(ValueError, match="a state has 1 to 4 axes"):
        recurrent_spec(state=(1, 0))
