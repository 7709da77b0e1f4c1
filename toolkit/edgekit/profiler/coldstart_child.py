"""The fresh process whose start is measured: imports edgekit, opens the bundle, answers one frame, writes what that took.

Run as ``python -m edgekit.profiler.coldstart_child MODULE BUNDLE FRAME.npy RESULT.json`` by `coldstart.py`; no use of its own.

Only the standard library is imported before the clock starts: whatever the runtime needs, NumPy included, counts as its import. An engine may
write to stdout, so the result goes to a file.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any


def main(module: str, bundle: str, frame_file: str, result_file: str) -> int:
    """Measures and writes; returns the exit status.

    Args:
        module: Module that has `load`; a name that needs a further import for it counts too.
        bundle: The bundle.
        frame_file: One frame, as `.npy`.
        result_file: Where the JSON goes: stamps in nanoseconds of `time.perf_counter_ns` and the memory, or the edgekit error met.
    """
    result: dict[str, Any] = {"started_ns": time.perf_counter_ns()}
    from edgekit.errors import EdgekitError

    try:
        load = importlib.import_module(module).load
        result["imported_ns"] = time.perf_counter_ns()
        classifier = load(bundle)
        result["loaded_ns"] = time.perf_counter_ns()

        import numpy as np

        frame = np.load(frame_file, allow_pickle=False)
        result["frame_ns"] = time.perf_counter_ns()
        # A clip, since a recurrent classifier answers nothing else.
        classifier.clip().predict(frame, gate=False)
        result["finished_ns"] = time.perf_counter_ns()
    except EdgekitError as error:
        result = {"error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint}}
    else:
        result["memory"] = _memory()
    Path(result_file).write_text(json.dumps(result), "utf-8")
    return 0


def _memory() -> Any:
    from edgekit.profiler import memory
    from edgekit.schema.decode import encode

    return encode(memory.read())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
