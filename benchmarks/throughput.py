"""Frames a second over a folder, from reading the file to the map, against OpenVINO's own `benchmark_app` on the same IR.

    python benchmarks/throughput.py

`benchmark_app` infers one tensor that is in memory, in its throughput mode and in its latency mode; the faster one counts. edgekit reads and decodes 480 × 640 grey PNG
files that are in the operating system's cache, preprocesses, infers and checks the map, with as many jobs as there are cores. Both take turns, block by block; the ratio is
of the medians of the blocks. Then every stage alone, on one thread, to explain what is lost.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import save
from PIL import Image
from speed import make_recipe

from edgekit.bundle.reader import open_bundle
from edgekit.cli.console import TerminalProgress
from edgekit.compiler.pipeline import compile_recipe
from edgekit.imaging import frames, phantom
from edgekit.imaging.phantom_scanner import PhantomSpec
from edgekit.imaging.preprocess import preprocess
from edgekit.runtime.classifier import Classifier
from edgekit.runtime.pool import Pool, cores

ARCHITECTURES = ("densenet121", "tf_efficientnet_lite0")
FILES = 60
BLOCKS = 5
SECONDS = 6


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data = phantom.write_dataset(folder / "data", patients_per_class=8, frames_per_patient=4, seed=0)
        files = write_files(folder / "frames")
        found = {name: measure(name, data, files, folder) for name in ARCHITECTURES}
    save("throughput", {"architectures": found, "files": FILES, "frame": [480, 640], "jobs": cores()})


def write_files(folder: Path) -> list[Path]:
    """Frames as PNG."""
    folder.mkdir()
    spec = PhantomSpec(rows=480, columns=640)
    paths = [folder / f"{index:03d}.png" for index in range(FILES)]
    for index, path in enumerate(paths):
        kind = phantom.LABELS[index % len(phantom.LABELS)]
        Image.fromarray(phantom.frame(kind, patient=index, index=0, seed=0, spec=spec)).save(path)
    return paths


def measure(architecture: str, data: Path, files: list[Path], folder: Path) -> dict[str, Any]:
    """One architecture, block by block."""
    recipe = make_recipe(architecture, data, folder)
    bundle = folder / f"{architecture}.edgekit"
    compile_recipe(recipe, out=bundle, workdir=folder / "work", progress=TerminalProgress())
    opened = open_bundle(bundle)
    engine = opened.manifest.engines[0]
    for role in ("xml", "bin"):
        (folder / f"model.{role}").write_bytes(opened.members[engine.files[role]])
    rates: dict[str, list[float]] = {"edgekit": [], "throughput": [], "latency": []}
    with Pool(bundle, cores()) as pool:
        for block in range(BLOCKS + 1):
            taken = {
                "edgekit": run_folder(pool, files),
                **{hint: benchmark_app(folder / "model.xml", hint) for hint in ("throughput", "latency")},
            }
            for name, rate in taken.items():
                if block:  # the first block of each is its warm-up
                    rates[name].append(rate)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    best = max(("throughput", "latency"), key=medians.__getitem__)
    ratios = sorted(ours / theirs for ours, theirs in zip(rates["edgekit"], rates[best], strict=True))
    with Pool(bundle, cores()) as pool:
        stages = stages_ms(pool.classifiers[0], files)
    return {
        "ratio": medians["edgekit"] / medians[best],
        "low": ratios[0],
        "high": ratios[-1],
        "frames_per_second": medians,
        "against": best,
        "blocks": BLOCKS,
        "stages_ms": stages,
    }


def run_folder(pool: Pool, files: list[Path]) -> float:
    """Frames a second of edgekit."""

    def work(classifier: Classifier, path: Path) -> int:
        return sum(classifier.predict(frame.pixels).cam is not None for frame in frames.read(path))

    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        done += sum(pool.map(work, files))
    return done / (time.perf_counter() - start)


def benchmark_app(xml: Path, hint: str) -> float:
    """Frames a second of OpenVINO's own program, with the pinned precision."""
    program = Path(sys.executable).with_name("benchmark_app")
    command = [program, "-m", xml, "-d", "CPU", "-hint", hint, "-t", SECONDS, "-infer_precision", "f32"]
    printed = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
    found = re.search(r"Throughput:\s+([0-9.]+) FPS", printed)
    if found is None:
        sys.exit(f"benchmark_app printed no throughput:\n{printed[-2000:]}")
    return float(found[1])


def stages_ms(classifier: Classifier, files: list[Path]) -> dict[str, float]:
    """Median milliseconds of each stage in a classifier of the pool, alone on the machine."""
    pixels = [next(iter(frames.read(path))).pixels for path in files]
    tensors = [preprocess(one, classifier.manifest.input) for one in pixels]
    calls = {
        "read": lambda index: next(iter(frames.read(files[index]))),
        "preprocess": lambda index: preprocess(pixels[index], classifier.manifest.input),
        "infer": lambda index: classifier.engine.infer(tensors[index]),
        "predict": lambda index: classifier.predict(pixels[index]),
    }
    found = {}
    for name, call in calls.items():
        taken = []
        for index in [*range(FILES), *range(FILES)]:
            start = time.perf_counter()
            call(index)
            taken.append((time.perf_counter() - start) * 1000)
        found[name] = float(np.median(taken[FILES // 2 :]))
    return found


if __name__ == "__main__":
    main()
