"""Classify and explain one frame with pytorch-grad-cam, block by block: prints the milliseconds of each call.

Run by `explanations.py`, with an interpreter that has PyTorch, timm and `grad-cam`:

    .venv/bin/python -m venv /path/to/peers
    echo "$PWD/.venv/lib/python3.11/site-packages" > /path/to/peers/lib/python3.11/site-packages/shared.pth
    /path/to/peers/bin/pip install setuptools wheel && /path/to/peers/bin/pip install --no-build-isolation grad-cam==1.5.7

    /path/to/peers/bin/python benchmarks/peer_grad_cam.py ARCHITECTURE FRAME.npy

A number of calls a line on standard input; milliseconds, a line each, and "done" on standard output. A call is what a user of the package writes: `cam(frame, None)`
runs the network forward, answers with the most probable label, runs it backward, and gives the map at the frame's size. The target layer is the one that the
package's README names for the architecture, or its like.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

WARM_UP = 3

TARGETS: dict[str, Callable[[Any], Any]] = {
    "resnet18": lambda net: net.layer4[-1],
    "densenet121": lambda net: net.features[-1],
    "tf_efficientnet_lite0": lambda net: net.bn2,
    "efficientnet_b0": lambda net: net.bn2,
    "mobilenetv2_100": lambda net: net.bn2,
    "convnext_atto": lambda net: net.stages[-1],
    "vit_tiny_patch16_224": lambda net: net.blocks[-1].norm1,
}


def main() -> None:
    name, path = sys.argv[1:]
    cam = explained(name)
    from torch import from_numpy

    frame = from_numpy(np.load(path))
    for line in sys.stdin:
        for count in range(WARM_UP + int(line)):
            start = time.perf_counter()
            cam(input_tensor=frame, targets=None)
            if count >= WARM_UP:
                print((time.perf_counter() - start) * 1000)
        print("done", flush=True)


def explained(name: str) -> Callable[..., Any]:
    """The network with random weights, ready to be called."""
    from edgekit.compiler.torchvision_ops import define_missing_operators

    define_missing_operators()
    import timm
    from pytorch_grad_cam import GradCAM

    module = timm.create_model(name, pretrained=False, num_classes=3).eval()
    transform = (lambda tokens: tokens[:, 1:].reshape(1, 14, 14, -1).permute(0, 3, 1, 2)) if name.startswith("vit") else None
    return GradCAM(model=module, target_layers=[TARGETS[name](module)], reshape_transform=transform)


if __name__ == "__main__":
    main()
