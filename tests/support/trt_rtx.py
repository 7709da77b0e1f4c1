"""NVIDIA's own ONNX parser and strongly typed builder, which in TensorRT for RTX need no GPU.

    result = parse_and_build(model.SerializeToString())
    assert result.ok, result.errors

Rules this file keeps:

1. It is one-sided. What is refused here is wrong. What is accepted here is not thereby accepted by TensorRT on a Jetson: this is another product, with a
   newer parser, other devices, and one compiler for the whole graph.
2. The library is loaded in a process of its own, so that what it does to a process (threads, signals, memory) ends with it.
3. It is looked for where `make test-trt` put it and nowhere else; without it tests are skipped, with the reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ENVIRONMENT = "EDGEKIT_TRT"
"""Environment variable: the folder that `make test-trt` made."""

TIMEOUT_SECONDS = 600
# After an error the library looks for the GPU, to give memory back. That there is none says nothing on the model.
_NO_GPU = "catchCudaError"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What parser and builder said.

    Attributes:
        ok: Whether a plan came out.
        stage: Where it ended: "parse", "build" or "done".
        errors: What the parser and the log told as errors, with the node where it is known.
        warnings: What the log told as warnings.
        plan_bytes: Size of the plan; 0 where there is none.
    """

    ok: bool
    stage: str
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    plan_bytes: int


def folder(name: str) -> Path:
    """A folder of what `make test-trt` installed: "rtx", "types", "bindings/10.3".

    The test is skipped where there is none.
    """
    made = os.environ.get(ENVIRONMENT)
    if made is None:
        pytest.skip(f"needs NVIDIA's packages: run by `make test-trt` ({ENVIRONMENT} is not set)")
    found = Path(made).absolute() / name
    if not found.is_dir():
        pytest.skip(f"{found} is missing: `make test-trt` told why")
    return found


def parse_and_build(onnx: bytes) -> Result:
    """Parses an ONNX model and builds it, strongly typed, with the builder's defaults.

    Args:
        onnx: The model, with its weights in it.
    """
    told = _ask("build", onnx)
    return Result(**{key: tuple(value) if isinstance(value, list) else value for key, value in told.items()})


def supported(operators: Iterable[str]) -> frozenset[str]:
    """Those of some ONNX operators that the parser says it has."""
    return frozenset(_ask("operators", json.dumps(sorted(operators)).encode())["supported"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """What came of driving the real library by the runtime's own code.

    Attributes:
        reached: The last step that was begun: "parse", "build", "load" or "done".
        error: Kind and message of the error that ended it; empty where none did.
        plan_bytes: Size of the plan; 0 where there is none.
        progress: Steps done and steps in all, as the build told them.
    """

    reached: str
    error: str
    plan_bytes: int
    progress: tuple[tuple[int, int], ...]


def drive_runtime(onnx: bytes) -> Driven:
    """Parses, builds and loads a model by `edgekit.runtime.engines.tensorrt_api`, with TensorRT for RTX in the place of TensorRT 11.

    Args:
        onnx: The model, with its weights in it.
    """
    told = dict(_ask("runtime", onnx))
    return Driven(**told | {"progress": tuple((done, total) for done, total in told["progress"])})


def outcomes(snippets: Iterable[str], onnx: bytes) -> dict[str, str]:
    """What becomes of pieces of code with the real library as `trt` and a model as `ONNX`; see `outcome`."""
    content = json.dumps({"snippets": list(snippets), "onnx": onnx.hex()})
    return dict(_ask("outcomes", content.encode()))


def outcome(snippet: str, trt: Any, onnx: bytes) -> str:
    """The text of the value that a piece of code leaves in `result`, or the name of the exception it ends with."""
    space = {"trt": trt, "ONNX": onnx, "result": None}
    try:
        exec(snippet, space)
    except Exception as error:  # noqa: BLE001 - its kind is what is asked for
        return type(error).__name__
    return repr(space["result"])


def _ask(question: str, content: bytes) -> Mapping[str, Any]:
    packages = folder("rtx")
    with tempfile.TemporaryDirectory() as scratch:
        asked, answer = Path(scratch) / "asked", Path(scratch) / "answer.json"
        asked.write_bytes(content)
        environment = {**os.environ, "PYTHONPATH": str(packages)}
        command = [sys.executable, __file__, question, str(asked), str(answer)]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
        if ended.returncode or not answer.is_file():
            # A signal, an import that failed: of no verdict on the model.
            raise RuntimeError(f"the builder's process ended with {ended.returncode}:\n{ended.stderr}")
        told: Mapping[str, Any] = json.loads(answer.read_text())
    return told


def _build(trt: Any, model: bytes) -> dict[str, object]:
    """Runs in the process of its own."""
    told: dict[str, list[str]] = {"errors": [], "warnings": []}
    builder, network, parser = _parser(trt, told)
    parsed = parser.parse(model)
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    told["errors"] += [f"{error.node_name()} ({error.node_operator()}): {error.desc()}" for error in errors]
    # No timing cache: with one it asks for the GPU.
    plan = builder.build_serialized_network(network, builder.create_builder_config()) if parsed else None
    stage = "done" if plan is not None else "build" if parsed else "parse"
    return {"ok": plan is not None, "stage": stage, "plan_bytes": 0 if plan is None else plan.nbytes, **told}


def _operators(trt: Any, names: bytes) -> dict[str, object]:
    """Runs in the process of its own."""
    _builder, _network, parser = _parser(trt, {"errors": [], "warnings": []})
    return {"supported": [name for name in json.loads(names) if parser.supports_operator(name)]}


def _outcomes(trt: Any, content: bytes) -> dict[str, object]:
    """Runs in the process of its own."""
    told = json.loads(content)
    return {snippet: outcome(snippet, trt, bytes.fromhex(told["onnx"])) for snippet in told["snippets"]}


def _runtime(trt: Any, model: bytes) -> dict[str, object]:
    """Runs in the process of its own."""
    # Its names are those of TensorRT 11; its version is that of another product.
    trt.__version__ = "11.1.0"
    sys.modules["tensorrt"] = trt
    from edgekit.errors import EdgekitError
    from edgekit.runtime.engines import tensorrt_api

    progress: list[tuple[int, int]] = []
    told: dict[str, object] = {"reached": "parse", "error": "", "plan_bytes": 0, "progress": progress}
    options = tensorrt_api.BuildOptions(workspace_mib=256, optimization_level=3, max_aux_streams=0, flags=("FP16", "INT8"))
    try:
        api = tensorrt_api.open_api()
        builder = tensorrt_api.make_builder(api)
        network = tensorrt_api.make_network(api, builder)
        parser = tensorrt_api.parse(api, network, model)
        told["reached"] = "build"
        config = tensorrt_api.make_config(api, builder, options, lambda done, total: progress.append((done, total)))
        # No timings: with a timing cache it asks for the GPU.
        plan = tensorrt_api.build(api, builder, network, config)
        del parser
        told |= {"reached": "load", "plan_bytes": len(plan)}
        tensorrt_api.load_plan(api, plan)
        told["reached"] = "done"
    except EdgekitError as error:
        told["error"] = f"{type(error).__name__}: {error.message}"
    return told


def _parser(trt: Any, told: dict[str, list[str]]) -> tuple[Any, Any, Any]:
    """A parser, and the builder and the network that it needs to be alive."""
    log = _log(trt, told)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    return builder, network, trt.OnnxParser(network, log)


def _log(trt: Any, told: dict[str, list[str]]) -> Any:
    levels = {"INTERNAL_ERROR": "errors", "ERROR": "errors", "WARNING": "warnings"}

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity.name in levels and _NO_GPU not in msg:
                told[levels[severity.name]].append(msg.strip())

    return Log()


def _main(question: str, asked: str, answer: str) -> None:
    import tensorrt_rtx_libs  # noqa: F401, I001 - loads the libraries that the bindings need
    import tensorrt_rtx_bindings as trt

    told = {"build": _build, "operators": _operators, "outcomes": _outcomes, "runtime": _runtime}[question](trt, Path(asked).read_bytes())
    Path(answer).write_text(json.dumps(told))


if __name__ == "__main__":
    _main(*sys.argv[1:])
