"""Makes the builders in `tests/support/` importable by their module names, which importlib mode does not do by itself."""

import functools
import gc
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

import edgekit

sys.path.insert(0, str(Path(__file__).parent / "support"))


def stay_on_one_core(worker):
    """Gives each of pytest-xdist's processes a core. An engine takes a thread for each core it may use, and two of them on two cores wait for each other."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


# Before anything that starts threads is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    stay_on_one_core(os.environ["PYTEST_XDIST_WORKER"])

# How long an example takes says how busy the machine is. All else is as Hypothesis has it: under CI=true the examples are the same each time.
settings.register_profile("edgekit", deadline=None)
settings.load_profile("edgekit")


def pytest_report_header():
    return f"edgekit {edgekit.__version__} from {Path(edgekit.__file__).parent}"


@pytest.fixture(autouse=True, scope="module")
def _what_is_old_is_not_garbage():
    """Sets aside what was there before a file of tests: looking through all of PyTorch for garbage takes a second, and every timing begins with a collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _operators_are_read_once():
    """`torch.onnx.export` reads the source of all its operators anew each time, for a second; here it no longer does once a test has exported.

    A PyTorch that keeps them elsewhere is only slower.
    """
    registry = getattr(sys.modules.get("torch.onnx._internal.exporter._registration"), "ONNXRegistry", None)
    read = getattr(registry, "from_torchlib", None)
    if read is not None and not hasattr(read, "cache_info"):
        registry.from_torchlib = staticmethod(functools.cache(read))
