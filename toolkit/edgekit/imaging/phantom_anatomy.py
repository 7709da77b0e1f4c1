"""The chest of the phantom: body wall, ribs, pleura and the echoes of normal lung, drawn from a seed for each patient.

What is a property of the patient or of the examination (wall, ribs, depth setting, gain, a part of the speckle) is drawn from (seed, patient)
and never from the label: the same patient with another finding has the same chest, so that nothing but the finding tells the classes apart.

Below the pleura an aerated lung reflects nearly all sound, so that everything seen there is an artefact (Lichtenstein 2008, Chest 134:117):
with the pleura at depth d, an echo at z and its copies at z + k·d are one echo that ran k more times between pleura and transducer, and its
mirror image lies at k·d - z. The copies of the pleura itself are the A-lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgekit.imaging.phantom_scanner import Beam, Complex, Float, PhantomSpec, ScanConverter, Sector, make_beam, make_scan_converter

WALL_BINS = 192
"""Samples of the body wall between skin and pleura; deep enough for its thinnest layer."""

# Loss of a mirror echo at a slope of 1 mm a mm, in dB; small slopes matter only (an aperture of some 15 mm at 60 mm).
_SPECULAR_DB = 500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rib:
    """A rib as the beam meets it: the surface reflects, nothing returns from below.

    Attributes:
        centre_mm: Lateral position on the wall.
        half_width_mm: Half of its width.
        above_pleura_mm: How far its surface lies above the pleura.
    """

    centre_mm: float
    half_width_mm: float
    above_pleura_mm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """A chest and how it is examined; the same for all frames of a patient, whatever the label.

    Attributes:
        sector: Field of view.
        beam: Point-spread function.
        converter: Sector to frame.
        depth_mm: float32 (samples, 1).
        wall_db: float32 (WALL_BINS, lines): mean echo of the wall from skin to pleura.
        speckle: complex64 (samples, lines): the part of the scatterers that stays from frame to frame.
        ribs: None, one or two of them.
        pleura_mm: Depth of the pleura on the axis.
        pleura_tilt: Its slope against the probe, mm a mm.
        pleura_bow_per_mm: Its curvature against the probe.
        pleura_db: Strength of its reflection.
        reverberation_db: Loss of the first A-line against the pleura.
        fading_db: Further loss of each A-line against the one before.
        haze_db: Diffuse reverberation just below the pleura.
        haze_slope_db_per_cm: Its fading with depth, after time gain.
        shadow_db: What still comes back from below a rib.
        noise_db: Electronic noise before time gain.
        contact_db: float32 (lines,): loss where the probe does not touch well.
        wall_target_db: Mean level of the wall on the screen, against white.
        lung_target_db: Mean level of the lung field on the screen, against white.
        dynamic_range_db: What the sonographer adds to the scanner's dynamic range.
    """

    sector: Sector
    beam: Beam
    converter: ScanConverter
    depth_mm: Float
    wall_db: Float
    speckle: Complex
    ribs: tuple[Rib, ...]
    pleura_mm: float
    pleura_tilt: float
    pleura_bow_per_mm: float
    pleura_db: float
    reverberation_db: float
    fading_db: float
    haze_db: float
    haze_slope_db_per_cm: float
    shadow_db: float
    noise_db: float
    contact_db: Float
    wall_target_db: float
    lung_target_db: float
    dynamic_range_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chest:
    """A patient's chest in one frame, after breathing and a small movement of the probe.

    Attributes:
        patient: Whose it is.
        pleura_mm: float32 (lines,): depth of the pleura on each line.
        across_mm: float32 (lines,): lateral position of the pleura on each line.
        slope: float32 (lines,): angle of the pleura against the wave front, mm a mm.
        roughness_db: float32 (lines,): what a mirror echo loses to the roughness of the pleura at each turn.
        below_mm: float32 (samples, lines): distance below the pleura, negative above.
        open: float32 (samples, lines): 1 where sound passes, falling to the shadow's amplitude below a rib.
        rib_db: float32 (samples, lines): echo of the ribs' surfaces, -200 where there is none.
        visible: bool (lines,): lines well inside the sector, with contact, whose pleura lies in no shadow.
    """

    patient: Patient
    pleura_mm: Float
    across_mm: Float
    slope: Float
    roughness_db: Float
    below_mm: Float
    open: Float
    rib_db: Float
    visible: NDArray[np.bool_]


def smooth(rng: np.random.Generator, length: int, knots: int) -> Float:
    """A smooth random curve with unit variance at its knots.

    Args:
        rng: Source of the draws.
        length: Samples of the curve.
        knots: Independent values along it.

    Returns:
        float32 (length,), linear between the knots.
    """
    return np.interp(np.linspace(0, knots - 1, length), np.arange(knots), rng.standard_normal(knots)).astype(np.float32)


def amplitude(level_db: float | Float) -> Float:
    """Amplitude of a level in dB."""
    return np.asarray(10 ** (np.asarray(level_db, dtype=np.float32) / 20), dtype=np.float32)


def scatterers(rng: np.random.Generator, shape: tuple[int, ...]) -> Complex:
    """complex64 of `shape`: scatterers with random phase and unit mean power (fully developed speckle)."""
    draws = rng.standard_normal((*shape, 2), dtype=np.float32)
    draws *= np.float32(np.sqrt(0.5))
    values: Complex = draws.view(np.complex64)[..., 0]
    return values


@lru_cache(maxsize=8)
def draw_patient(spec: PhantomSpec, *, seed: int, patient: int) -> Patient:
    """Draws a patient.

    Args:
        spec: The scanner.
        seed: Seed of the data set.
        patient: Number of the patient.

    Returns:
        The same patient for the same arguments.
    """
    rng = np.random.default_rng([seed, patient])
    sector = Sector(
        radius_mm=rng.uniform(48, 62),
        half_angle_rad=np.deg2rad(rng.uniform(26, 33)),
        depth_mm=rng.uniform(80, 125),
        lines=spec.lines,
        samples=spec.samples,
    )
    angles, depth = sector.angles_rad(), sector.depths_mm()
    pleura_mm = rng.uniform(15, 29)
    beam = make_beam(
        sector, frequency_mhz=spec.frequency_mhz, focus_mm=rng.uniform(0.9, 1.8) * pleura_mm, focal_width_mm=rng.uniform(0.55, 0.75)
    )
    return Patient(
        sector=sector,
        beam=beam,
        converter=make_scan_converter(sector, (spec.rows, spec.columns)),
        depth_mm=depth,
        wall_db=_wall(rng, pleura_mm, len(angles)),
        speckle=scatterers(rng, (spec.samples, len(angles))),
        ribs=_ribs(rng),
        pleura_mm=pleura_mm,
        pleura_tilt=rng.normal(0, 0.03),
        pleura_bow_per_mm=rng.uniform(-0.0015, 0.0028),
        pleura_db=rng.uniform(6, 12),
        reverberation_db=rng.uniform(12, 22),
        fading_db=rng.uniform(5, 10),
        haze_db=rng.uniform(-25, -16),
        haze_slope_db_per_cm=rng.uniform(0.3, 1.8),
        shadow_db=rng.uniform(-34, -20),
        noise_db=rng.uniform(-54, -46),
        contact_db=_contact(rng, len(angles)),
        wall_target_db=rng.uniform(-36, -27),
        lung_target_db=rng.uniform(-47, -36),
        dynamic_range_db=rng.uniform(-6, 6),
    )


def draw_chest(patient: Patient, rng: np.random.Generator) -> Chest:
    """Places a patient's chest for one frame.

    Args:
        patient: Whose chest.
        rng: The frame's source of draws.

    Returns:
        The chest.
    """
    angles = patient.sector.angles_rad()
    shift_mm = rng.normal(0, 2.0)
    across = (patient.sector.radius_mm + patient.pleura_mm) * np.sin(angles)
    tilt = patient.pleura_tilt + rng.normal(0, 0.008)
    pleura = patient.pleura_mm + rng.normal(0, 0.4) + tilt * across
    pleura = pleura + patient.pleura_bow_per_mm * across**2 + 0.12 * smooth(rng, len(angles), 30)
    pleura_mm: Float = np.maximum(pleura, 0.6 * patient.pleura_mm).astype(np.float32)
    passes = np.ones((patient.sector.samples, len(angles)), dtype=np.float32)
    rib_db = np.full_like(passes, -200.0)
    shadowed = np.zeros(len(angles))
    for rib in patient.ribs:
        offset = (across - rib.centre_mm - shift_mm) / rib.half_width_mm
        surface = pleura_mm - rib.above_pleura_mm + 2.5 * offset**2
        side = 1 / (1 + np.exp((np.abs(offset) - 1) * 9))
        below = patient.depth_mm - surface
        passes *= 1 - (1 - 10 ** (patient.shadow_db / 20)) * side * np.clip(below / 1.5 - 0.2, 0, 1)
        np.maximum(rib_db, 13 * (1 - 0.5 * offset**2) + 20 * np.log10(side + 1e-6) - 6.0 * np.abs(below), out=rib_db)
        shadowed = np.maximum(shadowed, side)
    touching = (np.abs(angles) < 0.8 * patient.sector.half_angle_rad) & (patient.contact_db > -6)
    return Chest(
        patient=patient,
        pleura_mm=pleura_mm,
        across_mm=across.astype(np.float32),
        slope=(tilt + 2 * patient.pleura_bow_per_mm * across).astype(np.float32),
        roughness_db=(2.5 * np.abs(smooth(rng, len(angles), 14))).astype(np.float32),
        below_mm=(patient.depth_mm - pleura_mm).astype(np.float32),
        open=passes,
        rib_db=rib_db,
        visible=touching & (shadowed < 0.15),
    )


def wall_and_reverberation(chest: Chest) -> tuple[Float, Float]:
    """Mean echo power of the wall, and of its copies and mirror images below the pleura.

    Args:
        chest: The chest.

    Returns:
        float32 (samples, lines) twice: the wall above the pleura, the reverberation below; each 0 elsewhere.
    """
    patient = chest.patient
    turns = patient.depth_mm / chest.pleura_mm
    order = turns.astype(np.intp)
    lines = patient.wall_db.shape[1]
    flat = ((turns - order) * WALL_BINS).astype(np.intp) * lines
    flat += np.arange(lines)
    power = amplitude(patient.wall_db) ** 2
    copy, mirror = power.reshape(-1).take(flat), power[::-1].reshape(-1).take(flat)
    turn = np.arange(order.max() + 1)
    loss = amplitude((-patient.reverberation_db - 10 - patient.fading_db * (turn - 1)).astype(np.float32)) ** 2
    loss[0] = 0
    return np.where(order == 0, copy, np.float32(0)), loss.take(order) * (copy + mirror)


def haze(chest: Chest) -> Float:
    """Mean power of the diffuse reverberation below the pleura, float32 (samples, lines), fading with depth; 0 above."""
    patient = chest.patient
    level = patient.haze_db - 0.1 * patient.haze_slope_db_per_cm * chest.below_mm
    return np.where(chest.below_mm > 0, amplitude(level) ** 2, np.float32(0))


def pleura_and_a_lines(chest: Chest, thickness_mm: float) -> tuple[Float, Float]:
    """Amplitude of the pleural line and of its copies, the A-lines at whole multiples of its depth.

    Args:
        chest: The chest.
        thickness_mm: Standard deviation of the line along the beam.

    Returns:
        float32 (samples, lines) twice: the pleural line, the A-lines.
    """
    patient = chest.patient
    order = np.maximum(np.rint(patient.depth_mm / chest.pleura_mm), 1)
    distance = patient.depth_mm - order * chest.pleura_mm
    # Every turn smears the line: the pleura is not flat and the pulse not perfect.
    line = np.exp(-0.5 * (distance / (thickness_mm * (0.8 + 0.2 * order))) ** 2)
    level = patient.pleura_db - np.where(order > 1, patient.reverberation_db + patient.fading_db * (order - 2), 0)
    # A mirror at an angle sends its echo past the transducer, and every turn adds its angle and its roughness once more.
    level = level - np.minimum(_SPECULAR_DB * (order * chest.slope) ** 2, 30) - (order - 1) * chest.roughness_db
    strength = np.asarray(amplitude(level) * line, dtype=np.float32)
    first = order == 1
    return np.where(first, strength, np.float32(0)), np.where(first, np.float32(0), strength)


def _ribs(rng: np.random.Generator) -> tuple[Rib, ...]:
    # A longitudinal view has two ribs (the "bat sign"), an oblique one has one, a view along the intercostal space none.
    count = rng.choice(3, p=(0.2, 0.3, 0.5))
    spacing, middle = rng.uniform(36, 46), rng.normal(0, 4)
    above, side = rng.uniform(5, 9), rng.choice((-1.0, 1.0))
    centres = (middle + side * spacing / 2, middle - side * spacing / 2)[:count]
    return tuple(Rib(centre_mm=centre, half_width_mm=rng.uniform(5, 7.5), above_pleura_mm=above) for centre in centres)


def _wall(rng: np.random.Generator, pleura_mm: float, lines: int) -> Float:
    depth = (np.arange(WALL_BINS) + 0.5)[:, None] / WALL_BINS * pleura_mm
    skin_mm, fat_mm = rng.uniform(1.2, 2.2), rng.uniform(0.3, 0.65) * pleura_mm
    fascia_mm = fat_mm + 0.5 * smooth(rng, lines, 6)
    muscle = depth > fascia_mm
    strands = np.zeros((WALL_BINS, lines), dtype=np.float32)
    across = np.linspace(0, 1, lines)
    for _ in range(int(pleura_mm * 1.1)):
        # A strand of connective tissue: a thin bright layer of limited length, nearly parallel to the skin.
        middle, length = rng.uniform(0, 1), rng.uniform(0.08, 0.35)
        position = rng.uniform(skin_mm, pleura_mm - 0.8) + rng.normal(0, 1.5) * (across - middle) + 0.25 * smooth(rng, lines, 8)
        extent = np.exp(-0.5 * ((across - middle) / length) ** 2)
        rows = slice(int(max(position.min() - 1, 0) / pleura_mm * WALL_BINS), int((position.max() + 1) / pleura_mm * WALL_BINS) + 1)
        thin = np.exp(-0.5 * ((depth[rows] - position) / rng.uniform(0.15, 0.35)) ** 2)
        np.maximum(strands[rows], (rng.uniform(10, 22) * extent * thin).astype(np.float32), out=strands[rows])
    level = np.where(muscle, rng.uniform(-10, -4), rng.uniform(-20, -10)) + strands
    level = level + 12 * np.exp(-0.5 * ((depth - fascia_mm) / 0.35) ** 2)
    level = np.where(depth < skin_mm, rng.uniform(-2, 4) + 6 * np.cos(depth / skin_mm * 2 * np.pi), level)
    return np.asarray(level, dtype=np.float32)


def _contact(rng: np.random.Generator, lines: int) -> Float:
    across = np.linspace(-1, 1, lines)
    loss = rng.uniform(0.5, 4) * np.abs(smooth(rng, lines, 9))
    if rng.random() < 0.35:
        side, start = rng.choice((-1.0, 1.0)), rng.uniform(0.45, 0.9)
        loss = loss + np.clip((side * across - start) / 0.25, 0, 1) * rng.uniform(8, 30)
    return np.asarray(-loss, dtype=np.float32)
