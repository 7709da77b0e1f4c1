"""The whole compression in one compile: prune, recover, distill, quantize with training, prove; resumed anywhere, and refused where it must be.

The clock is the one thing that is replaced: how fast an artefact is, is taken from its size. The network is far too small for real times to differ, and a
decision that rests on times would make these tests say something else on every machine.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from command_line import files_below
from compile_builders import write_project
from PIL import Image

from edgekit.bundle.reader import open_bundle
from edgekit.catalog.recipe import load_recipe
from edgekit.compiler import compress, timing
from edgekit.compiler.pipeline import compile_recipe
from edgekit.compiler.progress import Silent
from edgekit.compiler.prune.macs import multiply_accumulates
from edgekit.compiler.stages.train import example_frame
from edgekit.errors import DataError
from edgekit.runtime import selftest

PRUNE = "compress.prune={latency_target=0.8,steps=2,recovery_epochs=1,round_to=4}"
DISTILL = "compress.distill={epochs=2,batch=8}"
QAT = 'compress.quantize={ladder=["ptq","qat"],qat={epochs=1,batch=8,frames_per_epoch=16}}'
# So small a share of flips that no rung of these few frames can show it: the ladder is climbed to its end.
CLIMB = "accept.max_flips=0.0001"
MASKS = 'data.columns={mask="mask"}'
WHOLE = (PRUNE, DISTILL, QAT, "accept.enforce=false", CLIMB, MASKS)


def size_for_time(candidate, reference, specs, frame, *, tries=1):
    """A latency that falls with the weights, as a clock would show it on a network that is large enough."""
    share = candidate.files["bin"].stat().st_size / reference.files["bin"].stat().st_size
    return timing.LatencyShare(latency_ms=share, reference_ms=1.0, share=share, low=share, high=share, samples=1, steady=True)


@pytest.fixture(autouse=True)
def steady_clock(monkeypatch):
    monkeypatch.setattr(timing, "latency_share", size_for_time)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The project of the other integration tests, for this file alone: its work folder fills."""
    return write_project(tmp_path_factory.mktemp("compression"))


@pytest.fixture(scope="module")
def compressed(trained):
    """One whole compression: the result, its bundle's bytes, and the work folder that it left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "latency_share", size_for_time)
        (result,) = compile_recipe(
            load_recipe(trained.recipe, settings=WHOLE), out=trained.folder / "whole.edgekit", workdir=trained.workdir, progress=Silent()
        )
    return result


def run(project, *settings, out, workdir=None, progress=None):
    (result,) = compile_recipe(
        load_recipe(project.recipe, settings=settings), out=out, workdir=workdir or project.workdir, progress=progress or Silent()
    )
    return result


def test_a_compression_ends_in_a_bundle_that_answers(compressed):
    """Pruned, trained and quantized with training, it opens as on a device and passes its own golden frames; nothing of the training is in it."""
    bundle = open_bundle(compressed.bundle)
    assert [check.status for check in selftest.run(bundle)] == ["PASS"]
    assert bundle.manifest.decision.temperature > 0
    assert set(bundle.manifest.decision.thresholds) == {"consolidation"}
    assert not [name for name in bundle.manifest.members if "weights" in name or "plan" in name]


MAP_GATES = ["cam_pearson", "cam_pearson_p5", "cam_overlap", "cam_peak", "cam_residual", "cam_control", "cam_pointing_game"]


def test_the_maps_are_held_against_the_new_networks_own(compressed):
    """Every gate about the map is judged; the reference is the pruned network before quantization; lesions of all splits are compared."""
    gates = [gate for gate in compressed.document["gates"] if gate["name"].startswith("cam_")]
    assert [gate["name"] for gate in gates] == MAP_GATES
    # The limits of this recipe allow any map, so the random networks pass them too, and that is said.
    assert {gate["name"]: gate["status"] for gate in gates}["cam_control"] == "not demonstrated"
    cam = compressed.document["cam"]
    assert cam["new_network"]
    found = cam["found"]
    assert found["fidelity"]["frames"] + found["fidelity"]["featureless"] == compressed.document["device"]["n"]
    assert found["residual_share"] < 1e-4
    assert [(draw["what"], draw["seed"]) for draw in found["control"]["draws"]] == [("head", 0), ("head", 1), ("head", 2), ("all", 0)]
    assert all(draw["figures"]["pearson_median"] < 0.99 for draw in found["control"]["draws"])
    assert found["localisation"]["frames"] == sum(found["localisation"]["splits"].values()) > 0
    assert set(found["localisation"]["splits"]) >= {"train", "val", "test"}


def test_the_worst_frames_are_shown_and_stay_at_home(compressed):
    """The report beside the bundle names and draws them, the least alike first; what travels has figures and no frame."""
    worst = compressed.document["cam"]["worst"]
    assert [row["pearson"] for row in worst] == sorted(row["pearson"] for row in worst)
    page = compressed.outputs.report_html.read_text()
    summary = bytes(open_bundle(compressed.bundle).members["report/summary.json"])
    assert json.loads(summary)["maps"]["fidelity"]["frames"] > 0
    for row in worst:
        assert f"device map of {row['file']}" in page
        assert row["file"].encode() not in summary


def test_the_report_tells_every_step(compressed):
    """What was decided, what it rests on, and what each step came to."""
    document = compressed.document
    pruning = document["pruning"]
    assert pruning["share"] <= 0.8
    assert any(layer["after"] < layer["before"] for layer in pruning["layers"])
    assert all(layer["after"] % 4 == 0 or layer["after"] == layer["before"] for layer in pruning["layers"])
    assert [training["stage"] for training in document["training"]][:2] == ["recovery 1", "distill"]
    assert [step["name"] for step in document["steps"]] == ["teacher", "FP32", "INT8, unpruned", "student, FP32", "INT8"]
    sizes = {step["name"]: step["size_bytes"] for step in document["steps"]}
    assert sizes["INT8"] < sizes["INT8, unpruned"] < sizes["FP32"]
    assert [row["rung"] for row in document["ladder"]] == ["ptq", "qat"]
    assert {"sensitivity", "specificity", "net_harm", "ece_increase"} <= {gate["name"] for gate in document["gates"]}


def test_a_reports_page_stands_alone(compressed):
    """The page has no address in it but those of its own pictures."""
    page = compressed.outputs.report_html.read_text()
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
    assert json.loads(compressed.outputs.report_json.read_text()) == compressed.document


class Stop(Silent):
    """Interrupts at the begin of a stage, or inside it after some steps."""

    def __init__(self, stage, steps=0):
        self._stage = stage
        self._left = steps
        self._here = False

    def begin(self, stage, *, cached):
        self._here = stage.startswith(self._stage) and not cached
        if self._here and not self._left:
            raise KeyboardInterrupt

    def step(self, done, total):  # noqa: ARG002 - the protocol's
        if self._here:
            self._left -= 1
            if self._left <= 0:
                raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("stage", "steps"),
    [
        ("train distill", 5),
        ("qat", 2),
        *(
            pytest.param(*stop, marks=pytest.mark.slow)
            for stop in (("ratio", 2), ("prune step 1", 0), ("train recovery", 1), ("load student", 0), ("rounded", 0))
        ),
    ],
)
def test_a_compile_killed_anywhere_ends_in_the_same_bundle(trained, compressed, tmp_path, stage, steps):
    """Given the recorded decisions before it, an interrupted and resumed compile writes the bytes of an uninterrupted one."""
    workdir = tmp_path / "work"
    shutil.copytree(trained.workdir, workdir)
    removed = {"ratio": "ratio-*", "prune": "prune-*", "train": "train-*", "load": "load-*", "qat": "qat-*", "rounded": "rounded-*"}
    later = list(removed)[list(removed).index(stage.split()[0]) :]
    for name in later:
        for folder in workdir.glob(removed[name]):
            shutil.rmtree(folder)
    out = tmp_path / "out.edgekit"
    with pytest.raises(KeyboardInterrupt):
        run(trained, *WHOLE, out=out, workdir=workdir, progress=Stop(stage, steps))
    assert not out.exists()
    run(trained, *WHOLE, out=out, workdir=workdir)
    assert out.read_bytes() == compressed.bundle.read_bytes()


def test_a_student_of_another_architecture_learns_from_several_teachers(trained, tmp_path):
    """An ensemble, and a network that was neither's."""
    other = json.dumps(str(trained.weights))
    result = run(
        trained,
        'compress.student={source="timm:test_efficientnet"}',
        f'compress.distill={{epochs=1,batch=8,teachers=[{{source="timm:test_resnet",weights={other}}}]}}',
        "accept.enforce=false",
        out=tmp_path / "x.edgekit",
    )
    assert result.document["student"] == "timm:test_efficientnet"
    assert result.document["ensemble"] == ["timm:test_resnet"]
    assert [check.status for check in selftest.run(open_bundle(result.bundle))] == ["PASS"]


def test_pruning_for_a_device_that_is_not_here_counts(trained, tmp_path, monkeypatch):
    """A Jetson's latency is unknown here, so multiply-accumulates decide and no clock is asked; the network that is made has as many; page and note say what that is worth."""
    monkeypatch.setattr(timing, "latency_share", lambda *_, **__: pytest.fail("a clock was asked"))
    made, finish = [], compress.Compressor.finish
    monkeypatch.setattr(compress.Compressor, "finish", lambda self, network, **more: made.append(network) or finish(self, network, **more))
    settings = (
        'targets=["jetson-orin-nano-8gb"]',
        "compress.prune={macs_target=0.7,steps=2,recovery_epochs=1,round_to=4}",
        "compress.distill={epochs=1,batch=8}",
        'compress.quantize.ladder=["ptq"]',
        "accept.enforce=false",
    )
    result = run(trained, *settings, out=tmp_path / "x.edgekit")
    pruning = result.document["pruning"]
    assert (pruning["measure"], pruning["target"], pruning["host"]) == ("macs", 0.7, None)
    assert pruning["share"] <= 0.7
    assert pruning["share"] in [probe["macs"] / pruning["unpruned_macs"] for probe in pruning["probes"]]
    frame = example_frame(load_recipe(trained.recipe, settings=settings).input)
    assert multiply_accumulates(made[0].build(), frame) / pruning["unpruned_macs"] == pruning["share"]
    assert any(layer["after"] < layer["before"] for layer in pruning["layers"])
    assert any("of the multiply-accumulates; what that is worth in time" in note for note in result.document["notes"])
    assert "Multiply-accumulates asked for" in result.outputs.report_html.read_text()
    assert open_bundle(result.bundle).manifest.compatible == ("jetson-orin-nano-8gb",)


def test_a_search_keeps_its_front_and_compiles_the_chosen_point(trained, tmp_path):
    """Every trial is in the report, the chosen one is on the front, and a second compile takes the recorded search."""
    settings = (
        "compress.prune={latency_target=0.8,steps=1,round_to=4}",
        "compress.distill={epochs=1,batch=8}",
        "compress.search=true",
        'compress.study={trials=3,epochs=1,ratios=[0.1,0.5],rungs=["ptq"],criteria=["l1","taylor"],max_auc_loss=0.5}',
        "accept.enforce=false",
    )
    first = run(trained, *settings, out=tmp_path / "first.edgekit")
    trials = first.document["search"]["trials"]
    assert len(trials) == 3
    (chosen,) = [trial for trial in trials if trial["chosen"]]
    assert chosen["pareto"]
    front = [trial for trial in trials if trial["pareto"]]
    for trial in trials:
        dominated = any(
            other["share"] <= trial["share"]
            and other["auc"] >= trial["auc"]
            and (other["share"], other["auc"]) != (trial["share"], trial["auc"])
            for other in front
        )
        assert trial["pareto"] is not dominated
    second = run(trained, *settings, out=tmp_path / "second.edgekit")
    assert second.bundle.read_bytes() == first.bundle.read_bytes()
    assert second.document["search"] == first.document["search"]


def shuffled_head(tensors, random):
    name = next(name for name in tensors if tensors[name].ndim == 2)
    tensors[name] = tensors[name][:, random.permutation(tensors[name].shape[1])]


def crushed(tensors, random):
    for name, tensor in tensors.items():
        if tensor.ndim >= 2:
            scale = np.abs(tensor).max() / 3
            tensors[name] = (np.round(tensor / scale) * scale).astype(np.float32)


@pytest.mark.parametrize("fault", [shuffled_head, crushed])
def test_a_planted_failure_is_refused(trained, tmp_path, fault):
    """A student whose head is shuffled or whose weights are crushed to a few values leaves a report and no bundle."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(trained.weights)
    fault(tensors, np.random.default_rng(0))
    save_file({name: tensor.copy(order="C") for name, tensor in tensors.items()}, tmp_path / "bad.safetensors")
    student = f'compress.student={{source="timm:test_resnet",weights={json.dumps(str(tmp_path / "bad.safetensors"))}}}'
    gates = ("accept.auc_margin=0.01", "accept.max_harmful_flips=0.01", "accept.max_flips=0.05")
    result = run(trained, student, *gates, out=tmp_path / "out" / "x.edgekit")
    assert not result.accepted
    assert result.bundle is None
    assert sorted(files_below(tmp_path / "out")) == ["x.report.html", "x.report.json"]
    failed = [gate for gate in result.document["gates"] if not gate["passed"]]
    assert failed
    assert all(gate["advice"] for gate in failed)


def test_black_calibration_frames_are_refused(trained, tmp_path):
    """Ranges measured on nothing would clip every patient's frame."""
    folder = tmp_path / "data"
    shutil.copytree(trained.folder / "data", folder)
    lines = (folder / "manifest.csv").read_text().splitlines()
    split, file = lines[0].split(",").index("split"), lines[0].split(",").index("file")
    for line in lines[1:]:
        cells = line.split(",")
        if cells[split] in ("calib", "train"):
            path = folder / cells[file]
            with Image.open(path) as image:
                size = image.size
            Image.new("L", size).save(path)
    with pytest.raises(DataError, match="calibration frames are black or of one grey level"):
        run(trained, f"data.manifest={json.dumps(str(folder / 'manifest.csv'))}", out=tmp_path / "x.edgekit", workdir=tmp_path / "work")
