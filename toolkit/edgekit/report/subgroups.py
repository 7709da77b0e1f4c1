"""The changed answers by subgroup: whether some machine, hospital or view pays for what the others gain.

Rules this file keeps:

1. Every subgroup has its number of frames and an upper bound beside its share: a small subgroup without a flip is not shown to be safe.
2. At most `MOST_DRAWN` subgroups are drawn, those with the highest upper bound; the table lists every one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.report.charts import Interval, intervals
from edgekit.report.html import Html, details, element, section, table
from edgekit.report.wording import count, decimal, share, shortened

Document = Mapping[str, Any]

MOST_DRAWN = 16
LONGEST_LABEL = 30


def subgroups_section(document: Document) -> list[Html]:
    """The shares as a chart and as a table; nothing where the document has no `subgroups`."""
    found: Sequence[Document] = document.get("subgroups") or ()
    if not found:
        return []
    rows = [
        (
            f"{item['column']}: {item['value']}",
            str(item["frames"]),
            str(item["groups"]),
            str(item["flips"]),
            share(item["flips"] / item["frames"]) if item["frames"] else decimal(None),
            share(item["upper"]),
            str(item["harmful"]),
            str(item["helpful"]),
        )
        for item in found
    ]
    header = ["subgroup", "frames", "groups", "changed", "share", "upper bound", "harmful", "helpful"]
    note = (
        "Changed answers on the split test by the values of the manifest's further columns. The upper bound (one-sided, 97.5 %, Clopper–Pearson; counted "
        "in groups where a group has several frames) is what the share may still be: with few of them it is high, however few answers changed. Of many "
        "subgroups one looks bad by chance."
    )
    listed = table(header, rows)
    shown = details(f"All {count(len(found), 'subgroup')}", listed) if len(found) > MOST_DRAWN else listed
    return [section("Changed answers by subgroup", *_chart(document, found), shown, note=note)]


def _chart(document: Document, found: Sequence[Document]) -> list[Html]:
    ordered = sorted((item for item in found if item["frames"] and item["upper"] is not None), key=lambda item: -item["upper"])
    drawn = ordered[:MOST_DRAWN]
    if not drawn:
        return []
    names = shortened([f"{item['column']}: {item['value']}" for item in drawn], LONGEST_LABEL)
    items = [
        Interval(
            label=f"{name}, n = {item['frames']}",
            series="share",
            value=100 * item["flips"] / item["frames"],
            low=100 * item["flips"] / item["frames"],
            high=100 * item["upper"],
        )
        for name, item in zip(names, drawn, strict=True)
    ]
    bound = next((gate["bound"] for gate in document["gates"] if gate["name"] == "subgroup_flips"), None)
    bounds = {} if bound is None else {item.label: 100 * bound for item in items}
    said = "The whisker reaches up to the upper bound" + ("; the dashed line is what the recipe allows the share to be." if bounds else ".")
    left_out = f" Drawn: the {len(drawn)} with the highest upper bound." if len(found) > len(drawn) else ""
    return [intervals(items, quantity="changed answers (%)", bounds=bounds), element("p", said + left_out, class_="note")]
