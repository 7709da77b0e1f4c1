"""Does the profiler tell the truth? Comparisons of a bundle with itself, planted slowdowns, and agreement with other ways of measuring.

    python benchmarks/profiler.py [--bundle FILE] [--trials N] [--seconds S]

1. A/A: the same bundle, opened twice, compared with itself as `--compare` does. A false alarm is "slower" or "faster".
2. A planted slowdown: one of the two waits, busy, a tenth of what each answer took. Found is "slower"; "not judged" is exit code 1 and no pass.
3. Agreement: the median of the stage `infer`, and of the engine alone in a loop, with OpenVINO's own `benchmark_app` at the same settings; the median of
   `predict` with a loop written by hand. Processes cannot be interleaved call by call, so blocks of some seconds alternate.

Without a bundle, one is compiled from random weights (EfficientNet-Lite0, INT8): latency does not depend on them. Six minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import save
from numpy.typing import NDArray
from speed import make_recipe

import edgekit
from edgekit.bundle.reader import open_bundle
from edgekit.cli.console import TerminalProgress
from edgekit.compiler.pipeline import compile_recipe
from edgekit.evaluation.exact import clopper_pearson
from edgekit.imaging import phantom
from edgekit.imaging.phantom_scanner import PhantomSpec
from edgekit.profiler.clock import Budget
from edgekit.profiler.compare import MARGINS, compare_bundles
from edgekit.profiler.stages import Frame, measure_predict
from edgekit.profiler.verdict import ALIKE, FASTER, NOT_JUDGED, SLOWER
from edgekit.profiler.warmup import steady_state
from edgekit.runtime.classifier import Classifier
from edgekit.runtime.prediction import Prediction

ARCHITECTURE = "tf_efficientnet_lite0"
PLANTED = 1.10
BLOCKS = 5
BLOCK_SECONDS = 3


class Slowed:
    """A classifier whose every answer takes a given share longer."""

    def __init__(self, classifier: Classifier, factor: float) -> None:
        self._classifier, self._factor = classifier, factor

    def predict(self, frame: Frame, *, gate: bool = True) -> Prediction:
        start = time.perf_counter_ns()
        found = self._classifier.predict(frame, gate=gate)
        until = start + self._factor * (time.perf_counter_ns() - start)
        while time.perf_counter_ns() < until:
            pass
        return found


def main() -> None:
    options = arguments()
    spec = PhantomSpec(rows=480, columns=640)
    frames = [phantom.frame(kind, patient=index, index=0, seed=0, spec=spec) for index, kind in enumerate(phantom.LABELS)]
    with tempfile.TemporaryDirectory() as folder:
        bundle = options.bundle or compiled(Path(folder))
        with edgekit.load(bundle) as first, edgekit.load(bundle) as second:
            found = {
                "same": trials(lambda seconds: compare_bundles(first, second, frames, seconds=seconds).verdict.word, options),
                "planted": trials(
                    lambda seconds: compare_bundles(Slowed(first, PLANTED), second, frames, seconds=seconds).verdict.word, options
                ),
                "agreement": agreement(bundle, first, frames, Path(folder)),
            }
    print(json.dumps(found, indent=2))
    save("profiler", {**found, "planted_factor": PLANTED, "seconds": options.seconds, "margins": {**MARGINS.slower}, "frame": [480, 640]})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="a bundle for OpenVINO; compiled from random weights by default")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each comparison")
    return parser.parse_args()


def compiled(folder: Path) -> Path:
    """An INT8 bundle of random weights."""
    data = phantom.write_dataset(folder / "data", patients_per_class=8, frames_per_patient=4, seed=0)
    recipe = make_recipe(ARCHITECTURE, data, folder)
    done = compile_recipe(recipe, out=folder / "x.edgekit", workdir=folder / "work", progress=TerminalProgress())[0].bundle
    if done is None:
        raise SystemExit("the compile wrote no bundle")
    return done


def trials(judged: Callable[[float], str], options: argparse.Namespace) -> dict[str, Any]:
    """How often each word was said, and the 95 % interval of the share that said slower, and slower or faster."""
    words = Counter(judged(options.seconds) for _ in range(options.trials))
    counts = {word: words[word] for word in (SLOWER, FASTER, ALIKE, NOT_JUDGED)}
    slower, different = words[SLOWER], words[SLOWER] + words[FASTER]
    return {
        "trials": options.trials,
        "words": counts,
        "slower": [slower / options.trials, *clopper_pearson(slower, options.trials)],
        "slower_or_faster": [different / options.trials, *clopper_pearson(different, options.trials)],
    }


def agreement(bundle: Path, classifier: Classifier, frames: list[Frame], folder: Path) -> dict[str, Any]:
    """Medians of blocks that alternate, and their ratios."""
    opened = open_bundle(bundle)
    spec = next(spec for spec in opened.manifest.engines if spec.name == "openvino")
    for role, name in spec.files.items():
        (folder / f"model.{role}").write_bytes(opened.members[name])
    tensor = np.ascontiguousarray(opened.load_array(opened.manifest.golden.frames)[:1])
    medians: dict[str, list[float]] = {name: [] for name in ("infer_stage", "engine", "benchmark_app", "predict", "by_hand")}
    for _ in range(BLOCKS):
        profiled = measure_predict(classifier, frames, Budget(seconds=BLOCK_SECONDS))
        medians["infer_stage"].append(settled(profiled.stages_ms["infer"]))
        medians["predict"].append(settled(profiled.samples.milliseconds))
        medians["by_hand"].append(settled(by_hand(lambda index: classifier.predict(frames[index % len(frames)], gate=False))))
        medians["engine"].append(settled(by_hand(lambda _: classifier.engine.infer(tensor))))
        medians["benchmark_app"].append(benchmark_app(folder, spec.settings))
    middle = {name: float(np.median(values)) for name, values in medians.items()}
    return {
        "median_ms": middle,
        "blocks_ms": medians,
        "infer_stage_over_benchmark_app": middle["infer_stage"] / middle["benchmark_app"],
        "engine_over_benchmark_app": middle["engine"] / middle["benchmark_app"],
        "predict_over_by_hand": middle["predict"] / middle["by_hand"],
    }


def by_hand(call: Callable[[int], object]) -> NDArray[np.float64]:
    """The loop anybody would write; milliseconds."""
    taken = []
    begin = time.perf_counter()
    while time.perf_counter() - begin < BLOCK_SECONDS:
        start = time.perf_counter()
        call(len(taken))
        taken.append(1e3 * (time.perf_counter() - start))
    return np.array(taken)


def settled(milliseconds: NDArray[np.float64]) -> float:
    """Median after the warm-up."""
    return float(np.median(milliseconds[steady_state(milliseconds).excluded :]))


def benchmark_app(folder: Path, settings: dict[str, str]) -> float:
    """Median of OpenVINO's own program, in a process of its own; milliseconds."""
    command = [str(Path(sys.executable).with_name("benchmark_app")), "-m", str(folder / "model.xml"), "-d", "CPU"]
    command += ["-hint", settings["PERFORMANCE_HINT"].lower(), "-infer_precision", settings["INFERENCE_PRECISION_HINT"]]
    command += ["-api", "sync", "-t", str(BLOCK_SECONDS), "-latency_percentile", "50", "-json_stats"]
    command += ["-report_type", "no_counters", "-report_folder", str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"benchmark_app failed: {ran.stderr or ran.stdout}")
    results = json.loads((folder / "benchmark_report.json").read_text())["execution_results"]
    return float(results["latency (ms)"])


if __name__ == "__main__":
    main()
