"""The README's picture: synthetic test frames of the demonstration, and the same frames with their maps.

    make demo && python benchmarks/readme_picture.py [DEMO [PICTURE.png]]

Of each class it shows the test frame that the bundle answers rightly with the largest probability, which is written under it: a picture to show how a map
looks, not how good it is. The data is synthetic, and no other may come into this picture.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import edgekit
from edgekit.evaluation.dataset import load_manifest
from edgekit.imaging import frames, phantom
from edgekit.runtime.classifier import Classifier
from edgekit.runtime.prediction import Prediction
from edgekit.schema.data import Columns

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "overlay.png"
WIDTH, HEIGHT, GAP, LINE = 272, 204, 6, 18
COLOURS = 192


def main() -> None:
    demo = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("demo")
    picture = Path(sys.argv[2]) if len(sys.argv) > 2 else PICTURE
    classifier = edgekit.load(demo / "phantom-lung.edgekit")
    shown = [surest(classifier, demo / "data" / phantom.MANIFEST, label) for label in phantom.LABELS]
    sheet = draw(shown)
    picture.parent.mkdir(parents=True, exist_ok=True)
    # Few colours and no dithering: half the size, and no speckle that the frame does not have.
    sheet.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(picture, optimize=True)
    print(f"wrote {picture}, {picture.stat().st_size} bytes")


def surest(classifier: Classifier, manifest: Path, label: str) -> tuple[np.ndarray, Prediction]:
    """The test frame of a class that is answered rightly with the largest probability."""
    samples = load_manifest(manifest, Columns(mask="mask"), classifier.manifest.output).split("test")
    pictures = [next(iter(frames.read(sample.path))).pixels for sample in samples if sample.labels == (label,)]
    answered = [(pixels, classifier.predict(pixels)) for pixels in pictures]
    right = [pair for pair in answered if pair[1].label == label]
    if not right:
        sys.exit(f"no test frame of {label} is answered rightly; is {manifest} the demonstration's?")
    return max(right, key=lambda pair: pair[1].probabilities[label])


def draw(shown: list[tuple[np.ndarray, Prediction]]) -> Image.Image:
    """Frames above, overlays below, what was answered under them."""
    size = (len(shown) * (WIDTH + GAP) - GAP, 2 * (HEIGHT + GAP) + 2 * LINE)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for column, (pixels, prediction) in enumerate(shown):
        left = column * (WIDTH + GAP)
        sheet.paste(Image.fromarray(pixels).convert("RGB").resize((WIDTH, HEIGHT)), (left, 0))
        sheet.paste(Image.fromarray(prediction.overlay()).resize((WIDTH, HEIGHT)), (left, HEIGHT + GAP))
        answer = f"{prediction.label}, probability {prediction.probabilities[str(prediction.label)]:.2f}"
        pen.text((left + 4, 2 * (HEIGHT + GAP) + 2), answer, fill="black")
    pen.text((4, size[1] - LINE + 2), "SYNTHETIC frames (built-in phantom); below, the evidence for the answer", fill="black")
    return sheet


if __name__ == "__main__":
    main()
