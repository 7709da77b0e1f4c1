"""A synthetic lung ultrasound phantom: labelled B-mode frames from a seed, for demonstrations, tests and golden frames.

It stands in for patients where no patient's data may travel. It is physics-based (see `phantom_scanner`, `phantom_anatomy`,
`phantom_findings`), but it is a phantom: a model that is good on it is not shown to be good on anybody.

Rules this file keeps:

1. A frame is a function of (label, patient, index, seed) and nothing else: the same arguments give the same bytes on the same machine and
   numpy (another numpy or processor may round a grey level differently).
2. The chest and the scanner's settings come from the patient and never from the label.
3. The time gain is set as a sonographer sets it: wall and lung field each get a mean level that was drawn without looking at the label, so
   brightness tells nothing; only the structure does.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgekit.errors import DataError, OutputError, nearest
from edgekit.imaging import phantom_findings as findings
from edgekit.imaging.phantom_anatomy import (
    Chest,
    Patient,
    amplitude,
    draw_chest,
    draw_patient,
    haze,
    pleura_and_a_lines,
    scatterers,
    smooth,
    wall_and_reverberation,
)
from edgekit.imaging.phantom_scanner import Complex, Float, PhantomSpec, envelope_db

__all__ = ["DEFAULT", "LABELS", "MANIFEST", "PhantomSpec", "frame", "frame_with_mask", "write_dataset"]

_FINDINGS: dict[str, Callable[[Chest, np.random.Generator], findings.Finding]] = {
    "a-lines": findings.healthy,
    "b-lines": findings.b_lines,
    "consolidation": findings.consolidation,
}

LABELS = tuple(_FINDINGS)
"""The classes, in the order of a classifier's outputs."""

MANIFEST = "manifest.csv"
_COLUMNS = ("file", "label", "patient_or_video_id", "split", "mask")
_SHARES = {"train": 0.5, "calib": 0.1, "val": 0.15, "test": 0.25}

# Amplitude of the speckle that a patient's frames share; the rest is new in each frame (the lung slides, the probe moves).
_SHARED_SPECKLE = 0.6

DEFAULT = PhantomSpec()


def frame(label: str, *, patient: int, index: int, seed: int, spec: PhantomSpec = DEFAULT) -> NDArray[np.uint8]:
    """Makes one frame.

    Args:
        label: One of `LABELS`.
        patient: Number of the patient, from 0; the chest is the same under every label.
        index: Number of the frame, from 0.
        seed: Seed of the data set, from 0.
        spec: The scanner.

    Returns:
        uint8 (rows, columns), black outside the sector.

    Raises:
        DataError: On an unknown label or a negative number.
    """
    grey, chest, _ = _examine(label, patient=patient, index=index, seed=seed, spec=spec)
    return chest.patient.converter.frame(grey)


def frame_with_mask(
    label: str, *, patient: int, index: int, seed: int, spec: PhantomSpec = DEFAULT
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Makes one frame and marks the finding in it.

    Args:
        label: One of `LABELS`.
        patient: Number of the patient, from 0; the chest is the same under every label.
        index: Number of the frame, from 0.
        seed: Seed of the data set, from 0.
        spec: The scanner.

    Returns:
        uint8 (rows, columns), and bool (rows, columns): the B-lines or the consolidation; all False for A-lines.

    Raises:
        DataError: On an unknown label or a negative number.
    """
    grey, chest, finding = _examine(label, patient=patient, index=index, seed=seed, spec=spec)
    pixels = chest.patient.converter.frame(grey)
    if not finding.mask.any():
        return pixels, np.zeros(pixels.shape, dtype=bool)
    return pixels, chest.patient.converter.frame(finding.mask * np.float32(255)) >= 128


def write_dataset(folder: Path, *, patients_per_class: int, frames_per_patient: int, seed: int, spec: PhantomSpec = DEFAULT) -> Path:
    """Writes a labelled data set: PNG frames, PNG masks and a manifest.

    No patient is in two classes or two splits. The manifest is written last: a folder that has one is complete.

    Args:
        folder: A new or empty folder.
        patients_per_class: At least 4, one a split.
        frames_per_patient: At least 1.
        seed: Seed of the data set.
        spec: The scanner.

    Returns:
        The manifest: a CSV with the columns file, label, patient_or_video_id, split and mask; paths are relative to it, mask is empty for A-lines.

    Raises:
        DataError: On numbers too small.
        OutputError: When the folder is not empty or cannot be written.
    """
    if frames_per_patient < 1:
        raise DataError(f"the phantom needs at least 1 frame a patient, not {frames_per_patient}")
    split_of = splits(patients_per_class)
    try:
        if folder.exists() and any(folder.iterdir()):
            raise OutputError(f"{folder} is not empty", hint="name a new folder, or remove what is in it")
        rows = []
        for number, split in enumerate(split_of):
            for offset, label in enumerate(LABELS):
                patient = number * len(LABELS) + offset
                for index in range(frames_per_patient):
                    name = f"{label}/p{patient:03d}_f{index:03d}.png"
                    pixels, mask = frame_with_mask(label, patient=patient, index=index, seed=seed, spec=spec)
                    mask_name = f"masks/{name}" if mask.any() else ""
                    _write_png(folder / name, pixels)
                    if mask_name:
                        _write_png(folder / mask_name, mask)
                    rows.append((name, label, f"phantom-{patient:03d}", split, mask_name))
        partial = folder / f".{MANIFEST}.partial"
        with partial.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(_COLUMNS)
            writer.writerows(rows)
        return partial.replace(folder / MANIFEST)
    except OSError as error:
        raise OutputError(f"the phantom's frames cannot be written to {folder}: {error.strerror or error}") from error


def _examine(label: str, *, patient: int, index: int, seed: int, spec: PhantomSpec) -> tuple[Float, Chest, findings.Finding]:
    """One frame before scan conversion: grey levels float32 (samples, lines), the chest and the finding in it."""
    if label not in _FINDINGS:
        raise DataError(f"the phantom has no label {label!r}", hint=nearest(label, LABELS))
    for name, value in (("patient", patient), ("index", index), ("seed", seed)):
        if value < 0:
            raise DataError(f"the phantom's {name} must not be negative, not {value}")
    rng = np.random.default_rng([seed, patient, index, LABELS.index(label)])
    chest = draw_chest(draw_patient(spec, seed=seed, patient=patient), rng)
    finding = _FINDINGS[label](chest, rng)
    level_db = _scan(chest, finding, rng)
    return compress(level_db, chest, rng, spec.dynamic_range_db + chest.patient.dynamic_range_db), chest, finding


def splits(patients: int) -> list[str]:
    """The split of each patient of a class: shares as `_SHARES`, at least one each, the rest to train.

    Raises:
        DataError: There are fewer patients than splits.
    """
    if patients < len(_SHARES):
        raise DataError(
            f"the phantom needs at least {len(_SHARES)} patients a class, not {patients}", hint="every split needs a patient of every class"
        )
    counts = {split: max(1, round(share * patients)) for split, share in _SHARES.items() if split != "train"}
    while sum(counts.values()) >= patients:
        counts[max(counts, key=lambda split: counts[split])] -= 1
    return ["train"] * (patients - sum(counts.values())) + [split for split, count in counts.items() for _ in range(count)]


def _write_png(path: Path, pixels: NDArray[np.uint8] | NDArray[np.bool_]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Speckle hardly compresses: the fastest level costs a few per cent of size.
    Image.fromarray(pixels).save(path, compress_level=1)


def _scan(chest: Chest, finding: findings.Finding, rng: np.random.Generator) -> Float:
    """Level of the echoes in dB against muscle, float32 (samples, lines), before time gain and with the ribs' shadows."""
    patient: Patient = chest.patient
    rough, smooth_part = strengths(chest, finding, rng)
    fresh = scatterers(rng, rough.shape)
    speckle = np.float32(_SHARED_SPECKLE) * patient.speckle + np.float32(np.sqrt(1 - _SHARED_SPECKLE**2)) * fresh
    echoes = patient.beam.convolve((rough * speckle + smooth_part).astype(np.complex64, copy=False))
    # Read backwards, the fresh draws are as good as new ones for the electronic noise.
    noise: Complex = fresh[::-1]
    return envelope_db(echoes, noise_db=np.float32(patient.noise_db) + np.zeros_like(patient.depth_mm), noise=noise)


def strengths(chest: Chest, finding: findings.Finding, rng: np.random.Generator) -> tuple[Float, Complex]:
    """How strongly each place scatters, and what mirrors give, (samples, lines) each: what a scan makes echoes of."""
    patient = chest.patient
    wall, reverberation = wall_and_reverberation(chest)
    pleura, a_lines = pleura_and_a_lines(chest, rng.uniform(0.22, 0.4))
    power = wall + finding.aerated * (reverberation + haze(chest)) + finding.power
    through = chest.open * amplitude(patient.contact_db)
    rough = np.sqrt(power) * through + amplitude(chest.rib_db)
    # A smooth interface is a mirror whose phase wanders slowly along it; scatterers have a phase each.
    phase = 1 + 0.35 * (smooth(rng, len(chest.pleura_mm), 24) + 1j * smooth(rng, len(chest.pleura_mm), 24))
    return rough, (pleura * finding.pleura + a_lines * finding.aerated) * through * phase.astype(np.complex64)


def compress(level_db: Float, chest: Chest, rng: np.random.Generator, range_db: float) -> Float:
    """Time gain and log compression to 0..255, float32 (samples, lines)."""
    patient = chest.patient
    seen = np.zeros(level_db.shape, dtype=bool)
    seen[:, chest.visible] = True
    lung = seen & (chest.below_mm > 2)
    wall = seen & (chest.below_mm < -2)
    near = patient.wall_target_db + rng.normal(0, 1.5) - float(level_db[wall].mean()) if wall.any() else 0.0
    far = patient.lung_target_db + rng.normal(0, 2.5) - float(level_db[lung].mean()) if lung.any() else near
    ramp = np.clip((patient.depth_mm / patient.pleura_mm - 0.8) / 0.6, 0, 1)
    return np.asarray(np.clip((level_db + near + (far - near) * ramp) / range_db + 1, 0, 1) * 255, dtype=np.float32)
