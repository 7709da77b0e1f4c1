"""The process that builds one convolution in each precision and prints what came of it.

Run as ``python -m edgekit.profiler.probe_child`` by `probe_process.py`; no use of its own.
"""

from __future__ import annotations

import json
import sys

from edgekit.profiler.probe_process import MARK
from edgekit.runtime.engines.tensorrt_probe import probe
from edgekit.schema.decode import encode


def main() -> int:
    """Builds and prints; returns the exit status."""
    sys.stdout.write(f"\n{MARK}{json.dumps(encode(probe()))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
