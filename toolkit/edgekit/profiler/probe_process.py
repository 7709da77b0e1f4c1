"""TensorRT's builds for `edgekit doctor` and `edgekit verify`, in a process of their own: a library without kernels for this GPU may not say so but end the process.

Rules this file keeps:

1. A process that crashes, hangs or answers nonsense is FAIL for every precision, with how it ended; the command goes on.
2. The answer is the last line of its output, by a marker: libraries write there too.
3. It runs in no folder of the user's: `python -m` looks for modules in its working folder first, and what lies there must not be executed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from edgekit.errors import TargetError
from edgekit.runtime.engines.tensorrt_probe import FLAGS, Probe, Probed
from edgekit.schema.decode import decode

CHILD = "edgekit.profiler.probe_child"
MARK = "edgekit-probed "
TIMEOUT_S = 600.0
"""Three builds of one layer take seconds; a first one that loads the library from a slow card takes a minute."""


def probe_apart(command: Sequence[str] = (), *, timeout_s: float = TIMEOUT_S) -> Probed:
    """Tries every precision in a fresh process; never raises for what a device lacks.

    Args:
        command: What is run; empty for this interpreter with `CHILD`.
        timeout_s: After how many seconds it is ended.
    """
    asked = list(command) or [sys.executable, "-m", CHILD]
    try:
        ended = subprocess.run(  # noqa: S603  the command is this interpreter and our own module
            asked, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return _failed(f"the build did not end within {timeout_s:g} s")
    except OSError as error:
        return _failed(f"no process could be started for the build: {error.strerror or error}")
    if ended.returncode:
        how = f"signal {-ended.returncode}" if ended.returncode < 0 else f"exit status {ended.returncode}"
        return _failed(f"the build ended its process ({how})")
    answers = [line for line in ended.stdout.decode("utf-8", "replace").splitlines() if line.startswith(MARK)]
    try:
        return decode(Probed, json.loads(answers[-1].removeprefix(MARK)), where="the build", error=TargetError)
    except (IndexError, ValueError, TargetError):
        return _failed("the build's process gave no answer")


def _failed(reason: str) -> Probed:
    return Probed(probes=tuple(Probe(precision=name, status="FAIL", seconds=None, reason=reason) for name in FLAGS), dla_cores=None)
