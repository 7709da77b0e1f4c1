"""Cines of the phantom whose class is in the movement alone: a lung that slides under the chest wall with the breath, and one that does not.

The absence of lung sliding is what is looked for where a pneumothorax is suspected (Lichtenstein & Menu 1995). Here it is a phantom: a model that tells these cines
apart is not shown to find anything in anybody.

Rules this file keeps:

1. A single frame tells nothing: both classes draw the chest, the gain and each frame's speckle from the same distributions.
2. What slides is what lies under the pleura: its speckle and its comet tails. The wall, the ribs, the pleural line and the A-lines stand still in both classes.
3. Every frame has a little speckle and all of its noise anew, in both classes, so that two equal frames do not tell the still lung.
"""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgekit.errors import DataError, OutputError, nearest
from edgekit.imaging import phantom
from edgekit.imaging import phantom_findings as findings
from edgekit.imaging.phantom_anatomy import Chest, draw_chest, draw_patient, scatterers
from edgekit.imaging.phantom_scanner import Complex, PhantomSpec, envelope_db

__all__ = ["FRAMES_PER_SECOND", "LABELS", "cine", "write_cines"]

LABELS = ("no-sliding", "sliding")
"""The classes, in the order of a classifier's outputs."""

FRAMES_PER_SECOND = 12.0

_FRESH_SPECKLE = 0.25
_BREATHS_PER_SECOND = (0.3, 0.5)
_EXCURSION_LINES = (0.15, 0.3)
"""Amplitude of the sliding, in parts of the sector's lines."""

_STREAM = 7
"""Keeps the draws of a cine apart from those of `phantom.frame` of the same patient."""


def cine(label: str, *, patient: int, seed: int, frames: int, spec: PhantomSpec = phantom.DEFAULT) -> NDArray[np.uint8]:
    """Makes a cine of a healthy chest.

    Args:
        label: One of `LABELS`.
        patient: Number of the patient, from 0; the chest is the same under both labels.
        seed: Seed of the data set, from 0.
        frames: At least 1.
        spec: The scanner.

    Returns:
        uint8 (frames, rows, columns), `FRAMES_PER_SECOND` of them a second; black outside the sector.

    Raises:
        DataError: On an unknown label or a number too small.
    """
    if label not in LABELS:
        raise DataError(f"the phantom's cines have no label {label!r}", hint=nearest(label, LABELS))
    if patient < 0 or seed < 0 or frames < 1:
        raise DataError(f"patient and seed must not be negative and frames at least 1, not {patient}, {seed} and {frames}")
    stream = [seed, patient, _STREAM]
    moving = np.random.default_rng([*stream, LABELS.index(label)])
    shifts = _slid_lines(moving, frames, spec.lines)
    if label != "sliding":
        shifts = np.full(frames, shifts[0])
    examined = draw_patient(spec, seed=seed, patient=patient)
    made = []
    for shift in shifts:
        # The same draws for every frame: the chest, its echoes and the gain stay as they are while the lung slides.
        still = np.random.default_rng(stream)
        chest = draw_chest(examined, still)
        level_db = _scan(chest, findings.healthy(chest, still), float(shift), still, moving)
        grey = phantom.compress(level_db, chest, still, spec.dynamic_range_db + examined.dynamic_range_db)
        made.append(examined.converter.frame(grey))
    return np.stack(made)


def write_cines(folder: Path, *, patients_per_class: int, frames: int, seed: int, spec: PhantomSpec = phantom.DEFAULT) -> Path:
    """Writes a labelled data set: PNG frames, and a manifest in which the frames of a cine stand in their order.

    No patient is in two classes or two splits, and each has one cine. The manifest is written last: a folder that has one is complete.

    Args:
        folder: A new or empty folder.
        patients_per_class: At least 4, one a split.
        frames: Of each cine.
        seed: Seed of the data set.
        spec: The scanner.

    Returns:
        The manifest: a CSV with the columns file, label, patient_or_video_id and split; paths are relative to it.

    Raises:
        DataError: On numbers too small.
        OutputError: When the folder is not empty or cannot be written.
    """
    splits = phantom.splits(patients_per_class)
    try:
        if folder.exists() and any(folder.iterdir()):
            raise OutputError(f"{folder} is not empty", hint="name a new folder, or remove what is in it")
        rows = []
        for number, split in enumerate(splits):
            for offset, label in enumerate(LABELS):
                patient = number * len(LABELS) + offset
                name = f"{label}/p{patient:03d}"
                (folder / name).mkdir(parents=True)
                for index, pixels in enumerate(cine(label, patient=patient, seed=seed, frames=frames, spec=spec)):
                    file = f"{name}/f{index:03d}.png"
                    Image.fromarray(pixels).save(folder / file, compress_level=1)
                    rows.append((file, label, f"phantom-{patient:03d}", split))
        partial = folder / f".{phantom.MANIFEST}.partial"
        with partial.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("file", "label", "patient_or_video_id", "split"))
            writer.writerows(rows)
        return partial.replace(folder / phantom.MANIFEST)
    except OSError as error:
        raise OutputError(f"the phantom's cines cannot be written to {folder}: {error.strerror or error}") from error


def _slid_lines(rng: np.random.Generator, frames: int, lines: int) -> NDArray[np.float64]:
    """How far the lung has slid at each frame, in scan lines: a sine of the breath that begins anywhere."""
    amplitude, rate = rng.uniform(*_EXCURSION_LINES) * lines, rng.uniform(*_BREATHS_PER_SECOND)
    phase = 2 * np.pi * (rate * np.arange(frames) / FRAMES_PER_SECOND + rng.uniform())
    return np.asarray(amplitude * np.sin(phase))


def _scan(
    chest: Chest, finding: findings.Finding, slid: float, still: np.random.Generator, moving: np.random.Generator
) -> NDArray[np.float32]:
    """Level of the echoes in dB against muscle, float32 (samples, lines), with what lies under the pleura moved by some lines."""
    patient = chest.patient
    moved = dataclasses.replace(finding, power=_moved(finding.power, slid).real.clip(0).astype(np.float32))
    rough, mirror = phantom.strengths(chest, moved, still)
    fresh = scatterers(moving, rough.shape)
    tissue = np.where(chest.below_mm > 0, _moved(patient.speckle, slid), patient.speckle)
    speckle = np.float32(np.sqrt(1 - _FRESH_SPECKLE**2)) * tissue + np.float32(_FRESH_SPECKLE) * fresh
    echoes: Complex = patient.beam.convolve((rough * speckle + mirror).astype(np.complex64, copy=False))
    noise_db = np.float32(patient.noise_db) + np.zeros_like(patient.depth_mm)
    # Read backwards, the fresh draws are as good as new ones for the electronic noise.
    return envelope_db(echoes, noise_db=noise_db, noise=fresh[::-1])


def _moved(field: NDArray[np.float32] | Complex, lines: float) -> Complex:
    """A field moved across the scan lines by any part of one; what leaves on one side comes in on the other."""
    turns = np.exp(-2j * np.pi * np.fft.fftfreq(field.shape[1]) * lines)
    moved: Complex = np.fft.ifft(np.fft.fft(field, axis=1) * turns, axis=1).astype(np.complex64)
    return moved
