"""float16 graphs as edgekit writes them, what a machine answers with them, and what the numerical oracle said it would.

`tests/gpu` runs them on a GPU; `tests/contract/test_half_checks.py` runs the same on the CPU, and with arithmetic that is wrong.

Rules this file keeps:

1. The graphs are the dialects' own, of real architectures with random weights: float16, and int8 with float16 between.
2. What is allowed is what a bundle allows a device on its golden frames, by the same function; float16 alone must be much nearer than that.
"""
# ruff: noqa: TID253 - graphs by hand take onnx

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import qdq_builders
from gpu import need_driver
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgekit.bundle.manifest import EngineSpec
from edgekit.catalog.target import EngineChoice, TensorRt, load_target
from edgekit.compiler import pack
from edgekit.compiler.dialects import dialect_of
from edgekit.compiler.oracle import open_oracle, write_out_halves
from edgekit.compiler.progress import Silent
from edgekit.compiler.stages.explain import ExplainStage
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.load import FloatGraph
from edgekit.compiler.workspace import file_digest
from edgekit.runtime.engines.base import RawOutput
from edgekit.schema.model_io import InputSpec

ENGINES = ("tensorrt-fp16", "tensorrt-int8")
HALF_FACTOR = 4.0
"""How many times the effect of rounding float16 results another machine's float16 answers may be off. bfloat16, with three bits fewer, is further."""

_SCALES = np.concatenate([sign * np.logspace(-9, 3, 96) for sign in (1.0, -1.0)]).astype(np.float32)

# What ONNX Runtime says where a node would run on the CPU, which it was told not to do.
_FALLBACK = "fallback to CPU EP has been explicitly disabled"

Note = Callable[[str, object], None]
Answer = Callable[[NDArray[np.uint8]], Mapping[str, NDArray[np.float32]]]
Opened = Callable[[bytes], Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A graph for TensorRT, with the frames that a bundle would be tried on.

    Attributes:
        content: The ONNX file.
        spec: The manifest's entry of its engine.
        precision: Of the artefact.
        path: Of the file.
        tensors: uint8 (frames, rows, columns, channels).
    """

    content: bytes
    spec: EngineSpec
    precision: str
    path: Path
    tensors: NDArray[np.uint8]


def explained(architecture: str, side: int, folder: Path, **changes: Any) -> Any:
    """The explained graph of an architecture with random weights and fitting statistics, and its input.

    Args:
        architecture: timm's name, or torchvision's of one that timm does not have.
        side: Of the frame, in pixels.
        folder: Where its files go.
        changes: Arguments of the architecture, fewer blocks for example.
    """
    import torch

    from edgekit.compiler.torchvision_ops import define_missing_operators

    define_missing_operators()
    import timm

    torch.manual_seed(0)
    if timm.is_model(architecture):
        network = timm.create_model(architecture, num_classes=3, **changes).train()
    else:
        import torchvision

        network = torchvision.models.get_model(architecture, weights=None, num_classes=3, **changes).train()
    with torch.no_grad():
        for _ in range(4):
            network(torch.randn(4, 3, side, side))
    path = folder / "model.onnx"
    program = torch.onnx.export(
        network.eval(), (torch.zeros(1, 3, side, side),), dynamo=True, opset_version=20, external_data=False, verbose=False
    )
    program.save(str(path))
    return _explain(path, side)


def explained_by_hand(folder: Path) -> Any:
    """The explained graph of a network of four convolutions with a residual sum, and its input; made in no time."""
    random, width, side = np.random.default_rng(0), 16, 32
    values: dict[str, NDArray[np.float32]] = {}
    nodes = []

    def add(operator: str, given: list[str], name: str, shape: tuple[int, ...] = (), **attributes: Any) -> str:
        if shape:
            values[f"{name}.weight"] = (random.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
            values[f"{name}.bias"] = (0.1 * random.normal(size=shape[0])).astype(np.float32)
            given = [*given, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node(operator, given, [name], name=name, **attributes))
        return name

    stem = add("Relu", [add("Conv", ["x"], "stem", (width, 3, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2])], "stem_relu")
    inner = add("Relu", [add("Conv", [stem], "inner", (width, width, 3, 3), pads=[1, 1, 1, 1])], "inner_relu")
    total = add("Add", [add("Conv", [inner], "outer", (width, width, 3, 3), pads=[1, 1, 1, 1]), stem], "sum")
    last = add("Relu", [add("Conv", [add("Relu", [total], "sum_relu")], "last", (width, width, 3, 3), pads=[1, 1, 1, 1])], "last_relu")
    add("Gemm", [add("Flatten", [add("GlobalAveragePool", [last], "pooled")], "flat")], "logits", (3, width), transB=1)
    graph = helper.make_graph(
        nodes,
        "by-hand",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    path = folder / "model.onnx"
    path.write_bytes(onnx.shape_inference.infer_shapes(model, strict_mode=True).SerializeToString())
    return _explain(path, side)


def _explain(path: Path, side: int) -> Any:
    taken = InputSpec(
        color="grey", channels=3, resize=(side, side), crop=(side, side), mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5)
    )
    stage = ExplainStage(graph=FloatGraph(path=path, sha256=file_digest(path), notes=()), input=taken)
    stage.apply(path.parent, Silent())
    return stage.ensures(path.parent), taken


def write(graph: Any, taken: InputSpec, engine: str, folder: Path) -> Written:
    """An explained graph as a compile writes it for an engine of TensorRT 10.3 and newer."""
    target = dataclasses.replace(
        load_target("jetson-agx-orin-64gb"),
        engines=(EngineChoice(name=engine, settings={}),),
        tensorrt=TensorRt(versions=("10.3", "10.16", "11.4"), opset=20, strongly_typed=True),
        jetson=None,
    )
    tensors = pack.golden_frames(taken)
    frames = PreparedSplit(tensors=tensors, truth=np.zeros((len(tensors), 3), dtype=np.bool_), samples=(), sha256="")
    stage = dialect_of(target).make(graph, "ptq" if engine == "tensorrt-int8" else "float", frames)
    stage.apply(folder, Silent())
    artefact = stage.ensures(folder)
    spec = EngineSpec(
        name=engine,
        files={"onnx": f"model/{engine}.onnx"},
        minimum_version="10.3",
        precision=artefact.precision,
        settings={"CUDA_GRAPH": "true", "MAX_AUX_STREAMS": "0", "OPTIMIZATION_LEVEL": "3", "WORKSPACE_MIB": "512"},
        outputs=artefact.outputs,
    )
    path = artefact.files["onnx"]
    return Written(content=path.read_bytes(), spec=spec, precision=artefact.precision, path=path, tensors=tensors)


def check_answers(written: Written, answer: Answer, note: Note) -> None:
    """A machine's logits and maps are as near to the oracle's as a bundle asks of a device, and its maps add up to its logits as well as the oracle's do."""
    members = {written.spec.files["onnx"]: memoryview(written.content)}
    frames = [np.ascontiguousarray(tensor[None]) for tensor in written.tensors]
    rounded, unrounded = (open_oracle(written.spec, members, rounds_halves=rounds) for rounds in (True, False))
    answers = [rounded.infer(frame) for frame in frames]
    expected = np.stack([raw.logits for raw in answers])
    effect = float(np.abs(np.stack([unrounded.infer(frame).logits for frame in frames]) - expected).max())
    told = [answer(frame) for frame in frames]
    found = np.stack([one["logits"][0] for one in told])
    assert np.isfinite(found).all()
    allowed, of_maps = _allowed(written, answers)
    difference = float(np.abs(found - expected).max())
    note(
        "logits",
        f"off by {difference:.3g} of {allowed:.3g} allowed; rounding float16 or not makes {effect:.3g}, their spread is {expected.std():.3g}",
    )
    assert difference <= allowed
    if written.spec.name == "tensorrt-fp16":
        assert difference <= 1e-4 + HALF_FACTOR * effect
    if "cam" in told[0]:
        maps = np.stack([one["cam"][0] for one in told])
        assert np.isfinite(maps).all()
        apart = float(np.sqrt(np.square(maps - np.stack([raw.cam for raw in answers])).mean(axis=(2, 3))).max())
        note("maps' cells", f"off by {apart:.3g} of {of_maps:.3g} allowed")
        assert apart <= of_maps
        residual, bound = (
            float(np.ptp(means - logits, axis=0).max())
            for means, logits in (
                (maps.mean(axis=(2, 3)), found),
                (np.stack([rounded.infer(frame).cam.mean(axis=(1, 2)) for frame in frames]), expected),
            )
        )
        note("maps", f"mean − logit varies by {residual:.3g}, in the oracle by {bound:.3g}")
        assert residual <= 1e-4 + 2 * bound


def _allowed(written: Written, answers: list[RawOutput]) -> tuple[float, float]:
    """Of logits and of maps' elements, by the rule for golden frames; their own spread in the place of that on `val`."""
    maps = None if answers[0].cam is None else np.stack([raw.cam for raw in answers])
    proof: Any = SimpleNamespace(
        oracle=True,
        engine=written.spec,
        artefact=SimpleNamespace(files={"onnx": written.path}, precision=written.precision),
        measured_val=SimpleNamespace(logits=np.stack([raw.logits for raw in answers]), maps=maps),
    )
    return pack._tolerances(proof, written.tensors, answers)


def edges() -> bytes:
    """Casts to float16 and elementwise operators on values from below its smallest to beyond its largest, of both signs; each result is an output."""
    rows = len(_SCALES)
    half = [("Add", "plus", 0.3333), ("Mul", "times", 1.7), ("Sub", "minus", 60000.0)]
    nodes = [
        helper.make_node("Cast", ["frame"], ["single"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["single", "scales"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Relu", ["half"], ["relu"]),
        *(helper.make_node(operator, ["half", f"{name}_value"], [name]) for operator, name, _ in half),
    ]
    names = ["half", "relu", *(name for _, name, _ in half)]
    nodes += [helper.make_node("Cast", [name], [f"{name}_single"], to=TensorProto.FLOAT) for name in names]
    constants = [
        numpy_helper.from_array(_SCALES.reshape(1, rows, 1, 1), "scales"),
        *(numpy_helper.from_array(np.array(value, dtype=np.float16), f"{name}_value") for _, name, value in half),
    ]
    shape = [1, rows, 256, 1]
    graph = helper.make_graph(
        nodes,
        "edges",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, 1, 256, 1])],
        [helper.make_tensor_value_info(f"{name}_single", TensorProto.FLOAT, shape) for name in names],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def check_edges(opened: Opened, note: Note) -> None:
    """Rounding to float16 and one operation after it give the oracle's numbers exactly: halfway cases, subnormals, what is beyond the largest."""
    content = edges()
    frame = np.arange(256, dtype=np.uint8).reshape(1, 1, 256, 1)
    found = opened(content)(frame)
    names = list(found)
    for name, expected in zip(names, qdq_builders.run(write_out_halves(content), frame, names), strict=True):
        np.testing.assert_array_equal(found[name].reshape(expected.shape), expected, err_msg=name)
        assert np.isinf(expected).any() or name == "minus_single"
    small = np.abs(found["half_single"])
    note("values", f"{small.size}: {int(((small > 0) & (small < 2.0**-14)).sum())} subnormal, {int(np.isinf(small).sum())} infinite")


def on_torch(device: str) -> Opened:
    """PyTorch's kernels on a device."""
    from onnx_on_torch import Program

    return lambda content: Program(content, device)


def torch_on_the_gpu() -> Opened:
    """PyTorch's kernels on the GPU; the test is skipped without a GPU or without PyTorch for CUDA."""
    need_driver()
    torch = pytest.importorskip("torch", reason="needs PyTorch with CUDA")
    if torch.version.cuda is None:
        pytest.skip(f"needs PyTorch with CUDA: {torch.__version__} is a build without")
    # A build for CUDA that does not find the GPU that the driver finds is a failure, with PyTorch's own words.
    torch.cuda.init()
    return on_torch("cuda")


def onnxruntime_on_the_gpu() -> Opened:
    """ONNX Runtime's CUDA provider, which must take every node; the test is skipped without a GPU or without the provider."""
    need_driver()
    ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime-gpu")
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip(f"needs onnxruntime-gpu: onnxruntime {ort.__version__} here has only {', '.join(ort.get_available_providers())}")
    # CUDA's libraries out of their Python packages.
    ort.preload_dlls()

    def opened(content: bytes) -> Answer:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        provider = ("CUDAExecutionProvider", {"use_tf32": "0"})
        try:
            session = ort.InferenceSession(content, options, providers=[provider])
        except Exception as error:
            if _FALLBACK not in str(error):
                raise
            pytest.skip(f"the CUDA provider of onnxruntime {ort.__version__} has no kernel for an operator of this graph")
        assert session.get_providers()[0] == provider[0], session.get_providers()
        (taken,), given = session.get_inputs(), [output.name for output in session.get_outputs()]
        return lambda frame: dict(zip(given, session.run(given, {taken.name: frame}), strict=True))

    return opened


MACHINES: Mapping[str, Callable[[], Opened]] = {"torch-cuda": torch_on_the_gpu, "onnxruntime-cuda": onnxruntime_on_the_gpu}
"""Name to what opens it, or skips."""
