"""A tiny bundle that really runs, made of OpenVINO operations whose answers can be worked out with a pencil, and the same with one named fault.

The graph averages a 16 × 16 grey frame over 4 × 4 cells, in 0..1, and makes one map a logit from it: map k = gain k · cell + offset k. A logit is the
mean of its map + bias k. A recurrent one has no map: its state is added to the logits, and half of them is the next state. No compiler is needed, so these bundles are for tests of the device side; `bundle_builders` has those for the container.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.arrays import dump_array
from edgekit.bundle.manifest import CamSpec, Decision, EngineSpec, Gate, GoldenSpec, Manifest, StateSpec, TargetSummary
from edgekit.bundle.writer import write_bundle
from edgekit.runtime.engines.openvino import load_library
from edgekit.schema.model_io import InputSpec, OutputSpec

SIDE, CELLS = 16, 4
GAINS = (1.0, -2.0, 3.0)
OFFSETS = (0.25, 1.5, -1.0)
BIASES = (0.125, -0.25, 0.5)

THREE = OutputSpec(labels=("a", "b", "c"), task="multiclass", positive="c")
TWO = OutputSpec(labels=("benign", "malignant"), task="binary", positive="malignant")
MANY = OutputSpec(labels=("cyst", "mass", "calcification"), task="multilabel")
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1", "PERFORMANCE_HINT": "LATENCY"}


def frame(seed: int = 0) -> NDArray[np.uint8]:
    """uint8 (16, 16) of random grey levels."""
    return np.random.default_rng(seed).integers(0, 256, size=(SIDE, SIDE), dtype=np.uint8)


def maps_of(pixels: NDArray[np.uint8], outputs: int) -> NDArray[np.float64]:
    """What the graph's maps must be, float64 (outputs, 4, 4), by numpy."""
    cell = SIDE // CELLS
    cells = pixels.reshape(CELLS, cell, CELLS, cell).mean(axis=(1, 3)) / 255
    return np.stack([gain * cells + offset for gain, offset in zip(GAINS[:outputs], OFFSETS[:outputs], strict=True)])


def logits_of(pixels: NDArray[np.uint8], outputs: int) -> NDArray[np.float64]:
    """What the graph's logits must be, float64 (outputs,), by numpy."""
    return maps_of(pixels, outputs).mean(axis=(1, 2)) + np.array(BIASES[:outputs])


def clip_of(frames: Sequence[NDArray[np.uint8]], outputs: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a recurrent graph's logits and next states must be on the frames of a clip, float64 (frames, outputs) each, by numpy."""
    state, answers, states = np.zeros(outputs), [], []
    for pixels in frames:
        answers.append(logits_of(pixels, outputs) + state)
        state = answers[-1] / 2
        states.append(state)
    return np.stack(answers), np.stack(states)


@functools.cache
def graph(
    *, outputs: int, cam: bool = True, bias: float = 0.0, poison: float = 0.0, cells: int = CELLS, recurrent: bool = False
) -> dict[str, bytes]:
    """The IR, `xml` and `bin`.

    Args:
        outputs: Number of logits.
        cam: Whether the maps are an output.
        bias: Added to every bias.
        poison: Added to the first logit alone: NaN or infinite.
        cells: Cells a side of the map.
        recurrent: Whether it carries a state, and then no map.
    """
    openvino = load_library()
    ops = openvino.opset13
    taken = ops.parameter([1, SIDE, SIDE, 1], openvino.Type.u8, name="frame")
    grey = ops.transpose(ops.convert(taken, "f32"), np.array([0, 3, 1, 2], dtype=np.int64))
    side = SIDE // cells
    pooled = ops.avg_pool(grey, [side, side], [0, 0], [0, 0], [side, side], exclude_pad=True)
    shape = (1, outputs, 1, 1)
    gains = np.array(GAINS[:outputs], dtype=np.float32).reshape(shape) / np.float32(255)
    offsets = np.array(OFFSETS[:outputs], dtype=np.float32).reshape(shape)
    maps = ops.add(ops.multiply(pooled, ops.constant(gains)), ops.constant(offsets))
    biases = np.array(BIASES[:outputs], dtype=np.float32)[None] + np.float32(bias)
    biases[0, 0] += np.float32(poison)
    logits = ops.add(ops.reduce_mean(maps, np.array([2, 3], dtype=np.int64)), ops.constant(biases))
    for value, name in ((taken, "frame"), (logits, "logits"), (maps, "cam")):
        value.output(0).get_tensor().set_names({name})
    inputs, results = [taken], [logits, maps] if cam else [logits]
    if recurrent:
        state = ops.parameter([1, outputs], openvino.Type.f32, name="state")
        answer = ops.add(logits, state)
        following = ops.multiply(answer, ops.constant(np.float32(0.5)))
        logits.output(0).get_tensor().set_names(set())
        for value, name in ((state, "state"), (answer, "logits"), (following, "next_state")):
            value.output(0).get_tensor().set_names({name})
        inputs, results = [taken, state], [answer, following]
    model = openvino.Model(results, inputs, "by-hand")
    with tempfile.TemporaryDirectory() as folder:
        openvino.save_model(model, Path(folder) / "model.xml", compress_to_fp16=False)
        return {role: (Path(folder) / f"model.{role}").read_bytes() for role in ("xml", "bin")}


# Fault to: changes of the graph, changes of the engine's entry, changes of the manifest.
_FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "nan-logits": ({"poison": float("nan")}, {}, {}),
    "infinite-logits": ({"poison": float("inf")}, {}, {}),
    "map-does-not-add-up": ({"bias": 0.5}, {}, {}),
    "map-of-another-size": ({"cells": 2}, {}, {}),
    "map-missing": ({"cam": False}, {}, {}),
    "map-not-listed": ({}, {}, {"cam": None, "cam_reason": "the head is not linear"}),
    "more-outputs": ({"outputs": 3}, {}, {}),
    "other-architecture": ({}, {}, {"target": TargetSummary(name="pi", title="A Pi", architectures=("aarch64-be",))}),
    "unknown-engine": ({}, {"name": "openvina"}, {}),
    "engine-too-old": ({}, {"minimum_version": "9999.1"}, {}),
    "precision-not-pinned": ({}, {"settings": {"NUM_STREAMS": "1"}}, {}),
    "precision-unknown": ({}, {"settings": {"INFERENCE_PRECISION_HINT": "f31"}}, {}),
    "setting-that-writes": ({}, {"settings": {**SETTINGS, "CACHE_DIR": "cache"}}, {}),
    "file-of-no-role": ({}, {"files": {"xml": "model/openvino.xml", "weights": "model/openvino.bin"}}, {}),
    "other-input-size": ({}, {}, {"input": InputSpec(color="grey", channels=1, resize=(8, 8), mean=(0.0,), std=(1.0,))}),
    "other-input-colour": ({}, {}, {"input": InputSpec(color="rgb", channels=3, resize=(SIDE, SIDE), mean=(0.0,) * 3, std=(1.0,) * 3)}),
}
STATE_FAULTS = ("golden-states-of-another-machine", "state-of-another-shape")
"""Those that only a recurrent bundle can have."""

MAP_FAULTS = ("golden-maps-of-another-machine", "golden-maps-of-another-size", "golden-maps-left-out")
"""Those that only a bundle with maps can have."""

FAULTS = (*_FAULTS, *MAP_FAULTS, "model-not-xml", "golden-of-another-machine", "golden-not-finite", "golden-frames-of-another-size")
"""Name of every fault that `write_device_bundle` can make; all of them are consistent bundles that open in the reader."""


def _cam_spec(count: int, scale: float, engines: Sequence[EngineSpec]) -> CamSpec:
    return CamSpec(
        rows=CELLS,
        columns=CELLS,
        maps=count,
        kind="pooled-linear",
        bias=BIASES[:count],
        tolerance=1e-4,
        scale=scale,
        golden={engine.name: "golden/maps.npy" for engine in engines},
        golden_tolerance={engine.name: 1e-3 for engine in engines},
    )


def write_device_bundle(
    path: Path,
    *,
    output: OutputSpec = TWO,
    outputs: int | None = None,
    cam: bool = True,
    recurrent: bool = False,
    scale: float = 2.0,
    accepted: bool = True,
    fault: str = "",
    more: Mapping[str, bytes | None] | None = None,
    **changes: Any,
) -> Path:
    """Writes a bundle that runs.

    Args:
        path: Where to.
        output: Meaning of the logits.
        outputs: Number of logits; None for one a label.
        cam: Whether it has maps.
        recurrent: Whether it carries a state; it then has no maps.
        scale: Logit units in full colour.
        accepted: Whether it says that it passed its gate.
        fault: One of `FAULTS`; empty for none.
        more: Further members; None in the place of one leaves it out.
        changes: Other fields of the manifest.
    """
    count = len(output.labels) if outputs is None else outputs
    graph_changes, engine_changes, manifest_changes = _FAULTS.get(fault, ({}, {}, {}))
    cam = cam and not recurrent
    files = graph(**{"outputs": count, "cam": cam, "recurrent": recurrent, **graph_changes})
    engine = EngineSpec(
        **{
            "name": "openvino",
            "files": {"xml": "model/openvino.xml", "bin": "model/openvino.bin"},
            "minimum_version": "2024.1",
            "precision": "f32",
            "settings": SETTINGS,
            "outputs": count,
            **engine_changes,
        }
    )
    golden = np.stack([frame(seed)[..., None] for seed in range(3)])
    expected = np.stack([logits_of(tensor[..., 0], count) for tensor in golden]).astype(np.float32)
    state, golden_states = None, {}
    if recurrent:
        found, states = clip_of(list(golden[..., 0]), count)
        expected = found.astype(np.float32)
        if fault == "golden-states-of-another-machine":
            states[1] += 0.5
        golden_states = {"golden/states.npy": dump_array(states[:, None].astype(np.float32))}
        state = StateSpec(
            shape=(1, 3 if fault == "state-of-another-shape" else count),
            golden={engine.name: "golden/states.npy"},
            tolerance={engine.name: 1e-3},
        )
    golden_maps = np.stack([maps_of(tensor[..., 0], count) for tensor in golden]).astype(np.float32)
    if fault == "golden-maps-of-another-machine":
        golden_maps[1] = golden_maps[1].swapaxes(1, 2)
    if fault == "golden-maps-of-another-size":
        golden_maps = golden_maps[..., :2]
    if fault == "golden-of-another-machine":
        expected[1] += 0.5
    if fault == "golden-not-finite":
        expected[1] = np.nan
    members = {
        "model/openvino.xml": b"<net/>" if fault == "model-not-xml" else files["xml"],
        "model/openvino.bin": files["bin"],
        "golden/frames.npy": dump_array(golden[:, :8, :8] if fault == "golden-frames-of-another-size" else golden),
        "golden/logits.npy": dump_array(expected),
        **golden_states,
        **(
            {"golden/maps.npy": dump_array(golden_maps)}
            if cam and manifest_changes.get("cam", cam) and fault != "golden-maps-left-out"
            else {}
        ),
        **(more or {}),
    }
    manifest = Manifest(
        format_version=1,
        name="by-hand",
        version="1.0.0",
        security_version=1,
        accepted=accepted,
        compatible=("x86-64",),
        target=TargetSummary(name="x86-64", title="Any PC", architectures=("x86_64", "amd64", "aarch64", "arm64")),
        engines=(engine,),
        input=InputSpec(color="grey", channels=1, resize=(SIDE, SIDE), mean=(0.0,), std=(1.0,)),
        output=output,
        decision=Decision(temperature=1.0, thresholds={}),
        cam=_cam_spec(count, scale, [] if fault == "golden-maps-left-out" else [engine]) if cam else None,
        cam_reason="" if cam else "the head is not linear",
        golden=GoldenSpec(frames="golden/frames.npy", logits={engine.name: "golden/logits.npy"}, tolerance={engine.name: 1e-3}),
        acceptance=(Gate(name="flips", value=0.0 if accepted else 1.0, bound=0.5, passed=accepted),),
        sources={},
        made_with={"edgekit": "0"},
        members={},
        state=state,
    )
    if cam and "engines" in changes and "cam" not in manifest_changes:
        changes = {"cam": _cam_spec(count, scale, changes["engines"]), **changes}
    kept = {name: content for name, content in members.items() if content is not None}
    write_bundle(path, dataclasses.replace(manifest, **manifest_changes, **changes), kept)
    return path
