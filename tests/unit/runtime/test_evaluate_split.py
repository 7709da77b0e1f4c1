"""A bundle on labelled frames: the same code as `predict`, frame by frame."""

from __future__ import annotations

import numpy as np
import pytest
from device_bundles import MANY, TWO, frame, write_device_bundle
from PIL import Image

from edgekit.errors import DataError
from edgekit.runtime.classifier import load
from edgekit.runtime.evaluate import evaluate_split
from edgekit.schema.data import Columns


def manifest_of(folder, labels, *, split="test"):
    """Eight frames from dark to bright, a group each."""
    rows = ["file,label,split,patient_or_video_id"]
    for index, label in enumerate(labels):
        Image.fromarray(np.full((16, 16), index * 255 // (len(labels) - 1), dtype=np.uint8)).save(folder / f"{index}.png")
        rows.append(f"{index}.png,{label},{split},p{index}")
    path = folder / "manifest.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def evaluate(tmp_path, labels, output=TWO, **options):
    told = []
    classifier = load(write_device_bundle(tmp_path / "x.edgekit", output=output))
    path = manifest_of(tmp_path, labels)
    found = evaluate_split(classifier, path, split=options.get("split", "test"), columns=Columns(), on_frame=lambda *at: told.append(at))
    return found, told, classifier


def test_figures_are_those_of_the_answers(tmp_path):
    """Accuracy and confusion are what `predict` says on each frame; progress is told for each."""
    labels = ["benign"] * 3 + ["malignant"] * 5
    found, told, classifier = evaluate(tmp_path, labels)
    answers = [classifier.predict(np.asarray(Image.open(tmp_path / f"{index}.png"))).label for index in range(8)]
    assert len(set(answers)) == 2
    assert found.value("accuracy") == pytest.approx(np.mean([answer == label for answer, label in zip(answers, labels, strict=True)]))
    table = np.zeros((2, 2), dtype=int)
    for label, answer in zip(labels, answers, strict=True):
        table[TWO.labels.index(label), TWO.labels.index(answer)] += 1
    assert found.confusion == table.tolist()
    assert found.groups == found.n == 8
    assert told == [(index, 8) for index in range(1, 9)]


def test_multilabel(tmp_path):
    """Several labels a frame are read and compared label by label."""
    found, _, _ = evaluate(tmp_path, ["cyst", "cyst;mass", "mass", "calcification", "cyst|calcification", "mass", "", "cyst"], MANY)
    assert found.n == 8
    assert found.per_class["cyst"].support == 4


def test_a_file_of_several_frames(tmp_path, monkeypatch):
    """A row labels one frame: a file with two is refused by its name."""
    from edgekit.imaging import frames

    read = frames.read
    monkeypatch.setattr(frames, "read", lambda path: [*read(path), *read(path)] if path.name == "3.png" else read(path))
    with pytest.raises(DataError, match=r"3\.png holds several frames"):
        evaluate(tmp_path, ["benign", "malignant"] * 4)


@pytest.mark.parametrize(
    ("labels", "split", "says"),
    [
        (["benign"] * 8, "test", "no frame of 'malignant'"),
        (["benign", "malignant"] * 4, "val", "no row has the split 'val'"),
        (["benign", "malignnt"] * 4, "test", "malignnt"),
    ],
)
def test_splits_that_cannot_be_evaluated(tmp_path, labels, split, says):
    """An empty or single-class split and an unknown label are refused before the first frame is answered."""
    with pytest.raises(DataError, match=says):
        evaluate(tmp_path, labels, split=split)


def test_a_frame_as_saved_is_the_frame_as_predicted(tmp_path):
    """A PNG of a frame is answered as the frame itself."""
    classifier = load(write_device_bundle(tmp_path / "x.edgekit"))
    Image.fromarray(frame(7)).save(tmp_path / "x.png")
    assert classifier.predict(np.asarray(Image.open(tmp_path / "x.png"))).logits == classifier.predict(frame(7)).logits
