"""What is wrong, or not, with the lung of the phantom: the echoes that make a label.

1. B-lines (Lichtenstein 1997, Am J Respir Crit Care Med 156:1640; Volpicelli 2012, Intensive Care Med 38:577): laser-like bright bands that
   arise from the pleura, reach the bottom of the screen without fading, and erase the A-lines; they may merge ("white lung").
2. Consolidation (Lichtenstein 2004, Intensive Care Med 30:276; Volpicelli 2012): a subpleural, tissue-like and mostly hypoechoic region with an
   irregular border to the aerated lung ("shred sign") and bright air bronchograms; the pleural line above it is weak and broken.
3. Every lung, healthy or not, may show Z-lines (Lichtenstein 2010, Whole Body Ultrasonography in the Critically Ill): faint tails from the pleura that fade within a few centimetres and leave
   the A-lines alone. They are what a B-line is mistaken for.

Strengths are set against the patient's own haze and reach down to where a reader would hesitate, so that neither brightness nor size decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.imaging.phantom_anatomy import Chest, amplitude, haze, smooth
from edgekit.imaging.phantom_scanner import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How a finding changes the echoes of a healthy lung.

    Attributes:
        power: float32 (samples, lines): mean echo power it adds.
        aerated: float32 (samples, lines) in [0, 1]: what it leaves of the A-lines and the other reverberation.
        pleura: float32 (lines,): factor on the amplitude of the pleural line.
        mask: bool (samples, lines): where a reader would draw it.
    """

    power: Float
    aerated: Float
    pleura: Float
    mask: NDArray[np.bool_]


def healthy(chest: Chest, rng: np.random.Generator) -> Finding:
    """A-lines only: nothing is added but, now and then, Z-lines."""
    return Finding(
        power=z_lines(chest, rng),
        aerated=np.ones_like(chest.below_mm),
        pleura=np.ones_like(chest.pleura_mm),
        mask=np.zeros(chest.below_mm.shape, dtype=bool),
    )


def b_lines(chest: Chest, rng: np.random.Generator) -> Finding:
    """One to many B-lines; from five on they are placed close together and merge."""
    haze_db = chest.patient.haze_db
    index = np.arange(len(chest.pleura_mm), dtype=np.float32)
    power, marked = np.zeros_like(chest.below_mm), np.zeros_like(chest.below_mm, dtype=bool)
    kept = np.ones_like(chest.pleura_mm)
    for centre in _positions(chest, rng, int(rng.choice((1, 2, 3, 4, 6, 9), p=(0.24, 0.24, 0.2, 0.14, 0.1, 0.08)))):
        width = rng.uniform(1.0, 2.8)
        near = _near(centre, width, len(index))
        offset, below_mm = (index - centre) / width, chest.below_mm[:, near]
        # A bubble-tetrahedron complex that rings on: equal spacing, equal strength (Avruch and Cooperberg 1985, J Ultrasound Med 4:21).
        ringing_mm, phase = rng.uniform(0.9, 2.4), rng.uniform(0, 2 * np.pi)
        ring_db = 2.5 * np.sin(2 * np.pi * below_mm / ringing_mm + phase)
        level_db = haze_db + rng.uniform(5, 16) + ring_db
        power[:, near] += amplitude(level_db) ** 2 * np.exp(-0.5 * offset[near] ** 2) * np.clip(below_mm / 0.8, 0, 1)
        kept *= 1 - rng.uniform(0.7, 1.0) * np.exp(-0.5 * (offset / 1.5) ** 4)
        marked |= (np.abs(offset) < 1.6) & (chest.below_mm > 0)
    pleura = 1 - 0.35 * (1 - kept) * np.abs(smooth(rng, len(kept), 24))
    return Finding(
        power=power + z_lines(chest, rng),
        aerated=np.broadcast_to(kept, chest.below_mm.shape).astype(np.float32),
        pleura=np.clip(pleura, 0.2, 1).astype(np.float32),
        mask=marked & (chest.open > 0.5),
    )


def consolidation(chest: Chest, rng: np.random.Generator) -> Finding:
    """One subpleural consolidation, some two to five centimetres wide where the ribs let it be seen."""
    patient = chest.patient
    middle = chest.across_mm[int(_positions(chest, rng, 1)[0])]
    half_width = float(np.exp(rng.uniform(np.log(10), np.log(24))))
    thickness = min(half_width * rng.uniform(0.9, 1.8), 0.5 * (patient.sector.depth_mm - patient.pleura_mm))
    lateral = (chest.across_mm - middle) / half_width
    ragged = 1 + 0.22 * smooth(rng, len(chest.pleura_mm), 12) + 0.16 * smooth(rng, len(chest.pleura_mm), 48)
    border = thickness * np.sqrt(np.clip(1 - lateral**2, 0, None)) * np.clip(ragged, 0.35, 1.6)
    inside_mm = np.minimum(border - chest.below_mm, chest.below_mm)
    region = np.clip(inside_mm / 0.8, 0, 1).astype(np.float32)
    cover = np.clip((border - 1) / 2, 0, 1) * np.clip(chest.below_mm / 0.5, 0, 1)
    tissue_db = patient.haze_db + rng.uniform(-18, -3)
    power = amplitude(tissue_db) ** 2 * region
    power += _shredded_border(chest, rng, (chest.below_mm - border).astype(np.float32), cover.astype(np.float32))
    power += _air_bronchograms(chest, rng, region, area_mm2=1.5 * half_width * thickness)
    weak = np.clip(1 - cover.max(axis=0) * (1 - amplitude(rng.uniform(-18, -7)) * np.abs(smooth(rng, len(ragged), 20))), 0.05, 1)
    return Finding(
        power=(power + z_lines(chest, rng) * (1 - cover)).astype(np.float32),
        aerated=(1 - cover).astype(np.float32),
        pleura=weak.astype(np.float32),
        mask=(region > 0.5) & (chest.open > 0.5),
    )


def z_lines(chest: Chest, rng: np.random.Generator) -> Float:
    """Mean echo power of none to three Z-lines, float32 (samples, lines)."""
    power = np.zeros_like(chest.below_mm)
    index = np.arange(len(chest.pleura_mm), dtype=np.float32)
    for centre in _positions(chest, rng, int(rng.choice(4, p=(0.5, 0.25, 0.15, 0.1)))):
        width = rng.uniform(0.8, 2.0)
        near = _near(centre, width, len(index))
        below_mm = chest.below_mm[:, near]
        level = amplitude(chest.patient.haze_db + rng.uniform(5, 13) - np.clip(below_mm, 0, None) * rng.uniform(0.5, 1.6))
        power[:, near] += level**2 * np.exp(-0.5 * ((index[near] - centre) / width) ** 2) * (below_mm > 0)
    return power


def _shredded_border(chest: Chest, rng: np.random.Generator, beyond_mm: Float, cover: Float) -> Float:
    """Echo power of the bright edge towards aerated lung, of the fading tails behind it and of the haze of that lung."""
    lines = len(chest.pleura_mm)
    level_db = chest.patient.haze_db + rng.uniform(7, 16) + 4 * smooth(rng, lines, 40)
    edge = np.exp(-0.5 * (beyond_mm / 0.6) ** 2)
    tail_db = chest.patient.haze_db + rng.uniform(0, 6) + 3 * smooth(rng, lines, 30) - rng.uniform(0.12, 0.45) * np.clip(beyond_mm, 0, None)
    behind = (amplitude(tail_db) ** 2 + haze(chest)) * (beyond_mm > 0)
    return np.asarray(cover * (amplitude(level_db) ** 2 * edge + behind), dtype=np.float32)


def _air_bronchograms(chest: Chest, rng: np.random.Generator, region: Float, *, area_mm2: float) -> Float:
    """Echo power of air in the bronchi of a consolidation: bright points and short streaks."""
    power = np.zeros_like(region)
    inner = np.flatnonzero((region >= 1) & (chest.open > 0.5))
    if inner.size == 0:
        return power
    sector = chest.patient.sector
    for start in rng.choice(inner, size=int(np.clip(area_mm2 * rng.uniform(0.012, 0.05), 2, 16))):
        sample, line = divmod(int(start), region.shape[1])
        pitch_mm = (sector.radius_mm + chest.patient.depth_mm[sample, 0]) * sector.line_rad
        long_mm, short_mm, slope = rng.uniform(0.6, 3.0), rng.uniform(0.3, 0.6), rng.normal(0, 0.5)
        reach_lines, reach_samples = int(3 * long_mm / pitch_mm) + 1, int((3 * long_mm * abs(slope) + 3 * short_mm) / sector.sample_mm) + 1
        rows = slice(max(sample - reach_samples, 0), sample + reach_samples + 1)
        columns = slice(max(line - reach_lines, 0), line + reach_lines + 1)
        across = (np.arange(*columns.indices(region.shape[1])) - line)[None, :] * pitch_mm
        down = (np.arange(*rows.indices(region.shape[0])) - sample)[:, None] * sector.sample_mm
        spot = np.exp(-0.5 * ((across / long_mm) ** 2 + ((down - slope * across) / short_mm) ** 2))
        power[rows, columns] += amplitude(chest.patient.haze_db + rng.uniform(9, 20)) ** 2 * spot * region[rows, columns]
    return power


def _near(centre: float, width: float, lines: int) -> slice:
    """The lines within four widths of a centre: beyond, a Gaussian is below the noise."""
    return slice(max(int(centre - 4 * width), 0), min(int(centre + 4 * width) + 2, lines))


def _positions(chest: Chest, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Lines at which a finding meets the pleura: any visible ones, or for five and more, visible ones near each other."""
    candidates = np.flatnonzero(chest.visible)
    if candidates.size == 0:
        # Ribs hide the whole pleura: the middle is where a sonographer would tilt the probe to.
        candidates = np.array([len(chest.pleura_mm) // 2])
    if count >= 5:
        middle = rng.choice(candidates)
        candidates = candidates[np.argsort(np.abs(candidates - middle))[: max(5 * count, 1)]]
    return rng.choice(candidates, size=count) + rng.uniform(-0.5, 0.5, size=count)
