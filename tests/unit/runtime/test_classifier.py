"""`load`: which bundles open, on which engine, and what a classifier says of itself."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
from device_bundles import FAULTS, SETTINGS, frame, write_device_bundle
from fake_engines import FakeEngine

import edgekit
from edgekit.bundle.manifest import CamSpec, EngineSpec, Gate, GoldenSpec
from edgekit.bundle.reader import open_bundle
from edgekit.errors import BundleError, DataError, EdgekitError, MissingEngineError, NotFiniteError, TargetError
from edgekit.runtime import classifier as classifier_module
from edgekit.runtime.classifier import Classifier, completeness_residual, load
from edgekit.runtime.engines import choice
from edgekit.runtime.engines.base import EngineNotBuiltError, ModelRefusedError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.edgekit"


def test_what_a_classifier_says_of_itself(path):
    """Digest, path, size, manifest and engine are those of the bundle that was opened."""
    classifier = edgekit.load(str(write_device_bundle(path, accepted=False)))
    bundle = open_bundle(path)
    assert (classifier.bundle_digest, classifier.path, classifier.size_bytes) == (bundle.digest, path, path.stat().st_size)
    assert classifier.manifest == bundle.manifest
    assert classifier.engine_notes == []
    assert classifier.predict(frame()).accepted is False


REFUSED = {
    "map-of-another-size": (BundleError, r"computes maps of the shape \(2, 2, 2\), the manifest says \(2, 4, 4\)"),
    "map-missing": (BundleError, "computes maps of the shape None"),
    "map-not-listed": (BundleError, "the manifest says None"),
    "more-outputs": (BundleError, r"outputs \{'logits': \(1, 3\), 'cam': \(1, 3, 4, 4\)\} are not the 2 logits"),
    "other-architecture": (TargetError, "proven on aarch64-be, this machine is"),
    "unknown-engine": (BundleError, "the engine 'openvina' is not known"),
    "engine-too-old": (TargetError, "is older than 9999.1"),
    "precision-not-pinned": (BundleError, "does not pin INFERENCE_PRECISION_HINT"),
    "precision-unknown": (BundleError, "refuses the model: Wrong value f31"),
    "setting-that-writes": (BundleError, "'CACHE_DIR' of OpenVINO is not one a bundle may choose"),
    "file-of-no-role": (BundleError, "needs the files bin and xml"),
    "other-input-size": (BundleError, r"takes frames of the shape \(1, 16, 16, 1\), the manifest says \(1, 8, 8, 1\)"),
    "other-input-colour": (BundleError, r"the manifest says \(1, 16, 16, 3\)"),
    "model-not-xml": (BundleError, "refuses the model"),
}
ANSWERED_BADLY = {"nan-logits", "infinite-logits", "map-does-not-add-up"}


def test_every_fault_of_the_builder_is_met():
    """Each fault is refused at opening or at the first frame, here or in the self-test."""
    assert set(FAULTS) == {*REFUSED, *ANSWERED_BADLY, *(fault for fault in FAULTS if fault.startswith("golden"))}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_bundle_that_cannot_run_is_refused_when_it_is_opened(path, fault, monkeypatch):
    """Each fault is refused at opening, by the kind of who must act, with a hint, and without a trace on the disk."""
    monkeypatch.chdir(path.parent)
    kind, says = REFUSED[fault]
    with pytest.raises(kind, match=says) as caught:
        load(write_device_bundle(path, fault=fault))
    assert caught.value.hint
    assert [item.name for item in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("fault", ["nan-logits", "infinite-logits"])
def test_logits_that_are_not_finite_are_no_answer(path, fault):
    """A model that answers with NaN or infinity is an error of the target, not an answer."""
    classifier = load(write_device_bundle(path, fault=fault))
    with pytest.raises(TargetError, match="NaN or infinite logits"):
        classifier.predict(frame())


def two_engines(path, *, temperature=None):
    """A bundle with a second engine that is the first one under another name; it may have a temperature of its own."""
    first, second = (
        EngineSpec(
            name=name,
            files={"xml": "model/openvino.xml", "bin": "model/openvino.bin"},
            minimum_version="2024.1",
            precision="f32",
            settings=SETTINGS,
            outputs=2,
            temperature=temperature if name == "other" else None,
            acceptance=(Gate(name="flips", value=0.0, bound=0.5, passed=True),) if name == "other" else (),
        )
        for name in ("openvino", "other")
    )
    golden = GoldenSpec(
        frames="golden/frames.npy",
        logits={"openvino": "golden/logits.npy", "other": "golden/logits.npy"},
        tolerance={"openvino": 1e-3, "other": 1e-3},
    )
    return open_bundle(write_device_bundle(path, engines=(first, second), golden=golden))


def test_the_first_engine_that_is_installed_runs(path, monkeypatch):
    """An engine that is not installed is passed over, and `engine_notes` says so."""
    bundle = two_engines(path)
    fake = FakeEngine([0.0, 0.0], np.zeros((2, 4, 4)))

    def open_engine(spec, members):
        if spec.name == "openvino":
            raise MissingEngineError("OpenVINO cannot be loaded: no module", hint="install it")
        return fake

    monkeypatch.setattr(choice, "open_engine", open_engine)
    classifier = Classifier(bundle)
    assert classifier.engine is fake
    assert classifier.engine_notes == ["openvino: OpenVINO cannot be loaded: no module"]
    with pytest.raises(MissingEngineError):
        Classifier(bundle, engine="openvino")
    assert Classifier(bundle, engine="other").engine is fake


CANNOT_RUN = [
    MissingEngineError("cannot be loaded"),
    TargetError("too old"),
    EngineNotBuiltError("not built"),
    ModelRefusedError("refused"),
]


@pytest.mark.parametrize("error", CANNOT_RUN, ids=lambda error: type(error).__name__)
def test_an_engine_that_cannot_run_here_gives_way_to_the_next(path, monkeypatch, error):
    """Whatever an engine cannot do here, the next one of the bundle answers, and every answer says which it was and why."""
    bundle = two_engines(path)
    fake = FakeEngine([0.0, 0.0], np.zeros((2, 4, 4)))

    def open_engine(spec, members):
        if spec.name == "openvino":
            raise error
        return fake

    monkeypatch.setattr(choice, "open_engine", open_engine)
    classifier = Classifier(bundle)
    assert (classifier.engine, classifier.engine_name) == (fake, "other")
    prediction = classifier.predict(frame())
    assert (prediction.engine, prediction.engine_notes) == ("other", (f"openvino: {error.message}",))
    with pytest.raises(type(error), match=error.message):
        Classifier(bundle, engine="openvino")


def test_the_first_engine_answers_without_notes(path):
    """Where the bundle's first engine runs, there is nothing to say."""
    prediction = Classifier(two_engines(path)).predict(frame())
    assert (prediction.engine, prediction.engine_notes) == ("openvino", ())


def test_an_engine_answers_with_its_own_temperature(path, monkeypatch):
    """Probabilities are calibrated for the engine that answers: its own temperature where it has one, else the bundle's."""
    bundle = two_engines(path, temperature=4.0)
    monkeypatch.setattr(choice, "open_engine", lambda *_: FakeEngine([0.0, 2.0], np.zeros((2, 4, 4))))
    first, other = (Classifier(bundle, engine=name).predict(frame()) for name in ("openvino", "other"))
    assert first.probabilities["malignant"] == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert other.probabilities["malignant"] == pytest.approx(1 / (1 + np.exp(-0.5)))


def test_another_error_is_no_reason_for_another_engine(path, monkeypatch):
    """Only what an engine may be refused for is passed over; anything else comes out."""
    bundle = two_engines(path)

    def broken(spec, members):
        raise ValueError("a defect")

    monkeypatch.setattr(choice, "open_engine", broken)
    with pytest.raises(ValueError, match="a defect"):
        Classifier(bundle)


def test_a_model_that_contradicts_the_manifest_is_no_reason_for_another_engine(path, monkeypatch):
    """An engine that opens on a model of another shape is an error of the bundle, though the next one would fit."""
    bundle = two_engines(path)

    def open_engine(spec, members):
        return FakeEngine([0.0, 0.0], np.zeros((2, 2, 2) if spec.name == "openvino" else (2, 4, 4)))

    monkeypatch.setattr(choice, "open_engine", open_engine)
    with pytest.raises(BundleError, match="computes maps of the shape"):
        Classifier(bundle)


def test_a_bundle_that_is_wrong_is_no_reason_for_another_engine(path, monkeypatch):
    """A setting that no bundle may choose, or bytes that are damaged, are an error though the next engine would run."""
    bundle = two_engines(path)

    def open_engine(spec, members):
        if spec.name == "openvino":
            raise BundleError("the setting 'PLUGIN' is not one a bundle may choose")
        return FakeEngine([0.0, 0.0], np.zeros((2, 4, 4)))

    monkeypatch.setattr(choice, "open_engine", open_engine)
    with pytest.raises(BundleError, match="PLUGIN"):
        Classifier(bundle)


def test_a_library_that_refuses_the_model_gives_way(path, tmp_path):
    """OpenVINO, given a file that it cannot read as a model, refuses it in a way that lets the next engine answer."""
    with pytest.raises(ModelRefusedError, match="refuses the model"):
        load(write_device_bundle(path, fault="model-not-xml"))
    with pytest.raises(BundleError) as caught:
        load(write_device_bundle(tmp_path / "y.edgekit", fault="setting-that-writes"))
    assert not isinstance(caught.value, ModelRefusedError)


class Failing(FakeEngine):
    """Fails on every frame, or on those that are told."""

    def __init__(self, error, after=0):
        super().__init__([0.0, 3.0], np.zeros((2, 4, 4)), self.fail)
        self.error, self.after, self.closed = error, after, 0

    def fail(self):
        self.after -= 1
        if self.after < 0:
            raise self.error

    def close(self):
        self.closed += 1


def with_engines(monkeypatch, **engines):
    """Opens these; an error in the place of an engine is raised."""

    def open_engine(spec, members):
        found = engines[spec.name]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(choice, "open_engine", open_engine)


def test_an_engine_that_fails_on_a_frame_gives_way_for_good(path, monkeypatch):
    """The frame is answered by the next engine, with its temperature, its name and the reason; the failed one is closed and not asked again."""
    first, second = Failing(TargetError("the GPU is gone"), after=1), FakeEngine([0.0, 2.0], np.zeros((2, 4, 4)))
    with_engines(monkeypatch, openvino=first, other=second)
    classifier = Classifier(two_engines(path, temperature=4.0))
    before = classifier.predict(frame())
    assert (before.engine, before.engine_notes, first.closed) == ("openvino", (), 0)
    for _ in range(2):
        found = classifier.predict(frame())
        assert (found.engine, found.engine_notes) == ("other", ("openvino: failed on a frame: the GPU is gone",))
        assert found.probabilities["malignant"] == pytest.approx(1 / (1 + np.exp(-0.5)))
    assert (classifier.engine, classifier.engine_name, first.closed, first.after) == (second, "other", 1, -1)


@pytest.mark.parametrize(
    ("logits", "cam", "offset"),
    [([[0.0, 2.0]], np.zeros((2, 4, 4)), None), ([0.0, 2.0], np.zeros((2, 4, 4)), np.zeros((2, 2)))],
    ids=["logits", "offset"],
)
def test_outputs_of_other_shapes_than_the_graphs_are_no_answer(logits, cam, offset):
    """OpenVINO 2026.4.1 was seen to give (3, 3) where its graph says (1, 3)."""
    with pytest.raises(TargetError, match="which the graph does not have"):
        FakeEngine(logits, cam, offset=offset).infer(np.zeros((1, 16, 16, 1), dtype=np.uint8))


class Promising(FakeEngine):
    """An engine whose graph has other outputs than it gives."""

    def __init__(self, promised, given):
        super().__init__([0.0, 2.0], None)
        self.promised, self.raw = {"logits": (1, 2), **promised}, dataclasses.replace(self.raw, **given)

    @property
    def output_shapes(self):
        return self.promised


def zeros(*shape):
    return np.zeros(shape, dtype=np.float32)


@pytest.mark.parametrize(
    ("promised", "given"),
    [
        ({"cam": (1, 2, 4, 4)}, {}),
        ({}, {"cam": zeros(2, 4, 4)}),
        ({"cam": (1, 2, 4, 4)}, {"cam": zeros(2, 4, 5)}),
        ({"features": (1, 8)}, {"features": zeros(9)}),
        ({"features": (1, 8)}, {"offset": zeros(8)}),
        ({"next_state": (1, 6)}, {"next_state": zeros(6)}),
    ],
    ids=["missing", "more", "cam", "features", "another", "state"],
)
def test_an_engine_gives_what_its_graph_has_and_nothing_else(promised, given):
    """An output that is missing, one more, or one of another shape is no answer; a state keeps the batch's axis."""
    with pytest.raises(TargetError, match="which the graph does not have"):
        Promising(promised, given).infer(np.zeros((1, 16, 16, 1), dtype=np.uint8))


@pytest.mark.parametrize("given", [{"features": zeros(8)}, {"next_state": zeros(1, 6)}, {"cam": zeros(2, 4, 4), "offset": zeros(2)}])
def test_what_the_graph_has_is_an_answer(given):
    """The same shapes, with the batch's axis where the graph has it."""
    promised = {name: value.shape if name == "next_state" else (1, *value.shape) for name, value in given.items()}
    raw = Promising(promised, given).infer(np.zeros((1, 16, 16, 1), dtype=np.uint8))
    assert all(getattr(raw, name) is value for name, value in given.items())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["logits", "next_state"])
def test_numbers_that_are_none_are_no_answer(where, bad):
    """A logit or a state that is NaN or infinite ends the frame."""
    broken = np.array([[0.0, bad]], dtype=np.float32) if where == "next_state" else np.array([0.0, bad], dtype=np.float32)
    promised = {"next_state": (1, 2)} if where == "next_state" else {}
    with pytest.raises(NotFiniteError, match="NaN or infinite"):
        Promising(promised, {where: broken}).infer(np.zeros((1, 16, 16, 1), dtype=np.uint8))


@pytest.mark.parametrize(("offset", "shown"), [([0.5, 1.5], True), ([0.5, 1.4], False), ([0.5, np.nan], False)])
def test_a_map_adds_up_with_the_frames_own_offset(offset, shown):
    """Where the manifest has no constant bias, the graph's offset stands for it; a map that does not add up with it is withheld."""
    spec = CamSpec(rows=4, columns=4, maps=2, kind="gradient", bias=(), tolerance=1e-3, scale=1.0)
    engine = FakeEngine([1.0, 2.0], np.full((2, 4, 4), 0.5), offset=offset)
    raw = engine.infer(np.zeros((1, 16, 16, 1), dtype=np.uint8))
    assert bool((completeness_residual(raw, spec) <= spec.tolerance).all()) is shown
    assert np.isnan(completeness_residual(dataclasses.replace(raw, offset=None), spec)).all()


def test_an_engine_that_fails_stays_where_none_is_left(path, monkeypatch):
    """Its failure is the answer, with no notes left behind; it may do better on the next frame."""
    first = Failing(TargetError("the GPU is gone"))
    with_engines(monkeypatch, openvino=first, other=MissingEngineError("not installed"))
    classifier = Classifier(two_engines(path))
    with pytest.raises(TargetError, match="the GPU is gone"):
        classifier.predict(frame())
    assert (classifier.engine_notes, first.closed) == ([], 0)
    first.after = 1
    assert classifier.predict(frame()).engine == "openvino"


def test_an_engine_that_was_named_never_gives_way(path, monkeypatch):
    """Whoever named an engine gets its failure, though another one would answer."""
    with_engines(monkeypatch, openvino=Failing(TargetError("the GPU is gone")), other=FakeEngine([0.0, 2.0], np.zeros((2, 4, 4))))
    classifier = Classifier(two_engines(path), engine="openvino")
    for _ in range(2):
        with pytest.raises(TargetError, match="the GPU is gone"):
            classifier.predict(frame())


def test_only_failures_of_the_device_give_way(path, monkeypatch):
    """An error of another kind comes out, and the engine stays: it is a defect, or the bundle's."""
    with_engines(monkeypatch, openvino=Failing(BundleError("wrong"), after=0), other=FakeEngine([0.0, 2.0], np.zeros((2, 4, 4))))
    classifier = Classifier(two_engines(path))
    with pytest.raises(BundleError, match="wrong"):
        classifier.predict(frame())
    assert classifier.engine_name == "openvino"


def test_a_next_engine_that_contradicts_the_manifest_is_an_error(path, monkeypatch):
    """While frames are answered, too, a wrong bundle is no reason for another engine."""
    with_engines(monkeypatch, openvino=Failing(TargetError("gone")), other=FakeEngine([0.0, 2.0], np.zeros((2, 2, 2))))
    with pytest.raises(BundleError, match="computes maps of the shape"):
        Classifier(two_engines(path)).predict(frame())


def test_a_closed_classifier_answers_no_more(path, monkeypatch):
    """Closing gives the engine back once, as does leaving the context; afterwards a frame is an error, and no other engine is opened for it."""
    first = Failing(None, after=9)
    with_engines(monkeypatch, openvino=first, other=FakeEngine([0.0, 2.0], np.zeros((2, 4, 4))))
    with Classifier(two_engines(path)) as classifier:
        assert classifier.predict(frame()).engine == "openvino"
        assert first.closed == 0
    classifier.close()
    assert first.closed == 1
    with pytest.raises(TargetError, match="the classifier was closed"):
        classifier.predict(frame())


def test_closing_waits_for_the_frame(path, monkeypatch):
    """An engine is not taken away from a frame that another thread has in it."""
    entered, go = threading.Event(), threading.Event()

    def slow():
        entered.set()
        assert go.wait(20)
        assert engine.closed == 0

    engine = Failing(None, after=9)
    engine.before = slow
    with_engines(monkeypatch, openvino=engine, other=engine)
    classifier = Classifier(two_engines(path))
    found = []
    answering = threading.Thread(target=lambda: found.append(classifier.predict(frame()).engine))
    answering.start()
    assert entered.wait(20)
    closing = threading.Thread(target=classifier.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    go.set()
    answering.join(20)
    closing.join(20)
    assert (found, engine.closed) == (["openvino"], 1)


def test_no_engine_is_installed(path, monkeypatch):
    """Where every engine of the bundle is missing, it is the installer's to mend: each is named, with the remedies."""
    bundle = two_engines(path)

    def missing(spec, members):
        raise MissingEngineError(f"{spec.name} is missing", hint=f"install {spec.name}")

    monkeypatch.setattr(choice, "open_engine", missing)
    with pytest.raises(MissingEngineError, match="openvino: openvino is missing; other: other is missing") as caught:
        Classifier(bundle)
    assert caught.value.hint == "install openvino; install other"


def test_no_engine_runs_here(path, monkeypatch):
    """Where the engines cannot run for several reasons, it is the device: one error names each reason."""
    bundle = two_engines(path)

    def refuse(spec, members):
        if spec.name == "openvino":
            raise MissingEngineError("not installed", hint="install it")
        raise ModelRefusedError("the model is refused")

    monkeypatch.setattr(choice, "open_engine", refuse)
    with pytest.raises(
        TargetError, match="no engine of the bundle runs here: openvino: not installed; other: the model is refused"
    ) as caught:
        Classifier(bundle)
    assert caught.value.hint == "install it"


def test_an_engine_that_is_not_in_the_bundle(path):
    """Asking for an engine that the bundle does not hold names those it has."""
    write_device_bundle(path)
    with pytest.raises(TargetError, match="holds no 'tensorrt' engine") as caught:
        load(path, engine="tensorrt")
    assert "openvino" in caught.value.hint
    assert load(path, engine="openvino").engine.describe()["name"] == "openvino"


def test_errors_are_edgekits(path):
    """Whatever cannot be opened is an `EdgekitError`, which `edgekit` exports."""
    for wrong in ("nowhere.edgekit", path.parent, "\0"):
        with pytest.raises(edgekit.EdgekitError):
            load(wrong)
    assert edgekit.EdgekitError is EdgekitError


@pytest.mark.parametrize(
    ("flags", "wanted", "opens"),
    [
        ("avx2 avx512_vnni", ("avx512_vnni", "avx_vnni"), True),
        ("avx2 avx_vnni", ("avx512_vnni", "avx_vnni"), True),
        ("avx2", (), True),
        ("avx2", ("avx512_vnni", "avx_vnni"), False),
        ("", ("avx2",), False),
    ],
)
def test_a_cpu_without_what_was_proven_is_refused(tmp_path, monkeypatch, flags, wanted, opens):
    """Sums that saturate unseen would give wrong labels; a CPU that does not tell counts as one without."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nflags : {flags}\n")
    monkeypatch.setattr(classifier_module, "_CPUINFO", cpuinfo)
    if opens:
        classifier_module.check_instruction_sets(wanted, "t")
        return
    with pytest.raises(TargetError, match=f"needs a CPU with {' or '.join(wanted)}"):
        classifier_module.check_instruction_sets(wanted, "t")


def test_a_bundle_of_another_cpu_does_not_open(path, tmp_path, monkeypatch):
    """The check is part of opening, not of a doctor that nobody runs."""
    monkeypatch.setattr(classifier_module, "_CPUINFO", tmp_path / "missing")
    bundle = open_bundle(write_device_bundle(path))
    Classifier(bundle)
    target = dataclasses.replace(bundle.manifest.target, instruction_sets=("avx512_vnni",))
    changed = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, target=target))
    with pytest.raises(TargetError, match="cannot be read"):
        Classifier(changed)


def test_a_map_that_is_not_asked_for(path):
    """Without `explain` the answer is the same, has no map and no frame, and says why; asking for an overlay is then an error."""
    classifier = load(write_device_bundle(path))
    asked, plain = classifier.predict(frame()), classifier.predict(frame(), explain=False)
    assert (plain.label, plain.probabilities, plain.logits) == (asked.label, asked.probabilities, asked.logits)
    assert (plain.cam, plain.reason, asked.reason) == (None, "the map was not asked for", "")
    with pytest.raises(DataError, match="not asked for"):
        plain.overlay()


def test_a_clip_of_a_plain_classifier_answers_as_it_does(path):
    """Nothing goes from frame to frame: in any order, and after a frame that was refused, the answers are the classifier's."""
    classifier = load(write_device_bundle(path))
    clip = classifier.clip()
    for seed in (0, 1, 0):
        assert clip.predict(frame(seed)).logits == classifier.predict(frame(seed)).logits
    with pytest.raises(DataError, match="uint8"):
        clip.predict(frame().astype(np.float32))
    assert clip.predict(frame(1), explain=False).logits == classifier.predict(frame(1)).logits
