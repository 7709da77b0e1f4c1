"""Classifies a picture with an unpacked bundle: NumPy, Pillow and OpenVINO, without edgekit.

    python classify.py FOLDER PICTURE

FOLDER is what `unpack.py` made. For 8-bit grey and RGB pictures this gives the logits that `edgekit run` gives on the same machine;
16-bit pictures, EXIF orientation, DICOM and damaged files need the reader that edgekit has (docs/formats-and-scaling.md).
"""

# ruff: noqa: T201, TID253 - a script for the terminal, and OpenVINO is all it is about
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from PIL import Image, ImageFilter, ImageOps

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def preprocess(image: Image.Image, spec: dict[str, Any]) -> np.ndarray:
    """uint8 (1, height, width, channels), in the order of the manifest's `input`: colour, noise, equalization, resize, crop."""
    image = image.convert("L" if spec["color"] == "grey" else "RGB")
    if spec["denoise_sigma"] > 0:
        image = image.filter(ImageFilter.GaussianBlur(spec["denoise_sigma"]))
    if spec["equalize"] and image.mode == "L":
        image = ImageOps.equalize(image)
    elif spec["equalize"]:
        luma, blue, red = image.convert("YCbCr").split()
        image = Image.merge("YCbCr", (ImageOps.equalize(luma), blue, red)).convert("RGB")
    height, width = spec["resize"]
    # Along rows first: Pillow 13 alone would take the order that is less work, and round otherwise.
    image = image.resize((width, image.height), FILTERS[spec["interpolation"]]).resize((width, height), FILTERS[spec["interpolation"]])
    rows, columns = spec["crop"] or spec["resize"]
    top, left = (height - rows) // 2, (width - columns) // 2
    image = image.crop((left, top, left + columns, top + rows))
    return np.asarray(image, dtype=np.uint8).reshape(1, rows, columns, -1)


def crop_box(size: tuple[int, int], spec: dict[str, Any]) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the map in pixels of a picture of (width, height): the map covers the crop, not the whole picture."""
    height, width = spec["resize"]
    rows, columns = spec["crop"] or spec["resize"]
    top, left = (height - rows) // 2, (width - columns) // 2
    across, down = size[0] / width, size[1] / height
    return left * across, top * down, (left + columns) * across, (top + rows) * down


def main() -> None:
    folder, picture = Path(sys.argv[1]), Path(sys.argv[2])
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if manifest.get("state"):
        sys.exit("this bundle is recurrent: a picture alone has no answer")
    engine = next(item for item in manifest["engines"] if item["name"] == "openvino")
    compiled = openvino.Core().compile_model(str(folder / engine["files"]["xml"]), "CPU", engine["settings"])
    pinned = engine["settings"]["INFERENCE_PRECISION_HINT"]
    if compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() != pinned:
        sys.exit(f"this machine does not run the precision that was proven, {pinned}")

    with Image.open(picture) as image:
        image.load()
    results = compiled(preprocess(image, manifest["input"]))
    raw = results[0][0]
    output, labels = manifest["output"], manifest["output"]["labels"]
    one = len(raw) == 1 and output["task"] == "binary"
    logits = np.concatenate([-raw, raw]) if one else raw
    scaled = logits.astype(np.float64) / manifest["decision"]["temperature"]
    if one or output["task"] == "multilabel":
        probability = 1 / (1 + np.exp(-scaled))
    else:
        exponential = np.exp(scaled - scaled.max())
        probability = exponential / exponential.sum()
    chosen = int(probability.argmax())
    print(dict(zip(labels, probability.tolist(), strict=True)))
    if output["task"] == "multilabel":
        thresholds = manifest["decision"]["thresholds"]
        print([label for label, value in zip(labels, probability, strict=True) if value >= thresholds.get(label, 0.5)])
    else:
        print(labels[chosen])

    cam = manifest["cam"]
    if cam is None:
        print("no map:", manifest["cam_reason"])
        return
    maps = results[1][0]  # (outputs, rows, columns), logit units
    bias = np.float32(cam["bias"]) if cam["bias"] else results[2][0]
    off = np.abs(maps.mean(axis=(1, 2)) + bias - raw).max()
    if not off <= cam["tolerance"]:
        print(f"the map does not add up to the logit (off by {off:g}) and must not be shown")
        return
    shown = np.concatenate([-maps, maps])[chosen] if one else maps[chosen]
    row, column = divmod(int(shown.argmax()), cam["columns"])
    left, top, right, bottom = crop_box(image.size, manifest["input"])
    x, y = left + (column + 0.5) * (right - left) / cam["columns"], top + (row + 0.5) * (bottom - top) / cam["rows"]
    print(f"strongest evidence for {labels[chosen]}: cell {row}, {column}, around x = {x:.1f}, y = {y:.1f} pixels")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python classify.py FOLDER PICTURE")
    main()
