"""Lets torchvision be imported beside a PyTorch it has no compiled extension for.

torchvision's wheels carry an extension linked against the CUDA build of PyTorch. Beside a CPU-only PyTorch the extension cannot be loaded, and
`import torchvision` (so `import timm` too) fails with "operator torchvision::nms does not exist", because it registers meta kernels for operators
that only the extension defines. Classifiers use none of them. Defining the operators' schemas, without any implementation, is enough for the import;
calling one still fails, as it should.
"""

from __future__ import annotations

from functools import cache

_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align": (
        "(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, int sampling_ratio, bool aligned) -> Tensor"
    ),
}

_kept: list[object] = []  # a library's definitions live as long as the object


@cache
def define_missing_operators() -> None:
    """Defines the schemas if torchvision's own extension cannot; does nothing where it can, or where torchvision is not installed."""
    import importlib.util

    import torch

    if importlib.util.find_spec("torchvision") is None or _extension_loads():
        return
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name, schema in _SCHEMAS.items():
        library.define(name + schema)  # type: ignore[no-untyped-call]
    _kept.append(library)


def _extension_loads() -> bool:
    import importlib.util
    from pathlib import Path

    import torch

    package = importlib.util.find_spec("torchvision")
    folders = package.submodule_search_locations if package is not None else None
    extension = next((file for folder in folders or () for file in sorted(Path(folder).glob("_C*.so"))), None)
    if extension is None:
        return False
    try:
        torch.ops.load_library(str(extension))  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True
