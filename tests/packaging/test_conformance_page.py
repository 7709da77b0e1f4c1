"""`docs/conformance-rules.md` lists every rule as the code has it."""

from __future__ import annotations

import re

import repository

from edgekit.compiler.conformance import RULES

PAGE = (repository.ROOT / "docs" / "conformance-rules.md").read_text("utf-8")


def test_every_rule_is_on_the_page():
    """The tables' rows are the rules: id, severity, title, fix and source, each rule once and no other row."""
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in PAGE.splitlines() if line.startswith("| `")]
    found = {row[0].strip("`"): [cell.replace("\\|", "|") for cell in row[1:]] for row in rows}
    assert len(found) == len(rows)
    assert found == {rule.id: [rule.severity, rule.title, rule.fix, rule.source] for rule in RULES.values()}


def test_the_rules_are_in_order():
    """Within a family the numbers rise, so that a rule is found."""
    ids = re.findall(r"^\| `([A-Z])(\d+)` \|", PAGE, re.MULTILINE)
    for family in {letter for letter, _ in ids}:
        numbers = [int(number) for letter, number in ids if letter == family]
        assert numbers == sorted(numbers)
