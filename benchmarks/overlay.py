"""The overlay against the shortest OpenCV code that draws one: resize, colour map, grey to RGB, weighted sum.

    pip install --target DIR --no-deps opencv-python-headless
    PYTHONPATH=DIR python benchmarks/overlay.py

Both draw the same map over the same frame and give uint8 RGB. OpenCV's result is simpler: its colours cover frames without evidence too, which is what edgekit
refuses to do; its map is resized in 256 levels. edgekit always runs in one thread. OpenCV runs with its default threads and with one.

The ratio is of medians: against one thread, of the thread's processor time, which a busy machine disturbs less; against several, of the wall clock. Calls alternate.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from common import save

from edgekit.imaging import colormaps, composite, overlay, phantom
from edgekit.imaging.phantom_scanner import PhantomSpec
from edgekit.profiler.clock import ratio_interval

try:
    import cv2
except ImportError:
    sys.exit(
        "OpenCV is missing: pip install --target DIR --no-deps opencv-python-headless, then PYTHONPATH=DIR python benchmarks/overlay.py"
    )

SCALE = 3.0
SHAPES = ((480, 640), (2500, 2048))
RUNS = {480: 120, 2500: 30}
OTHER_BLOCKS = (5_000, 60_000, 10_000_000)

# What OpenCV looks colours up in, in the order of RGB, so that it need not be turned round afterwards.
TABLE = np.ascontiguousarray(colormaps.colors(colormaps.DEFAULT)[:, None, :])


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One frame and one map."""

    name: str
    frame: np.ndarray
    cam: np.ndarray

    @property
    def box(self) -> overlay.Box:
        """The map covers the whole frame."""
        return 0.0, 0.0, float(self.frame.shape[1]), float(self.frame.shape[0])


def cases() -> list[Case]:
    """Grey and colour, small and large; a map with a third of positive evidence, and one with nothing else."""
    rows, columns = np.mgrid[0:7, 0:7]
    hill = (2.6 - np.hypot(rows - 2.5, columns - 3.5)).astype(np.float32)
    third = (hill - np.quantile(hill, 2 / 3)) * 1.5
    maps = {"a third": third.astype(np.float32), "everywhere": np.abs(third).astype(np.float32) + np.float32(0.3)}
    found = []
    for height, width in SHAPES:
        small = phantom.frame("consolidation", patient=0, index=0, seed=0, spec=PhantomSpec(rows=480, columns=640))
        grey = small if (height, width) == small.shape else cv2.resize(small, (width, height))
        for kind, frame in (("grey", grey), ("RGB", np.repeat(grey[..., None], 3, axis=2))):
            found += [Case(name=f"{height}×{width} {kind}, positive evidence: {name}", frame=frame, cam=cam) for name, cam in maps.items()]
    return found


def by_opencv(case: Case) -> np.ndarray:
    """The shortest code: the small map in 256 levels, enlarged, coloured, blended."""
    level = np.clip(case.cam * (255 / SCALE), 0, 255).astype(np.uint8)
    heat = cv2.applyColorMap(cv2.resize(level, case.frame.shape[1::-1], interpolation=cv2.INTER_LINEAR), TABLE)
    frame = cv2.cvtColor(case.frame, cv2.COLOR_GRAY2RGB) if case.frame.ndim == 2 else case.frame
    return cv2.addWeighted(frame, 0.6, heat, 0.4, 0)


def by_edgekit(case: Case) -> np.ndarray:
    return overlay.render(case.frame, case.cam, box=case.box, scale=SCALE)


def measure(case: Case, threads: int) -> dict[str, Any]:
    """Alternating calls of both, after some that do not count."""
    cv2.setNumThreads(threads)
    for _ in range(5):
        by_edgekit(case), by_opencv(case)
    pairs = [(clocked(lambda: by_edgekit(case)), clocked(lambda: by_opencv(case))) for _ in range(RUNS[case.frame.shape[0]])]
    ours, theirs = (np.array(values) for values in zip(*pairs, strict=True))
    clock = 0 if threads == 1 else 1
    ratio, low, high = ratio_interval(ours[:, clock], theirs[:, clock])
    return {
        "ratio": ratio,
        "low": low,
        "high": high,
        "edgekit_ms": float(np.median(ours[:, clock])),
        "opencv_ms": float(np.median(theirs[:, clock])),
    }


def clocked(call: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds of the thread's processor time, and by the wall clock."""
    thread, wall = time.thread_time(), time.perf_counter()
    call()
    return (time.thread_time() - thread) * 1000, (time.perf_counter() - wall) * 1000


def digests(case: Case) -> set[str]:
    """Of the picture, over runs and sizes of blocks: one where it is bit-stable."""
    found, usual = set(), composite._BLOCK_PIXELS  # noqa: SLF001
    for pixels in (usual, usual, *OTHER_BLOCKS):
        composite._BLOCK_PIXELS = pixels  # noqa: SLF001
        found.add(hashlib.sha256(by_edgekit(case).tobytes()).hexdigest())
    composite._BLOCK_PIXELS = usual  # noqa: SLF001
    return found


def main() -> None:
    default = cv2.getNumThreads()
    rows = []
    for case in cases():
        drawn = by_edgekit(case) != (case.frame if case.frame.ndim == 3 else case.frame[..., None])
        row = {
            "case": case.name,
            "drawn_share": float(drawn.any(axis=2).mean()),
            "bit_stable": len(digests(case)) == 1,
            "one_thread": measure(case, 1),
            "default_threads": measure(case, default),
        }
        print(row)
        rows.append(row)
    save("overlay", {"opencv": cv2.__version__, "opencv_default_threads": default, "cases": rows})


if __name__ == "__main__":
    main()
