"""The map in the graph against the same map by autograd, architecture by architecture; what has none says why.

    python benchmarks/heads.py [ARCHITECTURE …]     some only, which then replace their rows

Writes `results/heads.json`, and the table of `docs/class-activation-maps.md` from it. One architecture after the other, some 10 minutes on an idle machine.

Weights are random (seeded), parameters that start as a constant (zeros, ones, small layer scales) get noise: a map of zeros would agree with everything. One frame of noise, three logits.
The map is that of the explained ONNX graph in ONNX Runtime, in float32. The reference is gradient · features, summed over channels and times the positions, of every logit, by autograd on the
PyTorch module in float64:

- "HiResCAM": at the features that the head reads (Draelos and Carin 2020). Behind a mean this is Grad-CAM without its ReLU.
- "divisor held": the same with the divisors of the head's layer normalizations detached, for heads that normalize behind the mean; the true gradient's map has a mean of 0 there.
- "first normalization", "what attention reads": HiResCAM at what the last attention's keys and values are made of, patches only.

It does not show that a map points at anything: the networks know nothing.
"""
# ruff: noqa: TID253 - the reference is PyTorch

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, save
from numpy.typing import NDArray

from edgekit.compiler.explain.find import explain
from edgekit.compiler.explain.head import Head
from edgekit.compiler.load.torch_model import TorchModel
from edgekit.compiler.torchvision_ops import define_missing_operators
from edgekit.errors import ModelError
from edgekit.schema.model_io import InputSpec

OUTPUTS, SEED = 3, 0
PAGE = Path(__file__).parents[1] / "docs" / "class-activation-maps.md"
Split = Callable[[Any, torch.Tensor], "tuple[torch.Tensor, torch.Tensor]"]


def behind_features(net: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Timm's own words for features and head."""
    found = net.forward_features(x)
    return found, net.forward_head(found)


def caught(path: str, *, entering: bool = False) -> Split:
    """The value that enters or leaves a module."""

    def split(net: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        kept: list[torch.Tensor] = []
        hook = net.get_submodule(path).register_forward_hook(lambda _, taken, given: kept.append(taken[0] if entering else given))
        answer = net(x)
        hook.remove()
        return kept[-1], answer

    return split


def behind_relu(net: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Torchvision's DenseNet ends in a rectifier that is no module."""
    found = torch.nn.functional.relu(net.features(x))
    return found, net.classifier(found.mean(dim=(2, 3)))


def last_convolution(net: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """SqueezeNet: the classifier up to what is averaged."""
    found = net.classifier[:3](net.features(x))
    return found, net.classifier[3](found).flatten(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An architecture: how its head is built, for people, and where its features are."""

    head: str
    source: str
    split: Split = behind_features
    reference: str = "HiResCAM"
    side: int = 224
    options: tuple[tuple[str, Any], ...] = ()
    held: bool = False


def timm(head: str, name: str, **fields: Any) -> Case:
    return Case(head=head, source=f"timm:{name}", **fields)


def torchvision(head: str, name: str, split: Split, **fields: Any) -> Case:
    return Case(head=head, source=f"torchvision:{name}", split=split, **fields)


def token(name: str, module: str = "norm1", **fields: Any) -> Case:
    blocks = fields.pop("last", "blocks.11")
    return timm("class token", name, split=caught(f"{blocks}.{module}"), reference="first normalization", **fields)


MEAN, NORM_MEAN, MEAN_NORM = "mean → linear", "norm → mean → linear", "mean → norm → linear"
CASES: dict[str, Case] = {
    "resnet18": timm(MEAN, "resnet18"),
    "resnext50_32x4d": timm(MEAN, "resnext50_32x4d"),
    "regnety_002": timm(MEAN, "regnety_002"),
    "densenet121": timm(MEAN, "densenet121"),
    "torchvision-densenet121": torchvision(MEAN, "densenet121", behind_relu),
    "efficientnet_b0": timm(MEAN, "efficientnet_b0"),
    "tf_efficientnet_lite0": timm(MEAN, "tf_efficientnet_lite0"),
    "mobilenetv2_100": timm(MEAN, "mobilenetv2_100"),
    "inception_v3": timm(MEAN, "inception_v3", side=299),
    "xception41": timm(MEAN, "xception41", side=299),
    "repvit_m1": timm("mean → two batch norms → two linear, mean", "repvit_m1"),
    "efficientformer_l1": timm("norm → mean → two linear, mean", "efficientformer_l1"),
    "levit_128s": timm("mean → two batch norms → two linear, mean", "levit_128s"),
    "mobilevit_s": timm(MEAN, "mobilevit_s", side=256),
    "coatnet_0": timm(NORM_MEAN, "coatnet_0_rw_224"),
    "torchvision-squeezenet1_1": torchvision("convolution → ReLU → mean", "squeezenet1_1", last_convolution),
    "swin_tiny": timm(NORM_MEAN, "swin_tiny_patch4_window7_224"),
    "torchvision-swin_t": torchvision(NORM_MEAN, "swin_t", caught("permute")),
    "convnext_atto": timm(MEAN_NORM, "convnext_atto", reference="divisor held", held=True),
    "convnextv2_atto": timm(MEAN_NORM, "convnextv2_atto", reference="divisor held", held=True),
    "edgenext_xx_small": timm(MEAN_NORM, "edgenext_xx_small", reference="divisor held", held=True),
    "poolformer_s12": timm(MEAN_NORM, "poolformer_s12", reference="divisor held", held=True),
    "torchvision-convnext_tiny": torchvision(
        MEAN_NORM, "convnext_tiny", caught("avgpool", entering=True), reference="divisor held", held=True
    ),
    "fastvit_t8": timm(MEAN, "fastvit_t8", side=256),
    "maxvit_tiny": timm("mean → norm → linear → tanh → linear", "maxvit_tiny_tf_224", reference="divisor held", held=True),
    "mobilenetv3_large_100": timm("mean → linear → hard swish → linear", "mobilenetv3_large_100"),
    "torchvision-mobilenet_v3_large": torchvision("mean → linear → hard swish → linear", "mobilenet_v3_large", caught("features")),
    "mobilenetv4_conv_small": timm("mean → convolution → batch norm → ReLU → linear", "mobilenetv4_conv_small"),
    "ghostnet_100": timm("mean → convolution → ReLU → linear", "ghostnet_100"),
    "vgg11": timm("all positions → ReLU layers", "vgg11"),
    "torchvision-vgg11": torchvision("all positions → ReLU layers", "vgg11", caught("features")),
    "resnet18-avgmax": timm("mean and maximum → linear", "resnet18", options=(("global_pool", "catavgmax"),)),
    "resnet18-gem": timm("generalized mean → linear", "resnet18", options=(("gem", True),)),
    "vit_tiny": token("vit_tiny_patch16_224"),
    "vit_small-avg": timm(MEAN_NORM, "vit_small_patch16_224", options=(("global_pool", "avg"),), reference="divisor held", held=True),
    "deit_tiny": token("deit_tiny_patch16_224"),
    "deit_tiny-distilled": token("deit_tiny_distilled_patch16_224"),
    "torchvision-vit_b_16": torchvision(
        "class token",
        "vit_b_16",
        caught("encoder.layers.encoder_layer_11.ln_1"),
        reference="first normalization",
        side=96,
        options=(("image_size", 96),),
    ),
    "vit_relpos_small-cls": token("vit_relpos_small_patch16_224", options=(("class_token", True), ("global_pool", "token"))),
    "beit_base": timm(MEAN_NORM, "beit_base_patch16_224", side=96, options=(("img_size", 96),), reference="divisor held", held=True),
    "eva02_tiny": timm("class token, rotated keys", "eva02_tiny_patch14_224", options=(("global_pool", "token"),)),
    "cait_xxs24": timm("class attention", "cait_xxs24_224"),
    "resnet50_clip": timm(
        "attention pooling", "resnet50_clip.openai", split=caught("head.k", entering=True), reference="what attention reads"
    ),
}


class GeneralizedMean(torch.nn.Module):
    """(mean Aᵖ)^(1/p), p learned (Radenović et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.p = torch.nn.Parameter(torch.tensor([3.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(min=1e-6).pow(self.p).mean(dim=(2, 3)).pow(1 / self.p)


def build(case: Case) -> Any:
    """The architecture with random weights and no constant parameter, in evaluation mode."""
    torch.manual_seed(SEED)
    kind, _, name = case.source.partition(":")
    options = dict(case.options)
    gem = options.pop("gem", False)
    if kind == "timm":
        import timm as library

        net = library.create_model(name, num_classes=OUTPUTS, **options)
        if gem:
            net.global_pool = GeneralizedMean()
    else:
        import torchvision as library

        net = library.models.get_model(name, weights=None, num_classes=OUTPUTS, **options)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
                parameter.add_(0.1 * torch.randn_like(parameter))
        norms = [part for part in net.modules() if isinstance(part, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d))]
        for part in norms:
            part.momentum = 1.0
        if norms:
            net.train()(torch.randn(4, 3, case.side, case.side))
    return net.eval()


def hold_divisors(net: Any) -> None:
    """Every layer normalization on one vector a frame divides by what autograd takes for a constant."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        axis = 1 if x.dim() == 4 else -1
        if x.numel() != x.shape[axis]:
            return original[self](x)
        centred = x - x.mean(dim=axis, keepdim=True)
        sigma = (centred.pow(2).mean(dim=axis, keepdim=True) + self.eps).sqrt().detach()
        spread = [-1 if index == axis % x.dim() else 1 for index in range(x.dim())]
        return centred / sigma * self.weight.reshape(spread) + self.bias.reshape(spread)

    original: dict[Any, Any] = {}
    for part in net.modules():
        if isinstance(part, (torch.nn.LayerNorm, torch.nn.GroupNorm)):
            original[part] = part.forward
            part.forward = forward.__get__(part)


def by_autograd(
    net: Any, case: Case, planes: NDArray[np.float32], size: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logits (outputs,), and gradient · features (outputs, rows, columns), in float64."""
    net = net.double()
    if case.held:
        hold_divisors(net)
    features, logits = case.split(net, torch.from_numpy(planes).double())
    count = size[0] * size[1]
    maps = []
    for output in range(logits.shape[1]):
        (gradient,) = torch.autograd.grad(logits[0, output], features, retain_graph=True)
        maps.append(_summed((gradient * features).detach(), size) * count)
    return logits.detach().numpy()[0], np.stack(maps)


def _summed(product: torch.Tensor, size: tuple[int, int]) -> NDArray[np.float64]:
    """Over channels, wherever they are; the patches only, which come last."""
    count = size[0] * size[1]
    if product.dim() == 3:
        tokens = product[0] if product.shape[0] == 1 else product[:, 0]
        return np.asarray(tokens.sum(dim=-1)[-count:].reshape(size).numpy())
    planes = product[0] if tuple(product.shape[2:]) == size else product[0].permute(2, 0, 1)
    return np.asarray(planes.sum(dim=0).numpy())


def in_the_graph(net: Any, case: Case) -> tuple[Head | str, NDArray[np.float32], list[NDArray[np.float32]]]:
    """The head as found, the planes, and the graph's outputs on them."""
    import onnx_ir as ir
    import onnxruntime

    spec = InputSpec(color="rgb", channels=3, resize=(case.side, case.side), mean=(127.5,) * 3, std=(127.5,) * 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.onnx"
        TorchModel(net, spec, labels=OUTPUTS, binary=False).export(path)
        model = ir.load(path)
        head = explain(model)
        planes = np.random.default_rng(SEED).uniform(-1, 1, (1, 3, case.side, case.side)).astype(np.float32)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
        return head, planes, session.run(None, {session.get_inputs()[0].name: planes})


def measure(name: str, case: Case) -> dict[str, Any]:
    row: dict[str, Any] = {"architecture": name, "source": case.source, "head": case.head}
    net = build(case)
    try:
        head, planes, outputs = in_the_graph(net, case)
    except ModelError as error:
        # Behind the first line the exporter speaks to the terminal.
        return {**row, "reason": error.message.partition("\x1b")[0].rstrip(". ")}
    if isinstance(head, str):
        return {**row, "reason": head}
    logits, maps = by_autograd(net, case, planes, (head.rows, head.columns))
    found = outputs[1][0].astype(np.float64)
    added = np.array(head.bias) if head.bias else outputs[2][0]
    return {
        **row,
        "kind": head.kind,
        "reference": case.reference,
        "size": [head.rows, head.columns],
        "map_error": float(np.abs(found - maps).max() / np.abs(maps).max()),
        "residual": float(np.abs(found.mean(axis=(1, 2)) + added - outputs[0][0]).max()),
        "logit_error": float(np.abs(outputs[0][0] - logits).max()),
        "largest_logit": float(np.abs(logits).max()),
        "million_multiplications": head.multiplications / 1e6,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| architecture | head | map | size | reference | error of the map | residual | error of the logit | million multiplications |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        start = f"| {row['architecture']} | {row['head']} |"
        if "reason" in row:
            found, _, _ = row["reason"].partition("; [explain]")
            lines.append(f"{start} none: {found} | | | | | | |")
            continue
        figures = " | ".join(f"{row[key]:.0e}" for key in ("map_error", "residual", "logit_error"))
        size = " × ".join(map(str, row["size"]))
        lines.append(f"{start} {row['kind']} | {size} | {row['reference']} | {figures} | {row['million_multiplications']:.2f} |")
    return "\n".join(lines)


def write_page(rows: list[dict[str, Any]]) -> None:
    """Puts the table into the page, between its marks."""
    start, end = "<!-- heads.json -->", "<!-- /heads.json -->"
    text = PAGE.read_text("utf-8")
    before, after = text[: text.index(start) + len(start)], text[text.index(end) :]
    PAGE.write_text(f"{before}\n{table(rows)}\n{after}", encoding="utf-8")


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    define_missing_operators()
    unknown = set(names) - set(CASES)
    if unknown:
        sys.exit(f"no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    path = RESULTS / "heads.json"
    kept = json.loads(path.read_text())["rows"] if names and path.is_file() else []
    rows = {row["architecture"]: row for row in kept}
    for name in names or CASES:
        start = time.perf_counter()
        rows[name] = measure(name, CASES[name])
        gc.collect()
        print(f"{time.perf_counter() - start:4.0f} s  {rows[name]}", file=sys.stderr, flush=True)
    ordered = [rows[name] for name in CASES if name in rows]
    save("heads", {"rows": ordered})
    write_page(ordered)


if __name__ == "__main__":
    main(sys.argv[1:])
