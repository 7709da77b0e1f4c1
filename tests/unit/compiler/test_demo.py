"""The demonstration's data and teacher: an interruption leaves nothing that looks whole."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.compiler import demo
from edgekit.compiler.progress import Silent
from edgekit.imaging import phantom

SMALL = demo.Training(patients_per_class=4, frames_per_patient=2, epochs=1, batch=4)


def test_an_interrupted_data_set_is_made_again(tmp_path, monkeypatch):
    """The next run starts over instead of stumbling over what was left."""
    whole = phantom._write_png
    made = []

    def stops(*args, **kwargs):
        made.append(1)
        if len(made) == 3:
            raise KeyboardInterrupt
        return whole(*args, **kwargs)

    monkeypatch.setattr(phantom, "_write_png", stops)
    with pytest.raises(KeyboardInterrupt):
        demo._write_data(tmp_path / "data", SMALL)
    assert not (tmp_path / "data").exists()
    demo._write_data(tmp_path / "data", SMALL)
    assert (tmp_path / "data" / phantom.MANIFEST).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_teacher_is_trained_once(tmp_path, monkeypatch):
    """A second run takes the data and the weights that are there; the weights are those of the recipe's architecture."""
    recipe = demo.prepare_demo(tmp_path, Silent(), SMALL)
    weights = (tmp_path / demo.WEIGHTS).read_bytes()
    monkeypatch.setattr(demo, "train_teacher", lambda *_: pytest.fail("trained again"))
    assert demo.prepare_demo(tmp_path, Silent(), SMALL) == recipe
    assert (tmp_path / demo.WEIGHTS).read_bytes() == weights


def test_augmentation_keeps_shape_and_varies():
    """uint8 in, uint8 of the same shape out, other pixels, the same for the same seed."""
    frames = np.random.default_rng(0).integers(0, 256, (5, 16, 20, 1), dtype=np.uint8)
    first, again = (demo.augment(frames, np.random.default_rng(7)) for _ in range(2))
    assert first.dtype == np.uint8
    assert first.shape == frames.shape
    assert (first == again).all()
    assert (first != frames).any(axis=(1, 2, 3)).all()
