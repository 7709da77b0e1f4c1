"""The same recipe twice, each time in a fresh process with an empty stage cache: are the bundles the same bytes?

EDGEKIT_REAL_DATA=… python benchmarks/reproducible.py [RECIPE …]
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from common import TEACHERS, Teacher, real_data, save


def main() -> None:
    wanted = sys.argv[1:] or ["breast-us-lite0"]
    found = {teacher.recipe: [compile_once(teacher) for _ in range(2)] for teacher in TEACHERS if teacher.recipe in wanted}
    save("reproducible", {"teachers": {name: {"identical": len(set(digests)) == 1, "sha256": digests} for name, digests in found.items()}})


def compile_once(teacher: Teacher) -> str:
    """sha256 of the bundle of one compile."""
    root = real_data()
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "edgekit", "compile", teacher.recipe, "--out", folder, "--workdir", f"{folder}/work"),
            *("--set", f"model.weights={root / 'teachers' / teacher.weights}"),
            *("--set", f"data.manifest={root / 'data' / teacher.data / 'manifest.csv'}"),
            *("--set", "accept.enforce=false"),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return hashlib.sha256((Path(folder) / f"{teacher.recipe}.edgekit").read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
