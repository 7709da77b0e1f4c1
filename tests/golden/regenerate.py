"""Writes the golden files anew: `python tests/golden/regenerate.py`.

Run it only after a change that is meant to change them, look at each picture, and say in CHANGELOG.md what a user will see: a bundle that was proven with
the old preprocessing is not proven with the new one. `frame.png` is the input and is written only where it is missing.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import golden_cases
from PIL import Image


def main() -> None:
    if not golden_cases.FRAME.exists():
        golden_cases.write_frame()
    for name, make in golden_cases.PICTURES.items():
        Image.fromarray(make()).save(golden_cases.FOLDER / f"{name}.png", optimize=True)
    golden_cases.write_golden_bundle(golden_cases.BUNDLE)


if __name__ == "__main__":
    main()
