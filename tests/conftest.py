"""Makes the builders in `tests/support/` importable by their module names, which importlib mode does not do by itself."""

import sys
from pathlib import Path

from hypothesis import settings

import edgekit

sys.path.insert(0, str(Path(__file__).parent / "support"))

# How long an example takes says how busy the machine is. All else is as Hypothesis has it: under CI=true the examples are the same each time.
settings.register_profile("edgekit", deadline=None)
settings.load_profile("edgekit")


def pytest_report_header():
    return f"edgekit {edgekit.__version__} from {Path(edgekit.__file__).parent}"
