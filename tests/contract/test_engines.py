"""One suite over the table of engines: what every engine promises (`edgekit.runtime.engines.base`).

An engine that is not installed here is skipped with its own reason; its `available` is tested all the same.
"""

from __future__ import annotations

import dataclasses
import socket

import device_bundles
import device_onnx
import numpy as np
import pytest
from device_bundles import SETTINGS, clip_of, frame, logits_of, maps_of

from edgekit.bundle.manifest import EngineSpec
from edgekit.catalog import files
from edgekit.catalog.target import load_target
from edgekit.errors import BundleError, DataError, EdgekitError, TargetError
from edgekit.runtime.engines import ENGINES, engine_class, open_engine
from edgekit.runtime.engines.base import Availability, Engine, RawOutput

# Engine to role of its files to their bytes, for the hand-made graph of `device_bundles`; a new engine adds a row.
MODELS = {
    "openvino": device_bundles.graph,
    "onnxruntime": device_onnx.graph,
    "tensorrt-int8": device_onnx.graph,
    "tensorrt-fp16": device_onnx.graph,
}
PINNED = {
    "openvino": SETTINGS,
    "onnxruntime": {"ALLOW_SPINNING": "0", "INTRA_OP_NUM_THREADS": "1"},
    "tensorrt-int8": {"WORKSPACE_MIB": "256"},
    "tensorrt-fp16": {"WORKSPACE_MIB": "256"},
}
# Engines that choose a precision by themselves where none is pinned; the others compute what the graph says.
CHOOSING = ("openvino",)

everyone = pytest.mark.parametrize("name", ENGINES)


def spec_of(name):
    """The manifest's entry of the hand-made graph with two outputs."""
    return EngineSpec(
        name=name,
        files={role: f"model/{name}.{role}" for role in MODELS[name](outputs=2)},
        minimum_version="0.1",
        precision="f32",
        settings=PINNED[name],
        outputs=2,
    )


def members_of(name, **options):
    """Member name to the bytes of the hand-made graph."""
    return {f"model/{name}.{role}": memoryview(data) for role, data in MODELS[name](**{"outputs": 2, **options}).items()}


def opened(name, *, outputs=2, cam=True, **changes):
    """The hand-made graph on an engine."""
    found = engine_class(name).available()
    if found.version is None:
        pytest.skip(f"{name}: {found.reason}; {found.hint}")
    return open_engine(dataclasses.replace(spec_of(name), outputs=outputs, **changes), members_of(name, outputs=outputs, cam=cam))


def tensor(seed=0):
    return np.ascontiguousarray(frame(seed)[None, ..., None])


def test_every_engine_has_a_model_here():
    """An engine without a row in this suite is not tested."""
    assert set(MODELS) == set(PINNED) == set(ENGINES)


@everyone
def test_the_table_names_engines(name):
    """Every row of the table is an `Engine`."""
    assert issubclass(engine_class(name), Engine)


def test_an_unknown_engine_comes_with_the_nearest():
    """A name that is not in the table is a bundle error that lists the table."""
    with pytest.raises(BundleError, match="'openvin' is not known to this edgekit") as caught:
        engine_class("openvin")
    assert "did you mean 'openvino'?" in caught.value.hint


@everyone
def test_every_target_uses_an_engine_of_the_table(name):
    """The engines of the targets are in the table, and each engine has a target."""
    used = {choice.name for target in files.names("targets") for choice in load_target(target).engines}
    assert name in used
    assert used <= set(ENGINES)


@everyone
def test_available_never_raises(name):
    """`available` says the version, or the reason and the remedy."""
    found = engine_class(name).available()
    assert isinstance(found, Availability)
    assert bool(found.version) != bool(found.reason)
    assert bool(found.reason) == bool(found.hint)


@everyone
def test_the_answers_are_right(name):
    """Logits and maps are float32, of the stated shapes, and what numpy works out."""
    engine = opened(name)
    for seed in range(5):
        raw = engine.infer(tensor(seed))
        assert isinstance(raw, RawOutput)
        assert (raw.logits.dtype, raw.logits.shape) == (np.float32, (2,))
        assert (raw.cam.dtype, raw.cam.shape) == (np.float32, engine.map_shape)
        np.testing.assert_allclose(raw.logits, logits_of(frame(seed), 2), atol=1e-4)
        np.testing.assert_allclose(raw.cam, maps_of(frame(seed), 2), atol=1e-4)


@everyone
@pytest.mark.parametrize(("outputs", "cam"), [(1, True), (3, True), (2, False)])
def test_outputs_and_maps(name, outputs, cam):
    """Any number of logits, with or without maps."""
    engine = opened(name, outputs=outputs, cam=cam)
    assert engine.input_shape == (1, 16, 16, 1)
    assert engine.map_shape == ((outputs, 4, 4) if cam else None)
    raw = engine.infer(tensor())
    assert raw.logits.shape == (outputs,)
    assert (raw.cam is not None) == cam


@everyone
def test_the_same_frame_the_same_answer(name):
    """An answer depends on the frame alone, bit for bit, also on another instance."""
    first, second = opened(name), opened(name)
    expected = first.infer(tensor(1))
    second.infer(tensor(2))
    for engine in (first, second, first):
        raw = engine.infer(tensor(1))
        np.testing.assert_array_equal(raw.logits, expected.logits)
        np.testing.assert_array_equal(raw.cam, expected.cam)


def recurrent(name):
    """The hand-made graph that carries a state."""
    opened(name)
    return open_engine(spec_of(name), members_of(name, recurrent=True))


@everyone
def test_a_state_goes_in_and_comes_out(name):
    """A recurrent graph answers by the state it is given and gives the next one; nothing of it stays in the engine."""
    engine = recurrent(name)
    assert engine.state_shape == (1, 2)
    expected, states = clip_of([frame(seed) for seed in range(3)], 2)
    for _ in range(2):
        state = engine.initial_state()
        for seed in range(3):
            raw = engine.infer(tensor(seed), state)
            state = raw.next_state
            assert (state.dtype, state.shape) == (np.float32, (1, 2))
            np.testing.assert_allclose(raw.logits, expected[seed], atol=1e-4)
            np.testing.assert_allclose(state[0], states[seed], atol=1e-4)
    kept = state.copy()
    engine.infer(tensor(1), engine.initial_state())
    np.testing.assert_array_equal(state, kept)


@everyone
def test_another_state_is_refused(name):
    """A recurrent graph runs with a state of its shape alone, and a plain one with none."""
    engine = recurrent(name)
    for wrong in (None, np.zeros((1, 3), np.float32), np.zeros((1, 2))):
        with pytest.raises(DataError, match="takes a state of the shape"):
            engine.infer(tensor(), wrong)
    plain = opened(name)
    assert plain.initial_state() is None
    with pytest.raises(DataError, match="takes a state of the shape None"):
        plain.infer(tensor(), np.zeros((1, 2), np.float32))


@everyone
def test_answers_are_the_callers_own(name):
    """An answer stays what it is when the next frame comes, and may be written to."""
    engine = opened(name)
    raw = engine.infer(tensor(1))
    kept = raw.logits.copy(), raw.cam.copy()
    engine.infer(tensor(2))
    np.testing.assert_array_equal(raw.logits, kept[0])
    np.testing.assert_array_equal(raw.cam, kept[1])
    raw.logits[:], raw.cam[:] = 0, 0
    np.testing.assert_array_equal(engine.infer(tensor(1)).logits, kept[0])


@everyone
def test_the_tensor_is_not_written_to(name):
    """The caller's tensor is read only."""
    given = tensor(3)
    kept = given.copy()
    given.flags.writeable = False
    opened(name).infer(given)
    np.testing.assert_array_equal(given, kept)


@everyone
@pytest.mark.parametrize(
    "wrong",
    [np.zeros((1, 16, 16, 1)), np.zeros((16, 16, 1), np.uint8), np.zeros((1, 16, 16, 3), np.uint8)],
    ids=["float", "axes", "channels"],
)
def test_another_tensor_is_refused(name, wrong):
    """A tensor that does not fit the graph is a data error."""
    with pytest.raises(DataError, match="the graph takes uint8"):
        opened(name).infer(wrong)


@everyone
def test_it_says_what_is_in_use(name):
    """`describe` names engine, version, device, precision and threads; the precision is the pinned one."""
    found = opened(name).describe()
    assert {"name", "version", "device", "precision", "threads"} <= set(found)
    assert all(isinstance(value, str) and value for value in found.values())
    assert (found["name"], found["version"]) == (name, engine_class(name).available().version)


@everyone
def test_a_library_that_is_too_old_is_refused(name):
    """A library older than the one it was proven with does not run it."""
    with pytest.raises(TargetError, match=r"9999\.9"):
        opened(name, minimum_version="9999.9")


@pytest.mark.parametrize("name", CHOOSING)
def test_a_setting_that_is_not_pinned_is_refused(name):
    """Without its pinned settings a bundle does not run: the engine would choose for itself."""
    with pytest.raises(BundleError, match="does not pin"):
        opened(name, settings={})


@everyone
def test_settings_of_ones_own_are_refused(name):
    """A bundle chooses among known settings; anything else is refused, also where the library would take it."""
    with pytest.raises(BundleError, match="'PLUGIN_PATH'"):
        opened(name, settings={**PINNED[name], "PLUGIN_PATH": "/tmp"})


@everyone
def test_another_number_of_outputs_is_refused(name):
    """The manifest's number of logits must be the graph's."""
    opened(name)
    with pytest.raises(BundleError, match="3 logits"):
        open_engine(dataclasses.replace(spec_of(name), outputs=3), members_of(name))


@everyone
@pytest.mark.parametrize("spoil", [bytes(0), b"hello", bytes(1000)], ids=["empty", "text", "zeros"])
def test_a_model_that_is_none_is_refused(name, spoil):
    """Bytes that are no model are an error of edgekit's, never the library's own."""
    opened(name)
    for damaged in members_of(name):
        with pytest.raises(EdgekitError):
            open_engine(spec_of(name), {**members_of(name), damaged: memoryview(spoil)}).infer(tensor())


@everyone
def test_files_of_other_roles_are_refused(name):
    """A manifest that names the files by other roles is a bundle error."""
    opened(name)
    with pytest.raises(BundleError, match="needs the file"):
        open_engine(dataclasses.replace(spec_of(name), files={"model": "model/x"}), {"model/x": memoryview(b"")})


@everyone
def test_it_opens_no_socket(name, monkeypatch):
    """Opening and running a model sends nothing."""

    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "__init__", refuse)
    opened(name).infer(tensor())
