"""A thin layer over CUDA: what the TensorRT engine needs, by way of whichever Python binding is installed.

`ADAPTERS` is the extension point: a binding is one file with `open_cuda`, and one line here. The first that can be imported is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from edgekit.errors import MissingEngineError
from edgekit.runtime.engines.cuda.base import Cuda

ADAPTERS: Mapping[str, str] = {
    "pycuda": "edgekit.runtime.engines.cuda.pycuda_layer",
    "cuda-python": "edgekit.runtime.engines.cuda.cuda_python_layer",
}
INSTALL = (
    "install cuda-python in the version of the device's CUDA (pip install 'cuda-python==12.6.*' where it is 12.6), "
    "or pycuda, which is compiled on the device; TensorRT itself comes with JetPack"
)


def open_cuda() -> Cuda:
    """The first GPU, by the first binding that is installed.

    Raises:
        MissingEngineError: No binding is installed.
        TargetError: There is no GPU, or its driver does not answer.
    """
    reasons = []
    for name, module in ADAPTERS.items():
        try:
            opened: Cuda = importlib.import_module(module).open_cuda()
        except MissingEngineError as error:
            reasons.append(f"{name}: {error.message}")
        else:
            return opened
    raise MissingEngineError(f"no Python binding of CUDA can be loaded ({'; '.join(reasons)})", hint=INSTALL)
