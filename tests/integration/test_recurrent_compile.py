"""A CNN and a recurrent cell on cines of the phantom, from a recipe to the answers of a clip."""
# ruff: noqa: TID253 - what is compiled is PyTorch's

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sliding_network import MEAN, STD, Sliding, along, clips, write_project

import edgekit
from edgekit.bundle.reader import open_bundle
from edgekit.catalog.recipe import load_recipe
from edgekit.compiler.pipeline import compile_recipe
from edgekit.compiler.progress import Silent
from edgekit.profiler.profile import predictor_of
from edgekit.runtime import selftest
from edgekit.runtime.evaluate import evaluate_split
from edgekit.schema.data import Columns

TARGETS = ("x86-64", "x86-64-onnxruntime")


def compiled(recipe, out, *settings):
    """Target to its result."""
    loaded = load_recipe(recipe, settings=settings, targets=TARGETS)
    return dict(zip(TARGETS, compile_recipe(loaded, out=out, workdir=out / "work", progress=Silent()), strict=True))


def by_clip(classifier, frames):
    """Whether each clip is answered as sliding, frame by frame: bool (clips, frames)."""
    found = []
    for cine in frames:
        clip = classifier.clip()
        found.append([clip.predict(frame, gate=False).label == "sliding" for frame in cine])
    return np.array(found)


def area(scores, slides):
    """Area under the curve over all frames of clips: how often a frame of a sliding lung scores above one of a still one."""
    above = np.sign(scores[slides].reshape(-1, 1) - scores[~slides].reshape(1, -1))
    return (above.mean() + 1) / 2


def test_a_recurrent_recipe_becomes_bundles(tmp_path):
    """Each engine's bundle carries the state that the recipe gives, passes its golden sequence and answers clips; `predict` is timed on first frames."""
    recipe = write_project(tmp_path, "gru", patients=8, frames=5, epochs=2)
    frames, _ = clips(tmp_path / "data" / "manifest.csv", "test")
    for result in compiled(recipe, tmp_path / "out", "accept.enforce=false", "accept.auc_margin=0.5").values():
        bundle = open_bundle(result.bundle)
        assert bundle.manifest.state.shape == (1, load_recipe(recipe).model.state[1])
        assert bundle.manifest.engines[0].precision == "int8"
        assert bundle.manifest.cam.kind == "gradient"
        assert [check.status for check in selftest.run(bundle)] == ["PASS"]
        assert result.document["latency_ms"]["p50"] > 0
        classifier = edgekit.load(result.bundle)
        clip = classifier.clip()
        first, second = (clip.predict(frames[0][0], gate=False) for _ in range(2))
        assert first.logits != second.logits
        assert first.cam_for("sliding").shape == (24, 32)
        assert predictor_of(classifier).predict(frames[0][0]).logits == first.logits


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_int8_answers_clips_as_the_trained_model(tmp_path, monkeypatch, cell):
    """Trained on cines whose single frames look alike, the INT8 bundle of each engine is accepted by the default gates and right on as many clips as PyTorch."""
    recipe = write_project(tmp_path, cell)
    manifest = tmp_path / "data" / "manifest.csv"
    frames, slides = clips(manifest, "test")
    network = Sliding(cell).eval()
    network.load_state_dict(load_file(tmp_path / f"{cell}.safetensors"))
    with torch.no_grad():
        logits = along(network, torch.from_numpy((frames.astype(np.float32) - MEAN) / STD)[:, :, None]).numpy()
    reference = logits.argmax(axis=2) == 1
    assert not reference[:, 0].any()  # nothing is known of a lung after one frame
    right = (reference[:, -1] == slides).mean()
    assert right >= 0.9
    for result in compiled(recipe, tmp_path / "out").values():
        assert result.accepted
        classifier = edgekit.load(result.bundle)
        found = by_clip(classifier, frames)
        # The bundle's threshold is chosen on val, PyTorch's here is one half: the clip is what is compared.
        assert (found[:, -1] == slides).mean() == pytest.approx(right, abs=0.051)
        shuffled = by_clip(classifier, np.repeat(frames[:, :1], frames.shape[1], axis=1))
        assert not shuffled.any()  # a picture that stands still slides nowhere
        figures = evaluate_split(classifier, manifest, split="test", columns=Columns(), on_frame=lambda *_: None).figures
        assert figures["auc"].value == pytest.approx(area(logits[..., 1] - logits[..., 0], slides), abs=0.02)
