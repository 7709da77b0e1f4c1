"""Variation of frames: what each setting does, how far, and that it is the same again."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.catalog.compress import AugmentSpec
from edgekit.compiler.distill.augment import varied

NONE = {"flip": False, "shift": 0.0, "gain": 0.0, "offset": 0.0, "speckle": 0.0}


def spec(**changes):
    return AugmentSpec(**{**NONE, **changes})


def frame(height=20, width=30, channels=1, seed=0):
    return np.random.default_rng(seed).integers(60, 180, (height, width, channels)).astype(np.uint8)


def many(settings, source, count=200):
    return [varied(source, settings, seed=0, epoch=1, index=index) for index in range(count)]


def test_nothing_asked_is_nothing_done():
    """Bit for bit, as a frame of its own."""
    source = frame()
    found = varied(source, spec(), seed=0, epoch=1, index=0)
    assert np.array_equal(found, source)
    assert not np.shares_memory(found, source)


def test_half_of_the_frames_are_mirrored():
    """Left to right, never upside down."""
    source = frame()
    found = many(spec(flip=True), source)
    mirrored = [np.array_equal(item, source[:, ::-1]) for item in found]
    assert all(flip or np.array_equal(item, source) for flip, item in zip(mirrored, found, strict=True))
    assert 70 < sum(mirrored) < 130


def test_a_shift_moves_the_frame_and_copies_its_edge():
    """By at most the given part of either side, in both directions of both."""
    source = frame(20, 30)
    moves = set()
    for found in many(spec(shift=0.1), source):
        fits = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-3, 4)
            if np.array_equal(found, source[np.clip(np.arange(20) - down, 0, 19)][:, np.clip(np.arange(30) - right, 0, 29)])
        ]
        assert len(fits) == 1
        moves.add(fits[0])
    assert {down for down, _ in moves} == set(range(-2, 3))
    assert {right for _, right in moves} == set(range(-3, 4))


def test_gain_and_offset_stay_within_their_limits():
    """Factors of 1 ± gain, levels of ± offset, and nearly all of that range is used."""
    source = np.full((4, 4, 1), 100, dtype=np.uint8)
    gains = np.array([item[0, 0, 0] for item in many(spec(gain=0.2), source)], dtype=float)
    offsets = np.array([item[0, 0, 0] for item in many(spec(offset=15.0), source)], dtype=float)
    assert 80 <= gains.min() < 84
    assert 116 < gains.max() <= 120
    assert 85 <= offsets.min() < 88
    assert 112 < offsets.max() <= 115


def test_levels_are_rounded_and_clipped_and_do_not_wrap():
    """White stays white when it is made brighter."""
    source = np.array([[[0], [255], [101]]], dtype=np.uint8)
    for found in many(spec(gain=0.9, offset=100.0), source, 300):
        assert found[0, 0, 0] <= found[0, 2, 0] <= found[0, 1, 0]
    bright = max(many(spec(gain=0.5), source), key=lambda item: int(item[0, 2, 0]))
    assert bright[0, 1, 0] == 255
    assert bright[0, 0, 0] == 0


def test_speckle_grows_with_the_pixel_and_is_alike_in_all_channels():
    """Multiplicative: its deviation is the given part of the value, and black stays black."""
    source = np.zeros((200, 200, 3), dtype=np.uint8)
    source[:, 100:] = 100
    found = varied(source, spec(speckle=0.1), seed=0, epoch=1, index=0)
    assert not found[:, :100].any()
    assert found[:, 100:, 0].astype(float).std() == pytest.approx(10, rel=0.05)
    assert np.array_equal(found[..., 0], found[..., 2])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_same_seed_epoch_and_index_give_the_same_frame(channels):
    """And another of any of them another frame."""
    settings, source = AugmentSpec(speckle=0.1), frame(channels=channels)
    before = source.copy()
    first = varied(source, settings, seed=1, epoch=2, index=3)
    assert first.dtype == np.uint8
    assert first.shape == source.shape
    assert np.array_equal(first, varied(source, settings, seed=1, epoch=2, index=3))
    assert np.array_equal(source, before)
    for changed in ({"seed": 2}, {"epoch": 3}, {"index": 4}):
        assert not np.array_equal(first, varied(source, settings, **{"seed": 1, "epoch": 2, "index": 3, **changed}))


def test_one_setting_leaves_the_others_draws_alone():
    """A frame is shifted as far whether or not it is also mirrored."""
    source = np.tile(np.arange(60, 180, 2, dtype=np.uint8)[:, None, None], (1, 20, 1))  # the same in every column
    for index in range(20):
        alone, both = (varied(source, spec(shift=0.2, flip=flip), seed=0, epoch=1, index=index) for flip in (False, True))
        assert np.array_equal(alone, both)
