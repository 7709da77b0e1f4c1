"""Which architectures make graphs that TensorRT takes: held to the conformance rules of each version, and built by NVIDIA's own builder.

    make test-trt     once: it installs NVIDIA's parser and builder for CPU
    EDGEKIT_TRT=.venv-trt python benchmarks/architectures.py [ARCHITECTURE …]

Weights are random (seeded): what is looked at is the graph, not its answers. "built" is TensorRT for RTX on this CPU, with one strongly typed graph for all versions from 10.3
on; that it is accepted there proves nothing about a Jetson, that it were refused there would prove that it is wrong.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import RESULTS, save

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import trt_rtx

from edgekit.catalog.recipe import ModelSpec
from edgekit.catalog.target import EngineChoice, Target, TensorRt, load_target
from edgekit.compiler import conformance, pack
from edgekit.compiler.dialects import dialect_of
from edgekit.compiler.progress import Silent
from edgekit.compiler.stages.explain import ExplainedGraph, ExplainStage
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.load import LazySource, LoadStage
from edgekit.errors import EdgekitError
from edgekit.schema.model_io import InputSpec

SIZES = {"inception_v3": 299, "xception41": 299}
ARCHITECTURES = (
    "resnet18",
    "resnet50",
    "densenet121",
    "tf_efficientnet_lite0",
    "efficientnet_b0",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "mobilenetv4_conv_small",
    "regnety_002",
    "convnext_atto",
    "vgg11",
    "inception_v3",
    "xception41",
    "vit_tiny_patch16_224",
    "deit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "ghostnet_100",
    "repvit_m1",
    "squeezenet1_1",
)
TYPED, UNTYPED = ("10.3", "10.16", "11.4"), ("8.6",)
"""One strongly typed graph for the one, one float32 graph for the other."""


def main() -> None:
    path = RESULTS / "architectures.json"
    rows = json.loads(path.read_text())["architectures"] if sys.argv[1:] and path.is_file() else {}
    for name in sys.argv[1:] or ARCHITECTURES:
        rows[name] = measure(name)
        print(name, rows[name], flush=True)
    save("architectures", {"architectures": rows})


def measure(name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="edgekit-bench-") as folder:
        try:
            graph, frames = explained(name, Path(folder))
        except EdgekitError as error:
            return {"error": error.message}
        row: dict[str, Any] = {"map": graph.has_map}
        untyped = check(graph, frames, "tensorrt-int8", UNTYPED, 17, Path(folder))
        row["tensorrt-int8"] = {**untyped, **check(graph, frames, "tensorrt-int8", TYPED, 20, Path(folder))}
        # Before TensorRT 10 there is no float16 that a graph could say.
        row["tensorrt-fp16"] = check(graph, frames, "tensorrt-fp16", TYPED, 20, Path(folder))
        return row


def explained(name: str, folder: Path) -> tuple[ExplainedGraph, PreparedSplit]:
    """The graph of an architecture with random weights, and synthetic frames to calibrate with."""
    side = SIZES.get(name, 224)
    kind = "torchvision" if name.startswith("squeezenet") else "timm"
    taken = InputSpec(
        color="grey", channels=3, resize=(side, side), crop=(side, side), mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5)
    )
    model = ModelSpec(source=f"{kind}:{name}", labels=("a", "b", "c"), task="multiclass", weights=random_weights(kind, name, folder))
    load = LoadStage(source=LazySource(model, taken))
    load.apply(folder, Silent())
    explain = ExplainStage(graph=load.ensures(folder), input=taken)
    explain.apply(folder, Silent())
    tensors = pack.golden_frames(taken)
    return explain.ensures(folder), PreparedSplit(tensors=tensors, truth=tensors[:, 0, 0], samples=(), sha256="")


def random_weights(kind: str, name: str, folder: Path) -> str:
    import torch
    from safetensors.torch import save_file

    from edgekit.compiler.torchvision_ops import define_missing_operators

    define_missing_operators()
    torch.manual_seed(0)
    if kind == "timm":
        import timm

        network = timm.create_model(name, num_classes=3)
    else:
        import torchvision

        network = torchvision.models.get_model(name, weights=None, num_classes=3)
    # Statistics of normalization that fit the weights: without them activations of a deep network grow until float16 cannot hold them.
    network.train()
    with torch.no_grad():
        for _ in range(8):
            network(torch.randn(4, 3, SIZES.get(name, 224), SIZES.get(name, 224)))
    path = folder / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return str(path)


def check(  # noqa: PLR0913, PLR0917 - one cell of the table
    graph: ExplainedGraph, frames: PreparedSplit, engine: str, versions: tuple[str, ...], opset: int, folder: Path
) -> dict[str, str]:
    """By version, "conforms" or what is broken; and what NVIDIA's builder says of a typed graph."""
    import onnx

    target = device(engine, versions, opset)
    stage = dialect_of(target).make(graph, "ptq" if engine == "tensorrt-int8" else "float", frames)
    place = folder / f"{engine}-{opset}"
    place.mkdir()
    try:
        stage.apply(place, Silent())
    except EdgekitError as error:
        return dict.fromkeys(versions, error.message)
    content = stage.ensures(place).files["onnx"].read_bytes()
    model = onnx.load_from_string(content)
    found = {}
    for version in versions:
        findings = conformance.check(model, device(engine, (version,), opset))
        broken = sorted({finding.rule for finding in findings if finding.severity == "error"})
        warned = sorted({finding.rule for finding in findings if finding.severity == "warning"})
        found[version] = f"breaks {', '.join(broken)}" if broken else f"conforms, warnings {', '.join(warned)}" if warned else "conforms"
    if versions == TYPED:
        built = trt_rtx.parse_and_build(content)
        found["rtx"] = "built" if built.ok else f"refused at {built.stage}: {'; '.join(built.errors)[:300]}"
    return found


def device(engine: str, versions: tuple[str, ...], opset: int) -> Target:
    """A Jetson with some versions of TensorRT."""
    base = load_target("jetson-agx-orin-64gb")
    table = TensorRt(versions=versions, opset=opset, strongly_typed=opset >= 19)
    return dataclasses.replace(base, engines=(EngineChoice(name=engine, settings={}),), tensorrt=table, jetson=None)


if __name__ == "__main__":
    main()
