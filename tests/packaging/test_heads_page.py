"""`docs/class-activation-maps.md` shows what `benchmarks/heads.py` measured, and names every kind of map that there is."""

from __future__ import annotations

import json
import re
from typing import get_args

import repository

from edgekit.bundle.manifest import CamKind

PAGE = (repository.ROOT / "docs" / "class-activation-maps.md").read_text("utf-8")
ROWS = json.loads((repository.ROOT / "benchmarks" / "results" / "heads.json").read_text("utf-8"))["rows"]


def shown():
    """The cells of each row of the table, by architecture."""
    table = PAGE.split("<!-- heads.json -->\n")[1].split("\n<!-- /heads.json -->")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {row[0]: row[1:] for row in rows}


def test_the_page_shows_what_was_measured():
    """Every architecture with its kind and figures, or the reason for none, and no other."""
    assert shown().keys() == {row["architecture"] for row in ROWS}
    for row in ROWS:
        head, kind, _, reference, *figures = shown()[row["architecture"]]
        assert head == row["head"]
        if "reason" in row:
            assert kind == "none: " + row["reason"].split("; [explain]")[0]
        else:
            expected = [f"{row[key]:.0e}" for key in ("map_error", "residual", "logit_error")]
            assert [kind, reference, *figures] == [row["kind"], row["reference"], *expected, f"{row['million_multiplications']:.2f}"]


def test_every_map_is_what_its_formula_says():
    """Within 1e-4 of autograd, for every head that the page names; and there are as many as were promised."""
    found = [row for row in ROWS if "reason" not in row]
    assert len(found) >= 20
    assert all(row["map_error"] <= 1e-4 for row in found)
    assert {row["kind"] for row in found} >= {"pooled-linear", "complete", "gradient", "attention"}


def test_every_kind_is_explained():
    """A kind that a manifest may have is in the table of heads."""
    assert set(re.findall(r"\| `([a-z-]+)` \|", PAGE)) == set(get_args(CamKind))
