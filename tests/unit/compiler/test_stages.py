"""The stages: every input changes the key of a result, and what each promises."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from network_builders import binary_spec, input_spec, model_spec, tiny_onnx, write_onnx
from PIL import Image

from edgekit.bundle.manifest import EngineSpec
from edgekit.compiler import versions as v
from edgekit.compiler.progress import Silent
from edgekit.compiler.stages import load as load_module
from edgekit.compiler.stages.baseline import BaselineStage
from edgekit.compiler.stages.explain import ExplainedGraph, ExplainStage
from edgekit.compiler.stages.frames import FramesStage, PreparedSplit, calibration_indices
from edgekit.compiler.stages.load import FloatGraph, LazySource, LoadStage
from edgekit.compiler.stages.measure import Measured, MeasureStage
from edgekit.compiler.stages.quantize import Artefact, QuantizeStage
from edgekit.compiler.workspace import Workspace, digest
from edgekit.errors import DataError, ModelError
from edgekit.evaluation.dataset import Sample
from edgekit.schema.model_io import OutputSpec

OUTPUT = OutputSpec(labels=("a", "b", "c"), task="multiclass")
PIXELS = np.zeros((1, 32, 32, 1), dtype=np.uint8)
GRAPH = FloatGraph(path=Path("g.onnx"), sha256="graph", notes=())
EXPLAINED = ExplainedGraph(path=Path("e.onnx"), sha256="explained", rows=1, columns=1, bias=(), outputs=3, reason="")
ARTEFACT = Artefact(files={}, sha256="artefact", precision="int8", outputs=3)
ENGINE = EngineSpec(name="openvino", files={"xml": "model/a.xml"}, minimum_version="1", precision="int8", settings={}, outputs=3)


def sample(path, labels=("a",), group="p1", index=0):
    return Sample(path=Path(path), file=str(path), labels=labels, split="calib", group=group, mask=None, extra={}, line=index + 2)


@pytest.fixture
def frame_files(tmp_path):
    """Two frames of noise."""
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{index}.png" for index in range(2)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (48, 40), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"one")
    return path


def key(stage):
    return digest(stage.requires())


def split(sha256="frames", tensors=PIXELS):
    return PreparedSplit(tensors=tensors, truth=np.zeros((len(tensors), 3), dtype=bool), samples=(), sha256=sha256)


def source(model=None, spec=None):
    return LazySource(model or model_spec("timm:test_resnet", None), spec or input_spec())


PLAIN_STAGES = {
    "baseline": (
        BaselineStage(source=source(), graph=GRAPH, split=split()),
        {"graph": dataclasses.replace(GRAPH, sha256="x"), "split": split("x"), "source": source(spec=input_spec(mean=(1.0,) * 3))},
        {},
    ),
    "explain": (
        ExplainStage(graph=GRAPH, input=input_spec()),
        {"graph": dataclasses.replace(GRAPH, sha256="x"), "input": input_spec(std=(1.0,) * 3), "map": "none"},
        {"graph": dataclasses.replace(GRAPH, path=Path("elsewhere"))},
    ),
    "quantize": (
        QuantizeStage(graph=EXPLAINED, rung="ptq", calibration=PIXELS, calibration_sha256="c"),
        {"graph": dataclasses.replace(EXPLAINED, sha256="x"), "rung": "ptq-full", "calibration_sha256": "x", "half_weights": True},
        {"graph": dataclasses.replace(EXPLAINED, path=Path("elsewhere"))},
    ),
    "measure": (
        MeasureStage(artefact=ARTEFACT, engine=ENGINE, tensors=PIXELS, tensors_sha256="t"),
        {
            "artefact": dataclasses.replace(ARTEFACT, sha256="x"),
            "engine": dataclasses.replace(ENGINE, settings={"NUM_STREAMS": "2"}),
            "tensors": np.zeros((2, 32, 32, 1), dtype=np.uint8),
            "tensors_sha256": "x",
        },
        {"artefact": dataclasses.replace(ARTEFACT, files={"xml": Path("elsewhere")})},
    ),
}


@pytest.mark.parametrize(("stage", "changes", "same"), PLAIN_STAGES.values(), ids=PLAIN_STAGES)
def test_every_input_changes_the_key(stage, changes, same):
    """And where a file lies does not."""
    keys = [key(dataclasses.replace(stage, **{name: value})) for name, value in changes.items()]
    assert len({key(stage), *keys}) == len(keys) + 1
    assert all(key(dataclasses.replace(stage, **{name: value})) == key(stage) for name, value in same.items())


@pytest.mark.parametrize("stage", [stage for stage, _, _ in PLAIN_STAGES.values()], ids=PLAIN_STAGES)
def test_other_libraries_change_the_key(stage, monkeypatch):
    """Another version may compute otherwise."""
    before = key(stage)
    monkeypatch.setattr(v, "version", lambda name: f"{name} 0.0")
    assert key(stage) != before


def test_another_cpu_changes_the_key_of_what_runs_on_it(monkeypatch):
    """The reference, calibration and measurement round as the instruction set rounds."""
    for name in ("baseline", "quantize", "measure"):
        stage = PLAIN_STAGES[name][0]
        before = key(stage)
        module = __import__(type(stage).__module__, fromlist=["fingerprint"])
        real = module.fingerprint()
        monkeypatch.setattr(module, "fingerprint", lambda real=real: dataclasses.replace(real, instruction_sets=("sse2",)))
        assert key(stage) != before


def test_the_rungs_settings_are_in_the_key(monkeypatch):
    """A rung that is tuned in a later version is made again."""
    from edgekit.compiler.stages import quantize

    stage = PLAIN_STAGES["quantize"][0]
    before = key(stage)
    changed = dataclasses.replace(quantize.RUNGS["ptq"], full_bias_correction=True)
    monkeypatch.setattr(quantize, "RUNGS", {**quantize.RUNGS, "ptq": changed})
    assert key(stage) != before


LOADS = {
    "architecture": {"source": "timm:resnet10t"},
    "library": {"source": "torchvision:test_resnet"},
    "labels": {"labels": ("a", "c", "b")},
    "task": {"task": "multilabel"},
    "arguments": {"arguments": {"drop_rate": 0.1}},
}


@pytest.mark.parametrize("changes", LOADS.values(), ids=LOADS)
def test_every_part_of_the_model_changes_the_key_of_the_load(weights, changes):
    """The order of labels included, since the logits' meaning is checked there."""
    assert key(LoadStage(source=source(model_spec(weights=weights, **changes)))) != key(
        LoadStage(source=source(model_spec(weights=weights)))
    )


def test_weights_count_by_their_content(weights, tmp_path):
    """Not by their name, nor by when they were written."""
    before = key(LoadStage(source=source(model_spec(weights=weights))))
    copy = tmp_path / "copy.pt"
    copy.write_bytes(weights.read_bytes())
    assert key(LoadStage(source=source(model_spec(weights=copy)))) == before
    weights.write_bytes(b"two")
    assert key(LoadStage(source=source(model_spec(weights=weights)))) != before


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_a_source_that_is_a_file_counts_by_its_content(tmp_path, kind):
    """The same file elsewhere is the same model."""
    paths = [tmp_path / "a.bin", tmp_path / "b.bin"]
    for path in paths:
        path.write_bytes(b"one")
    keys = [key(LoadStage(source=source(model_spec(f"{kind}:{path}")))) for path in paths]
    paths[0].write_bytes(b"two")
    keys.append(key(LoadStage(source=source(model_spec(f"{kind}:{paths[0]}")))))
    assert keys[0] == keys[1] != keys[2]


def test_frames_change_the_key_of_the_load(weights):
    """The exported graph has their size."""
    model = model_spec(weights=weights)
    assert key(LoadStage(source=source(model, input_spec(resize=(40, 40))))) != key(LoadStage(source=source(model)))


@pytest.mark.parametrize("fields", [{"weights": "gone.pt"}, {"source": "onnx:gone.onnx"}, {"source": "pt2:nul\0.pt2"}])
def test_a_missing_file_stops_before_anything_is_made(fields):
    """As the model's owner can mend it."""
    with pytest.raises(ModelError, match=r"the file .* is not there"):
        key(LoadStage(source=source(model_spec(**fields))))


def test_only_a_factory_is_never_taken_from_the_cache():
    """Its code may read anything."""
    assert not LoadStage(source=source(model_spec("python:nets:build"))).repeatable
    assert all(LoadStage(source=source(model_spec(kind))).repeatable for kind in ("timm:x", "torchvision:x", "onnx:x", "pt2:x"))


def test_a_cached_load_never_opens_the_model(tmp_path, monkeypatch):
    """A compile whose stages are all there does not import torch; the graph is the same and its digest is that of the file."""
    path = write_onnx(tmp_path / "net.onnx", tiny_onnx())
    space = Workspace(tmp_path / "work", Silent())
    fresh = space.run(LoadStage(source=source(model_spec(f"onnx:{path}"))))

    def opened(*_):
        raise AssertionError("opened")

    monkeypatch.setattr(load_module, "open_source", opened)
    cached = space.run(LoadStage(source=source(model_spec(f"onnx:{path}"))))
    assert fresh == cached
    assert fresh.path.is_file()


def test_notes_of_a_load_come_back_from_the_cache(tmp_path):
    """What was decided while loading is in the report of every compile, not only of the first."""
    from onnx import helper

    model = tiny_onnx()
    model.graph.node.append(helper.make_node("Softmax", ["y"], ["probabilities"]))
    model.graph.output[0].name = "probabilities"
    path = write_onnx(tmp_path / "net.onnx", model)
    space = Workspace(tmp_path / "work", Silent())
    notes = [space.run(LoadStage(source=source(model_spec(f"onnx:{path}")))).notes for _ in range(2)]
    assert notes[0] == notes[1] == ("the Softmax at the output was taken off: edgekit works on logits",)
    assert [record.cached for record in space.records] == [False, True]


def frames_stage(paths, spec=None, **changes):
    fields = {"samples": tuple(sample(path) for path in paths), "input": spec or input_spec(), "output": OUTPUT}
    return FramesStage(**{**fields, **changes})


def test_frames_are_read_once_and_stay_in_order(frame_files, tmp_path):
    """One tensor a row, preprocessed; the truth is that of the rows, not of the cache."""
    space = Workspace(tmp_path / "work", Silent())
    stage = frames_stage(frame_files)
    prepared = space.run(stage)
    assert prepared.tensors.shape == (2, 32, 32, 1)
    assert prepared.tensors.dtype == np.uint8
    relabelled = frames_stage(frame_files, samples=(sample(frame_files[0], ("b",), "p2"), sample(frame_files[1], ("c",), "p3")))
    again = space.run(relabelled)
    assert (prepared.sha256, prepared.groups) == (again.sha256, ["p1", "p1"])
    assert again.truth.tolist() == [[False, True, False], [False, False, True]]
    assert again.groups == ["p2", "p3"]
    assert space.records[-1].cached
    assert key(stage) != key(frames_stage(frame_files[::-1]))
    assert key(stage) != key(frames_stage(frame_files, input_spec(equalize=True)))


def test_a_changed_frame_is_read_again(frame_files):
    """By its content."""
    before = key(frames_stage(frame_files))
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(frame_files[0])
    assert key(frames_stage(frame_files)) != before


@pytest.mark.parametrize(("count", "message"), [(1, None), (2, "holds several frames")])
def test_a_row_labels_one_frame(tmp_path, count, message):
    """A loop of ultrasound in one file does not say which of its frames was labelled."""
    from dicom_builders import dicom_bytes

    path = tmp_path / "loop.dcm"
    path.write_bytes(dicom_bytes(np.random.default_rng(0).integers(0, 256, (count, 40, 40), dtype=np.uint8)))
    space = Workspace(tmp_path / "work", Silent())
    if message is None:
        assert space.run(frames_stage([path])).tensors.shape == (1, 32, 32, 1)
        return
    with pytest.raises(DataError, match=message):
        space.run(frames_stage([path]))
    assert list((tmp_path / "work").iterdir()) == []


def pool(**counts):
    """Frames of labels: `a=(3, 2)` are two groups of three and two frames of a."""
    return [
        sample("f.png", (label,), f"{label}{group}", index)
        for label, groups in counts.items()
        for group, frames in enumerate(groups)
        for index in range(frames)
    ]


def test_calibration_is_even_over_the_labels():
    """However rare one is; a label with too few gives all it has."""
    samples = pool(a=(50, 50), b=(30,), c=(2,))
    chosen = [samples[index].labels[0] for index in calibration_indices(samples, count=20, seed=0)]
    assert {label: chosen.count(label) for label in "abc"} == {"a": 9, "b": 9, "c": 2}


def test_calibration_is_even_over_the_groups_of_a_label():
    """One patient with many frames does not crowd out the others."""
    samples = pool(a=(100, 3, 1, 100))
    chosen = [samples[index].group for index in calibration_indices(samples, count=12, seed=0)]
    assert sorted(chosen.count(f"a{group}") for group in range(4)) == [1, 3, 4, 4]


def test_calibration_is_the_same_for_a_seed():
    """And another for another; ascending, without repeats, all where there are fewer."""
    samples = pool(a=(20, 20), b=(20,))
    first = calibration_indices(samples, count=10, seed=0)
    assert first == calibration_indices(samples, count=10, seed=0) == sorted(set(first))
    assert len(first) == 10
    assert len({tuple(calibration_indices(samples, count=10, seed=seed)) for seed in range(5)}) == 5
    assert calibration_indices(samples, count=1000, seed=0) == list(range(60))
    assert calibration_indices(samples, count=0, seed=0) == []
    assert calibration_indices([], count=5, seed=0) == []


def test_a_map_is_checked_against_its_logits():
    """|mean + bias − logit| an output; nothing to check without a map."""
    maps = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    measured = Measured(logits=np.array([[2.5, 5.0]], dtype=np.float32), maps=maps)
    assert measured.residual((1.0, -1.0)) == pytest.approx(np.array([[0.0, 0.5]]))
    assert Measured(logits=measured.logits, maps=None).residual((1.0, -1.0)).shape == (0, 2)


def test_a_source_is_opened_once(monkeypatch):
    """And only when it is asked for."""
    count = []
    monkeypatch.setattr(load_module, "open_source", lambda *_: count.append(1) or "source")
    lazy = LazySource(binary_spec(), input_spec())
    lazy.fingerprint()
    assert count == []
    assert lazy.get() == lazy.get() == "source"
    assert len(count) == 1
