"""What the explanation branch of openvino_xai costs, measured in its own old environment: ReciproCAM, "with its branch" over "without", interleaved.

Run by `explanations.py`, with an interpreter that has what the package asks for (it does not load beside a newer OpenVINO):

    python3.10 -m venv /path/to/xai
    /path/to/xai/bin/pip install openvino-xai==1.1.0 nncf==2.13.0

    /path/to/xai/bin/python benchmarks/peer_openvino_xai.py MODEL.onnx SETTINGS.json SECONDS

It knows nothing of edgekit. Each way to an INT8 graph is tried, and FP32; a way that fails is written down with what the library said. Maps are left in the
library's own units (`embed_scaling=False`), which is the cheaper choice for it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

CALIBRATION_FRAMES = 8
WARM_UP = 20
LEAST_PAIRS = 50


def main() -> None:
    import openvino as ov

    path, settings, seconds = sys.argv[1], json.loads(sys.argv[2]), float(sys.argv[3])
    core = ov.Core()
    ways = {"quantized, then branch": quantize_then_insert, "branch, then quantized": insert_then_quantize, "FP32": only_insert}
    found = {}
    for name, make in ways.items():
        try:
            plain, explained = make(lambda: core.read_model(path), path)
            found[name] = compare(core, plain, explained, settings, seconds)
        except Exception as error:  # noqa: BLE001 - whatever a library of that time raises is the finding
            found[name] = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300] if str(error).strip() else ''}"}
    versions = {name: version(name) for name in ("openvino", "openvino-xai", "nncf")}
    print("RESULT " + json.dumps({"ways": found, "versions": versions}))


def quantize_then_insert(read: Callable[[], Any], path: str) -> tuple[Any, Any]:
    return quantized(read()), explained(quantized(read()), path)


def insert_then_quantize(read: Callable[[], Any], path: str) -> tuple[Any, Any]:
    return quantized(read()), quantized(explained(read(), path))


def only_insert(read: Callable[[], Any], path: str) -> tuple[Any, Any]:
    return read(), explained(read(), path)


def explained(model: Any, path: str) -> Any:
    import openvino_xai as xai

    method = xai.Method.VITRECIPROCAM if "vit" in path else xai.Method.RECIPROCAM
    return xai.insert_xai(model, task=xai.Task.CLASSIFICATION, explain_method=method, embed_scaling=False)


def quantized(model: Any) -> Any:
    import nncf

    return nncf.quantize(model, nncf.Dataset([noise(seed) for seed in range(CALIBRATION_FRAMES)]))


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(1, 3, 224, 224)).astype(np.float32)


def compare(core: Any, plain: Any, explained: Any, settings: dict[str, str], seconds: float) -> dict[str, Any]:
    """Medians of both, interleaved; the ratio with the branch over without."""
    requests = [core.compile_model(model, "CPU", settings).create_infer_request() for model in (explained, plain)]
    frame = noise(0)
    times: list[list[float]] = [[], []]
    end = None
    while end is None or time.perf_counter() < end or len(times[0]) < LEAST_PAIRS + WARM_UP:
        for request, kept in zip(requests, times, strict=True):
            start = time.perf_counter()
            request.infer([frame], share_inputs=True, share_outputs=True)
            kept.append((time.perf_counter() - start) * 1000)
        if end is None and len(times[0]) == WARM_UP:
            end = time.perf_counter() + seconds
    return {"with_ms": times[0][WARM_UP:], "without_ms": times[1][WARM_UP:]}


if __name__ == "__main__":
    main()
