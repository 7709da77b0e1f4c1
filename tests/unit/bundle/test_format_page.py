"""`docs/bundle-format.md` says what the code does: a reader in another language is written from it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from edgekit.bundle import archive, manifest
from edgekit.bundle.limits import DEFAULT_LIMITS
from edgekit.schema.input_gate import InputGateSpec, QualityLimits, Subspace
from edgekit.schema.model_io import InputSpec, OutputSpec

PAGE = (Path(__file__).parents[3] / "docs" / "bundle-format.md").read_text(encoding="utf-8")

# What a section of the page describes, or the top of the manifest.
SECTIONS = {
    "3.": manifest.Manifest,
    "3.1": manifest.TargetSummary,
    "3.2": manifest.EngineSpec,
    "3.3": InputSpec,
    "3.4": OutputSpec,
    "3.5": manifest.Decision,
    "3.6": manifest.CamSpec,
    "3.7": manifest.GoldenSpec,
    "3.8": manifest.Gate,
    "3.9": manifest.StateSpec,
    "3.10": InputGateSpec,
    "3.11": QualityLimits,
    "3.12": Subspace,
}


def section(number: str) -> str:
    """The text under a heading, up to the next heading."""
    found = re.search(rf"^#+ {re.escape(number)} .*?\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    if found is None:
        raise LookupError(number)
    return found[1]


def test_limits():
    """The table of limits has every limit of the reader, in the code's order."""
    found = [int(value) for value in re.findall(r"^\|[^|]+\| (\d+)(?: \([^|]*)? \|$", section("1."), re.MULTILINE)]
    assert found == list(dataclasses.asdict(DEFAULT_LIMITS).values())


@pytest.mark.parametrize(("number", "kind"), SECTIONS.items(), ids=SECTIONS)
def test_every_key_is_described(number, kind):
    """Each key of the manifest is on the page, in its section; one that may be missing is said to be so, and no other."""
    text = section(number)
    for field in dataclasses.fields(kind):
        rows = [line for line in text.splitlines() if re.search(rf"`{field.name}`", line)]
        assert rows, field.name
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        assert any("may be missing" in row for row in rows) == optional, field.name


@pytest.mark.parametrize(("number", "kind"), SECTIONS.items(), ids=SECTIONS)
def test_no_key_is_made_up(number, kind):
    """A table's first column has only keys that the manifest has."""
    listed = {key for row in section(number).splitlines() if row.startswith("| `") for key in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert listed <= {field.name for field in dataclasses.fields(kind)}


def test_names():
    """The regular expression on the page is the code's, but for groups that are not captured."""
    assert archive._NAME.pattern.replace("?:", "") in PAGE.splitlines()


def test_values_of_the_headers():
    """The fixed values in the tables of the container are those of the headers that are written."""
    entry = archive._Entry(name="a", crc32=0x11223344, size_bytes=5, offset=6)
    end = archive._tail([])
    for heading, header in (("local header", entry.local()), ("directory record", entry.directory()), ("end record", end)):
        table = PAGE.split(f"| {heading}: at |")[1].split("\n\n")[0]
        rows = re.findall(r"^\| (\d+) \| (\d) \| [^|]+ \| (?:(\d+)|`([\dA-F ]+)`)(?: \([^|]*)? \|$", table, re.MULTILINE)
        assert len(rows) >= 4
        for position, width, number, signature in rows:
            expected = bytes.fromhex(signature) if signature else int(number).to_bytes(int(width), "little")
            assert header[int(position) : int(position) + int(width)] == expected, (heading, position)
