"""What stops a compile before a gate could hide it: the machine, the meaning of one logit, a teacher worse than guessing, a map that does not add up."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgekit.bundle.manifest import CamSpec
from edgekit.catalog.recipe import ModelSpec, load_recipe
from edgekit.catalog.target import EngineChoice, Target, load_target
from edgekit.compiler import checks
from edgekit.compiler.finish import check_identity
from edgekit.compiler.pack import cam_spec, shared_cam
from edgekit.compiler.processes import Processes
from edgekit.compiler.progress import Silent
from edgekit.compiler.stages.explain import ExplainedGraph
from edgekit.compiler.stages.measure import Measured, map_likeness
from edgekit.errors import CatalogError, DataError, MissingEngineError, ModelError, TargetError
from edgekit.evaluation.intervals import Figure


class Notes(Silent):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def target(**changes):
    table = {"name": "t", "title": "T", "architectures": ("x86_64",), "engines": (EngineChoice(name="openvino", settings={}),)}
    return Target(**{**table, **changes})


def binary(positive):
    return ModelSpec(source="timm:resnet18", labels=("clear", "pneumonia"), task="binary", positive=positive)


def test_one_logit_stands_for_the_second_label():
    """A logit above 0 means the second label, so it must be the positive one; otherwise every answer would be the wrong way round."""
    checks.check_meaning(binary("pneumonia"), outputs=1)
    with pytest.raises(CatalogError, match="one logit, which is high for 'pneumonia', but positive = 'clear'"):
        checks.check_meaning(binary("clear"), outputs=1)


def test_two_logits_have_any_positive_label():
    """With a logit a label the order is free."""
    for positive in ("clear", "pneumonia"):
        checks.check_meaning(binary(positive), outputs=2)


@pytest.mark.parametrize("high", [0.31, 0.49])
def test_a_teacher_worse_than_guessing_is_refused(high):
    """Every later gate only compares with it, so a swapped label order would pass them all."""
    auc = Figure(value=0.2, low=0.1, high=high)
    with pytest.raises(ModelError, match=r"AUC on val is 0\.200"):
        checks.check_above_chance(auc, enforce=True, progress=Silent())
    notes = Notes()
    checks.check_above_chance(auc, enforce=False, progress=notes)
    assert len(notes.said) == 1


@pytest.mark.parametrize(
    "auc", [Figure(value=0.45, low=0.3, high=0.6), Figure(value=None, low=None, high=None), Figure(value=0.9, low=0.8, high=0.95)]
)
def test_a_teacher_that_may_be_better_than_guessing_goes_on(auc):
    """A small val split does not tell; neither does one without an AUC."""
    notes = Notes()
    checks.check_above_chance(auc, enforce=True, progress=notes)
    assert notes.said == []


def test_a_machine_of_another_kind_is_refused_first(monkeypatch):
    """OpenVINO is proven where it runs."""
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(TargetError, match="this machine is aarch64"):
        checks.check_machine(target(), recipe())


def test_an_engine_that_reads_onnx_is_proven_elsewhere(monkeypatch):
    """In the numerical oracle, whose library has to be there; what is decided by latency cannot be decided."""
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    for name in ("raspberry-pi-5", "jetson-orin-nano-8gb", "jetson-xavier-nx"):
        checks.check_machine(load_target(name), recipe())
    pruning = recipe('compress.prune={ criterion = "l1", latency_target = 0.5 }', "compress.distill={}")
    with pytest.raises(
        TargetError, match="latency_target decides by the latency on raspberry-pi-5, which cannot be measured on this machine"
    ):
        checks.check_machine(load_target("raspberry-pi-5"), pruning)
    counting = ("compress.prune={ macs_target = 0.5 }", "compress.distill={}")
    checks.check_machine(load_target("raspberry-pi-5"), recipe(*counting))
    with pytest.raises(TargetError, match="search decides by the latency on raspberry-pi-5"):
        checks.check_machine(load_target("raspberry-pi-5"), recipe(*counting, "compress.search=true"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(MissingEngineError, match="raspberry-pi-5 needs onnxruntime here"):
        checks.check_machine(load_target("raspberry-pi-5"), recipe())


def test_a_device_that_is_not_here_is_refused_first():
    """Nothing stands in for an NPU."""
    with pytest.raises(TargetError, match="OpenVINO finds no NPU here"):
        checks.check_machine(load_target("intel-core-ultra-npu"), recipe())


def test_a_cpu_without_what_the_target_demands_is_refused_first(monkeypatch, tmp_path):
    """What would be proven on it is not what such a CPU computes."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : avx2\n")
    monkeypatch.setattr("edgekit.runtime.classifier._CPUINFO", cpuinfo)
    with pytest.raises(TargetError, match="needs a CPU with avx512_vnni or avx_vnni"):
        checks.check_machine(load_target("x86-64-vnni"), recipe())


def test_a_missing_engine_is_refused_first(monkeypatch):
    """Before minutes of work, with the extra to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(MissingEngineError, match="needs openvino"):
        checks.check_machine(target(), recipe())


def measured(*, off=0.0):
    maps = np.random.default_rng(0).normal(size=(6, 2, 3, 4)).astype(np.float32)
    return Measured(logits=maps.mean(axis=(2, 3)) + np.float32(0.5) + np.float32(off), maps=maps)


CAM = CamSpec(rows=3, columns=4, maps=2, kind="pooled-linear", bias=(0.5, 0.5), tolerance=1e-3, scale=1.0)


def test_a_map_that_does_not_add_up_is_no_bundle():
    """The logit as mean of the map + bias must hold in the artefact that is packed."""
    check_identity(measured(), CAM)
    with pytest.raises(ModelError, match="does not add up"):
        check_identity(measured(off=0.01), CAM)


def explained(kind):
    return ExplainedGraph(path=Path("g"), sha256="g", rows=3, columns=4, bias=(), outputs=2, reason="", kind=kind)


@pytest.mark.parametrize(("kind", "tolerance"), [("gradient", 1e-3), ("attention", 0.02)])
def test_an_attention_that_is_computed_again_may_be_off_by_its_rounding(kind, tolerance):
    """Twice what was seen on `val`; where map and logit are one computation, float32's rounding is all."""
    found = measured()
    spread = found.logits.std()
    offset = np.full_like(found.logits, 0.5)
    offset[0, 0] += 0.01
    spec = cam_spec(explained(kind), dataclasses.replace(found, offset=offset))
    assert spec.tolerance == pytest.approx(tolerance if kind == "attention" else max(1e-4, tolerance * spread), rel=1e-3)


def test_engines_whose_maps_are_of_two_kinds_are_no_bundle():
    """The manifest describes one map; an engine with another would be refused on the device only, when the first has failed."""
    found = measured()
    constant = dataclasses.replace(explained("pooled-linear"), bias=(0.5, 0.5))
    proofs = [SimpleNamespace(graph=graph, measured_val=found, engine=SimpleNamespace(name=graph.kind)) for graph in (constant, constant)]
    assert shared_cam(proofs).kind == "pooled-linear"
    offset = dataclasses.replace(found, offset=np.full_like(found.logits, 0.5))
    proofs[1] = SimpleNamespace(graph=explained("gradient"), measured_val=offset, engine=SimpleNamespace(name="other"))
    with pytest.raises(ModelError, match="maps of several kinds"):
        shared_cam(proofs)


def test_a_map_of_nan_is_no_bundle():
    """NaN fails the comparison too."""
    found = measured()
    found.maps[0] = np.nan
    with pytest.raises(ModelError, match="does not add up"):
        check_identity(found, CAM)


SAME = {"median": 1.0, "p5": 1.0, "overlap": 1.0, "peak_kept": 1.0}


def test_likeness_is_the_correlation_of_the_answered_map():
    """1 for the same maps at another scale, lower for noise, None without maps."""
    exact = measured()
    scaled = Measured(logits=exact.logits, maps=exact.maps * 2 + 1)
    assert map_likeness(exact, scaled) == pytest.approx(SAME)
    noise = Measured(logits=exact.logits, maps=np.random.default_rng(1).normal(size=exact.maps.shape).astype(np.float32))
    assert map_likeness(exact, noise)["median"] < 0.8
    assert map_likeness(exact, Measured(logits=exact.logits, maps=None)) is None


def smooth_maps(frames=6, outputs=1, side=8, seed=0):
    """Maps that vary slowly, so that a smaller one still shows them: float32 (frames, outputs, side, side)."""
    random = np.random.default_rng(seed)
    place = (np.arange(side) + 0.5) / side
    waves = random.normal(size=(frames, outputs, 2, 1, 1))
    return (waves[:, :, 0] * np.sin(2 * place)[:, None] + waves[:, :, 1] * np.cos(2 * place)[None, :]).astype(np.float32)


def test_maps_of_one_logit_and_of_two_are_of_the_same_label():
    """A network with two logits that says exactly what one with a single logit says has the same map, for either answer."""
    single = smooth_maps()
    logits = single.mean(axis=(2, 3))
    assert (logits > 0).any()
    assert (logits < 0).any()
    pair = np.concatenate([-single, single], axis=1)
    one, two = Measured(logits=logits, maps=single), Measured(logits=pair.mean(axis=(2, 3)), maps=pair)
    assert map_likeness(one, two) == pytest.approx(SAME)
    assert map_likeness(two, one) == pytest.approx(SAME)
    turned = Measured(logits=-logits, maps=-single)
    assert map_likeness(one, turned)["median"] == pytest.approx(-1.0)


def test_maps_of_two_sizes_are_compared_at_the_smaller():
    """A student with another grid does not end a compile, and a shrunk map is like the one it came from."""
    large = smooth_maps(outputs=3, side=8)
    small = large.reshape(6, 3, 4, 2, 4, 2).mean(axis=(3, 5))
    logits = large.mean(axis=(2, 3))
    exact, student = Measured(logits=logits, maps=large), Measured(logits=logits, maps=small)
    assert map_likeness(exact, student) == pytest.approx(SAME, abs=1e-5)
    assert map_likeness(student, exact) == pytest.approx(SAME, abs=1e-5)


def recipe(*settings):
    given = ("model.weights=w", "data.manifest=m", *settings)
    return load_recipe("kermany-densenet121", settings=given)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("compress.prune={latency_target=0.5}", "compress.distill={}", "compress.search=true"), "a search runs in one process, not in 3"),
        (("compress.distill={batch=32}",), "compress.distill.batch = 32 cannot be shared evenly by 3 processes"),
        (('compress.quantize.ladder=["qat"]',), "compress.quantize.qat.batch = 16 cannot be shared evenly"),
    ],
)
def test_what_a_launchers_processes_cannot_do_is_refused(settings, says):
    """Before any work, and only where there are several."""
    with pytest.raises(CatalogError, match=says):
        checks.check_processes(recipe(*settings), Processes(rank=0, count=3))
    checks.check_processes(recipe(*settings), Processes())


class NoTrain:
    """A data manifest without frames of `train`."""

    def split(self, name):
        raise DataError(f"no row has the split {name!r}")


@pytest.mark.parametrize("settings", [("compress.distill={}",), ('compress.quantize.ladder=["ptq", "qat"]',)])
def test_training_without_frames_is_refused_at_the_start(settings):
    """Not after the other rungs were tried; quantization alone needs none."""
    with pytest.raises(DataError, match="no row has the split 'train'"):
        checks.check_trainable(recipe(*settings), NoTrain())
    checks.check_trainable(recipe(), NoTrain())


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        (("model.source=onnx:m.onnx", "compress.distill={}"), True),
        (('compress.student={source="pt2:s.pt2"}', "compress.distill={}"), True),
        (("model.source=onnx:m.onnx", 'compress.student={source="timm:resnet18"}', "compress.distill={}"), False),
        (("model.source=onnx:m.onnx",), False),
    ],
    ids=["onnx-model", "pt2-student", "onnx-teacher", "quantization"],
)
def test_what_is_no_network_of_pytorch_is_not_trained(settings, refused):
    """It is the student that is trained; a teacher in another form is asked later."""

    class Whole:
        def split(self, name):
            return (name,)

    if refused:
        with pytest.raises(CatalogError, match="is no network that PyTorch can train"):
            checks.check_trainable(recipe(*settings), Whole())
    else:
        checks.check_trainable(recipe(*settings), Whole())
