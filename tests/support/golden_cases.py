"""What the files in `tests/golden/` hold: the cases, for the test that compares and the script that writes them anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from bundle_builders import tiny_manifest, tiny_members
from device_bundles import maps_of
from numpy.typing import NDArray
from PIL import Image

from edgekit.bundle.writer import write_bundle
from edgekit.imaging import overlay, phantom
from edgekit.imaging.phantom_scanner import PhantomSpec
from edgekit.imaging.preprocess import crop_box, preprocess
from edgekit.schema.model_io import InputSpec

FOLDER = Path(__file__).parents[1] / "golden"
FRAME = FOLDER / "frame.png"
BUNDLE = FOLDER / "tiny.edgekit.golden"

_ONE = {"channels": 1, "mean": (0.0,), "std": (1.0,)}
_RGB = {"color": "rgb", "channels": 3, "mean": (0.0,) * 3, "std": (1.0,) * 3}

SPECS: Mapping[str, InputSpec] = {
    "grey": InputSpec(color="grey", resize=(32, 32), **_ONE),
    "grey-crop": InputSpec(color="grey", resize=(40, 48), crop=(31, 33), **_ONE),
    "grey-bicubic": InputSpec(color="grey", resize=(32, 32), interpolation="bicubic", **_ONE),
    "grey-denoised": InputSpec(color="grey", resize=(32, 32), denoise_sigma=1.5, **_ONE),
    "grey-equalized": InputSpec(color="grey", resize=(32, 32), equalize=True, **_ONE),
    "grey-enlarged": InputSpec(color="grey", resize=(96, 120), **_ONE),
    "rgb": InputSpec(resize=(32, 32), **_RGB),
    "rgb-equalized": InputSpec(resize=(32, 32), equalize=True, **_RGB),
}


def frame() -> NDArray[np.uint8]:
    """The golden frame, uint8 (64, 80)."""
    return np.asarray(Image.open(FRAME))


def colour_frame() -> NDArray[np.uint8]:
    """The same with a colour bar, uint8 (64, 80, 3), as Doppler has it."""
    colour = np.repeat(frame()[..., None], 3, axis=2)
    colour[8:56, 60:64] = np.stack([np.linspace(255, 0, 48), np.zeros(48), np.linspace(0, 255, 48)], axis=-1)[:, None].astype(np.uint8)
    return colour


def cam() -> NDArray[np.float32]:
    """A signed map, float32 (4, 4)."""
    pattern = (np.arange(256, dtype=np.uint32).reshape(16, 16) * 37 % 256).astype(np.uint8)
    return maps_of(pattern, 3)[2].astype(np.float32)


def _overlay(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return overlay.render(pixels, cam(), box=crop_box(pixels.shape, SPECS["grey-crop"]), scale=1.0)


PICTURES: Mapping[str, Callable[[], NDArray[np.uint8]]] = {
    **{f"preprocess-{name}": lambda spec=spec: preprocess(colour_frame(), spec)[0].squeeze() for name, spec in SPECS.items()},
    "overlay-grey": lambda: _overlay(frame()),
    "overlay-rgb": lambda: _overlay(colour_frame()),
}
"""Name of a golden PNG to what must be in it."""


def write_frame() -> None:
    """A phantom, written once: another numpy may round a grey level of it differently, so the file is the input, not the generator."""
    pixels = phantom.frame("consolidation", patient=0, index=0, seed=0, spec=PhantomSpec(rows=64, columns=80, lines=64, samples=128))
    Image.fromarray(pixels).save(FRAME, optimize=True)


def write_golden_bundle(path: Path) -> None:
    """The tiny bundle of `bundle_builders`, by edgekit's own writer."""
    write_bundle(path, tiny_manifest(), tiny_members())
