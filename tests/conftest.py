"""Makes the builders in `tests/support/` importable by their module names, which importlib mode does not do by itself."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "support"))
