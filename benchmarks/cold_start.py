"""From a fresh process to the first answer: edgekit against the shortest script that runs the same IR in bare OpenVINO.

    python benchmarks/cold_start.py BUNDLE

Both read the same frame from a `.npy` file that already has the size the graph takes, so that neither is charged for decoding or resizing; edgekit also verifies
every byte of the bundle, preprocesses and explains. Processes alternate; the ratio is of the medians.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import save

from edgekit.bundle.reader import open_bundle
from edgekit.profiler.clock import ratio_interval

RUNS = 25

BARE = """
import sys
import numpy as np
import openvino
core = openvino.Core()
model = core.compile_model(sys.argv[1], "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1"})
print(model(np.load(sys.argv[2])[None])[0])
"""

EDGEKIT = """
import sys
import numpy as np
import edgekit
print(edgekit.load(sys.argv[1]).predict(np.load(sys.argv[2])[..., 0]).label)
"""


def main() -> None:
    bundle = Path(sys.argv[1])
    opened = open_bundle(bundle)
    with tempfile.TemporaryDirectory() as folder:
        for role in ("xml", "bin"):
            (Path(folder) / f"model.{role}").write_bytes(opened.members[opened.manifest.engines[0].files[role]])
        frame = Path(folder) / "frame.npy"
        np.save(frame, opened.load_array(opened.manifest.golden.frames)[0])
        pairs = [(run(EDGEKIT, bundle, frame), run(BARE, Path(folder) / "model.xml", frame)) for _ in range(RUNS + 2)][2:]
    ours, bare = (np.array(values) for values in zip(*pairs, strict=True))
    ratio, low, high = ratio_interval(ours, bare)
    document = {
        "ratio": ratio,
        "low": low,
        "high": high,
        "edgekit_ms": float(np.median(ours)),
        "bare_ms": float(np.median(bare)),
        "runs": RUNS,
    }
    save("cold_start", {"bundle": opened.manifest.name, **document})
    print(document)


def run(code: str, model: Path, frame: Path) -> float:
    """Wall time of one process, in milliseconds."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, str(model), str(frame)], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1000


if __name__ == "__main__":
    main()
