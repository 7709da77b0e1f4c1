"""The scanner of the phantom: from echo strengths along scan lines to a B-mode frame.

A linear, shift-variant convolution model, as in COLE (Gao et al. 2009, IEEE TUFFC 56(2):404) and, without its exact fields, Field II
(Jensen 1996, Med Biol Eng Comput 34:351):

1. An echo line is the scatterers' strengths, each with the phase of its two-way path, convolved with the point-spread function. The pulse
   is a Gaussian-modulated carrier; its convolution is done on the complex envelope (baseband), which for a narrow band is the same as
   filtering the RF line and demodulating it. Dense scatterers with random phases give fully developed speckle (Wagner et al. 1983, IEEE
   Trans Sonics Ultrason 30:156).
2. Across the lines the beam is Gaussian; its width grows with the distance from the focus.
3. Envelope, electronic noise, time gain, log compression over the dynamic range, and bilinear scan conversion of a convex sector follow.

Depth is measured from the transducer's surface, in mm; lines are equally spaced in angle. Strengths are in dB against ordinary muscle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError

Float = NDArray[np.float32]
Complex = NDArray[np.complex64]

SOUND_MM_PER_US = 1.54
"""Speed of sound in soft tissue (the value every scanner assumes)."""

MARGIN_LINES = 8
"""Lines simulated beyond each side of the sector, so that the beam's convolution does not wrap around into the frame."""

_PULSE_CYCLES = 1.1
_PULSE_TAPS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomSpec:
    """What the scanner of the phantom is like; the same for all patients.

    Attributes:
        rows: Height of a frame in pixels.
        columns: Width of a frame in pixels.
        lines: Scan lines of the sector.
        samples: Samples a line.
        frequency_mhz: Carrier frequency of the pulse.
        dynamic_range_db: What lies between black and white.
    """

    rows: int = 360
    columns: int = 480
    lines: int = 128
    samples: int = 384
    frequency_mhz: float = 3.5
    dynamic_range_db: float = 60.0

    def __post_init__(self) -> None:
        for name, low, high in (("rows", 32, 2048), ("columns", 32, 2048), ("lines", 32, 512), ("samples", 64, 2048)):
            if not low <= getattr(self, name) <= high:
                raise DataError(f"the phantom's {name} must be between {low} and {high}, not {getattr(self, name)}")
        if not 1 <= self.frequency_mhz <= 10:
            raise DataError(f"the phantom's frequency must be between 1 and 10 MHz, not {self.frequency_mhz}")
        if not 20 <= self.dynamic_range_db <= 120:
            raise DataError(f"the phantom's dynamic range must be between 20 and 120 dB, not {self.dynamic_range_db}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sector:
    """A convex sector and the grid of samples on it.

    Attributes:
        radius_mm: Radius of curvature of the transducer.
        half_angle_rad: Half of the opening angle.
        depth_mm: Deepest sample, from the transducer's surface.
        lines: Scan lines inside the sector.
        samples: Samples a line.
    """

    radius_mm: float
    half_angle_rad: float
    depth_mm: float
    lines: int
    samples: int

    @property
    def sample_mm(self) -> float:
        """Distance between samples of a line."""
        return self.depth_mm / self.samples

    @property
    def line_rad(self) -> float:
        """Angle between neighbouring lines."""
        return 2 * self.half_angle_rad / self.lines

    def depths_mm(self) -> Float:
        """float32 (samples, 1): depth of each sample's centre."""
        depths = ((np.arange(self.samples) + 0.5) * self.sample_mm)[:, None]
        return depths.astype(np.float32)

    def angles_rad(self) -> Float:
        """float32 (lines + margins,): angle of each simulated line, 0 in the middle."""
        count = self.lines + 2 * MARGIN_LINES
        angles = (np.arange(count) - (count - 1) / 2) * self.line_rad
        return angles.astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beam:
    """The point-spread function on a sector's grid, with unit energy at every depth.

    Attributes:
        pulse: float32 (taps,): axial envelope in samples.
        transfer: float32 (samples, lines + margins): Fourier transform of the lateral profile at each depth.
    """

    pulse: Float
    transfer: Float

    def convolve(self, strengths: Complex) -> Complex:
        """Convolves scatterers with the point-spread function.

        Args:
            strengths: complex64 (samples, lines + margins).

        Returns:
            complex64 (samples, lines + margins): the complex envelope of the echoes.
        """
        reach = len(self.pulse) // 2
        axial = strengths * self.pulse[reach]
        for offset in range(1, reach + 1):
            weight = self.pulse[reach + offset]
            axial[offset:] += weight * strengths[:-offset]
            axial[:-offset] += weight * strengths[offset:]
        echoes: Complex = np.fft.ifft(np.fft.fft(axial, axis=1) * self.transfer, axis=1).astype(np.complex64, copy=False)
        return echoes


def make_beam(sector: Sector, *, frequency_mhz: float, focus_mm: float, focal_width_mm: float) -> Beam:
    """Builds the point-spread function.

    Args:
        sector: The grid.
        frequency_mhz: Carrier frequency.
        focus_mm: Depth of the transmit focus.
        focal_width_mm: Standard deviation of the beam at the focus.

    Returns:
        The beam.
    """
    wavelength_mm = SOUND_MM_PER_US / frequency_mhz
    sigma = _PULSE_CYCLES * wavelength_mm / 2 / sector.sample_mm / 2
    taps = np.arange(-_PULSE_TAPS, _PULSE_TAPS + 1)
    pulse = np.exp(-(taps**2) / (2 * sigma**2))
    pulse /= np.sqrt((pulse**2).sum())
    depth = sector.depths_mm()
    width_mm = focal_width_mm * np.sqrt(1 + ((depth - focus_mm) / (0.75 * focus_mm + 15)) ** 2)
    width = np.maximum(width_mm / ((sector.radius_mm + depth) * sector.line_rad), 0.55)
    frequency = np.fft.fftfreq(sector.lines + 2 * MARGIN_LINES)[None, :]
    # A Gaussian of standard deviation s with unit energy has the transform sqrt(2 s sqrt(pi)) exp(-2 pi² s² f²).
    transfer = np.sqrt(2 * width * np.sqrt(np.pi)) * np.exp(-2 * (np.pi * width * frequency) ** 2)
    return Beam(pulse=pulse.astype(np.float32), transfer=transfer.astype(np.float32))


def envelope_db(echoes: Complex, *, noise_db: Float, noise: Complex) -> Float:
    """Detects the envelope of echoes with electronic noise added, in dB.

    Args:
        echoes: complex64 (samples, lines).
        noise_db: float32 broadcastable to (samples, lines): level of the noise.
        noise: complex64 (samples, lines) with unit power.

    Returns:
        float32 (samples, lines), 20 log10 of the magnitude.
    """
    total = echoes + noise * 10 ** (noise_db / 20)
    power = total.real**2 + total.imag**2
    return np.asarray(10 * np.log10(power + np.float32(1e-12)), dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanConverter:
    """Which samples each pixel of the sector is made of (bilinear).

    Attributes:
        shape: (rows, columns) of the frame.
        pixels: intp (inside,): flat index of each pixel inside the sector.
        corner: intp (inside,): flat index of the sample before it in depth and angle.
        depth_part: float32 (inside,): how far it lies towards the next sample, 0 to 1.
        angle_part: float32 (inside,): how far it lies towards the next line, 0 to 1.
        lines: Lines of the samples, margins included.
    """

    shape: tuple[int, int]
    pixels: NDArray[np.intp]
    corner: NDArray[np.intp]
    depth_part: Float
    angle_part: Float
    lines: int

    def frame(self, samples: Float) -> NDArray[np.uint8]:
        """Interpolates samples in 0..255 into a frame; black outside the sector.

        Args:
            samples: float32 (samples, lines + margins).

        Returns:
            uint8 (rows, columns).
        """
        flat = np.ascontiguousarray(samples).reshape(-1)
        nearer = self._between_lines(flat)
        farther = self._between_lines(flat[self.lines :])
        values = nearer + (farther - nearer) * self.depth_part + np.float32(0.5)
        frame = np.zeros(self.shape, dtype=np.uint8)
        frame.reshape(-1)[self.pixels] = values.astype(np.uint8)
        return frame

    def _between_lines(self, flat: Float) -> Float:
        left = flat.take(self.corner)
        return left + (flat[1:].take(self.corner) - left) * self.angle_part


def make_scan_converter(sector: Sector, shape: tuple[int, int]) -> ScanConverter:
    """Lays a sector into a frame: its height fills the rows, its axis is the middle column, what is wider than the frame is cut.

    Args:
        sector: The grid of samples.
        shape: (rows, columns) of the frame.

    Returns:
        The table.
    """
    rows, columns = shape
    top_mm = sector.radius_mm * np.cos(sector.half_angle_rad)
    pixel_mm = (sector.radius_mm + sector.depth_mm - top_mm) / rows
    down = ((top_mm + (np.arange(rows) + 0.5) * pixel_mm)[:, None]).astype(np.float32)
    across = (((np.arange(columns) + 0.5 - columns / 2) * pixel_mm)[None, :]).astype(np.float32)
    depth = np.hypot(across, down) - sector.radius_mm
    angle = np.arctan2(across, down)
    inside = (depth >= 0) & (depth < sector.depth_mm) & (np.abs(angle) <= sector.half_angle_rad)
    total = sector.lines + 2 * MARGIN_LINES
    sample = np.clip(depth[inside] / sector.sample_mm - 0.5, 0, sector.samples - 1.001)
    line = angle[inside] / sector.line_rad + (total - 1) / 2
    sample_index, line_index = sample.astype(np.intp), line.astype(np.intp)
    return ScanConverter(
        shape=shape,
        pixels=np.flatnonzero(inside),
        corner=sample_index * total + line_index,
        depth_part=(sample - sample_index).astype(np.float32),
        angle_part=(line - line_index).astype(np.float32),
        lines=total,
    )
