"""Empty libraries over which NVIDIA's Python bindings of TensorRT import where there is no TensorRT.

Rules this file keeps:

1. What the stubs define is read from the bindings: the libraries they need and the symbols that none of the system's libraries has.
2. Every symbol answers with a null pointer, so nothing of TensorRT can be made to run: the bindings can be looked at, and that is all.
3. The bindings are only ever loaded in a process of their own (`introspect`): an extension module cannot be unloaded.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

TOOLS = ("gcc", "nm", "readelf")
_INTROSPECT = Path(__file__).with_name("trt_introspect.py")
_NEEDED = re.compile(r"\(NEEDED\).*\[(lib(?:nv|cuda|cudnn|cublas)[^]]*)\]")


def missing_tool() -> str | None:
    """The first tool that building the stubs needs and this machine lacks, or None."""
    return next((tool for tool in TOOLS if shutil.which(tool) is None), None)


def build(bindings: Path, into: Path) -> None:
    """Makes the libraries that an unpacked bindings package asks for.

    Args:
        bindings: Folder of the package, with `tensorrt.so` in it.
        into: Existing folder for the libraries.
    """
    extension = bindings / "tensorrt.so"
    needed = _NEEDED.findall(_output("readelf", "--dynamic", "--wide", str(extension)))
    source = "\n".join(f"void *{symbol}(void) {{ return 0; }}" for symbol in _undefined(extension))
    for position, library in enumerate(needed):
        # One of them defines everything: the loader looks a symbol up in all of them.
        code = source if position == 0 else ""
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-x", "c", "-", "-o", str(into / library)]
        subprocess.run(command, input=code, text=True, check=True, capture_output=True)


def introspect(bindings: Path, libraries: Path, python: str = sys.executable) -> dict[str, object]:
    """Names in an unpacked bindings package, as `trt_introspect.py` tells them.

    Args:
        bindings: Folder of the package.
        libraries: Folder with the stubs.
        python: The interpreter that the extension module was built for.
    """
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": str(bindings.parent)}
    command = [python, str(_INTROSPECT), bindings.name]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    if ended.returncode:
        raise RuntimeError(f"{bindings} cannot be imported over stubs:\n{ended.stderr}")
    found: dict[str, object] = json.loads(ended.stdout)
    return found


def _undefined(extension: Path) -> list[str]:
    """Symbols that must be there (not weak) and that neither the C and C++ libraries (versioned) nor Python define."""
    lines = _output("nm", "--dynamic", "--undefined-only", str(extension)).splitlines()
    symbols = [line.split()[-1] for line in lines if line.split()[-2] == "U"]
    return [symbol for symbol in symbols if "@" not in symbol and not symbol.startswith(("Py", "_Py"))]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
