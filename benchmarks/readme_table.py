"""Writes the tables of docs/measurements.md, and the README's short one, from the results of the other benchmarks.

    python benchmarks/readme_table.py            writes what is between the two markers of each page
    python benchmarks/readme_table.py --check    only says whether it is what the results say; exit code 1 where it is not

Rules this file keeps:

1. Every figure in a table comes from a file in `benchmarks/results/`; nothing is typed in.
2. A result that is missing or of another shape ends the script with its name. A table of some of the results is not written.
3. A measurement that did not settle is marked, not left out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from readme_digest import ROWS, digest, rows
from readme_models import accuracy, architectures, compression, engines, explanations, fidelity, heads, overlay, precision, reproducible
from readme_runtime import cold_start, input_gate, profiler, speed, stream_alone, stream_faults, stream_loaded, throughput
from readme_words import Result

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
MEASUREMENTS = ROOT / "docs" / "measurements.md"
RESULTS = ROOT / "benchmarks" / "results"
NAMES = (
    "accuracy",
    "compression",
    "fidelity",
    "heads",
    "explanations",
    "overlay",
    "engines",
    "architectures",
    "speed",
    "throughput",
    "cold_start",
    "stream-alone",
    "stream-loaded",
    "stream-faults",
    "profiler",
    "input_gate",
    "precision",
    "reproducible",
)

T = TypeVar("T")
BEGIN, END = "<!-- figures:begin -->", "<!-- figures:end -->"


def load_results(folder: Path = RESULTS) -> dict[str, Any]:
    """Name to document, of all of `NAMES`; exits with the name of the first that is missing or no JSON."""
    found = {}
    for name in NAMES:
        path = folder / f"{name}.json"
        try:
            found[name] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            sys.exit(f"{path} is missing; run python benchmarks/{script(name)} first")
        except (OSError, ValueError) as error:
            sys.exit(f"{path} cannot be read: {error}")
    return found


def script(name: str) -> str:
    """The script that writes a result, with its option where it writes several."""
    stem, _, part = name.partition("-")
    return f"{stem}.py --only {part}" if part else f"{stem}.py"


def render(results: Mapping[str, Any]) -> str:
    """The text between the markers; exits where a result does not have the shape that its benchmark writes."""
    parts = (
        ("accuracy", accuracy),
        ("compression", compression),
        ("fidelity", fidelity),
        ("heads", heads),
        ("explanations", explanations),
        ("overlay", overlay),
        ("engines", engines),
        ("architectures", architectures),
        ("speed", speed),
        ("throughput", throughput),
        ("cold_start", cold_start),
        ("stream-alone", stream_alone),
        ("stream-loaded", stream_loaded),
        ("stream-faults", stream_faults),
        ("profiler", profiler),
        ("input_gate", input_gate),
        ("precision", precision),
        ("reproducible", reproducible),
    )
    return "\n\n".join(_read(results, name, make) for name, make in parts)


def render_digest(results: Mapping[str, Any]) -> str:
    """The README's part; exits as `render`."""
    return digest([row for name in ROWS for row in _read(results, name, partial(rows, name))])


def _read(results: Mapping[str, Any], name: str, make: Callable[[Result], T]) -> T:
    try:
        return make(results[name])
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        sys.exit(f"benchmarks/results/{name}.json is not what benchmarks/{script(name)} writes ({error!r}); run it again")


def insert(page: str, text: str, name: str = "README.md") -> str:
    """The page with the text between the markers; exits where they are not there once each, in order."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        sys.exit(f"{name} needs the markers {BEGIN} and {END}, once each and in this order")
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}"


def pages() -> dict[Path, str]:
    """Page to what it is with the tables of the results that are kept."""
    results = load_results()
    made = {MEASUREMENTS: render(results), README: render_digest(results)}
    return {path: insert(path.read_text(encoding="utf-8"), text, path.name) for path, text in made.items()}


def main() -> None:
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit("usage: python benchmarks/readme_table.py [--check]")
    for path, new in pages().items():
        if new == path.read_text(encoding="utf-8"):
            print(f"the table in {path.name} is what benchmarks/results/ says")
        elif sys.argv[1:]:
            sys.exit(f"the table in {path.name} is not what benchmarks/results/ says; run python benchmarks/readme_table.py")
        else:
            path.write_text(new, encoding="utf-8")
            print(f"wrote the table in {path}")


if __name__ == "__main__":
    main()
