"""The input gate: what it refuses of the frames the classifier was made for, and of frames it was not.

Rules this file keeps:

1. Both kinds of mistake are shown, and which frames set the limit.
2. Conventions of figures that the literature mixes are written out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.report.html import Html, callout, section, table
from edgekit.report.wording import count, decimal, share, with_interval

_TITLE = "Input gate"
_KINDS = {
    "noise": "noise (drawn)",
    "flat": "one grey level (drawn)",
    "ramp": "a ramp of grey (drawn)",
    "screenshot": "user interfaces (drawn)",
    "test, inverted": "test, black and white exchanged",
}


def input_gate_section(document: Mapping[str, Any]) -> list[Html]:
    """The section, or nothing where the document is of before there were gates.

    Args:
        document: The compile's, with `input_gate` from `compiler.input_gate`: `reason`, and `found`.
    """
    gate = document.get("input_gate")
    if gate is None:
        return []
    found = gate["found"]
    if found is None:
        return [section(_TITLE, callout("warning", f"there is none: {gate['reason']}. Every frame is answered, whatever it shows."))]
    note = (
        f"Frames that are refused go unanswered. Limits are from {count(found['frames'], 'frame')} of {count(found['groups'], 'group')} of val alone; foreign frames never "
        f"had a say. Judged is {_judged(found)}. The score is the larger distance in parts of its limit. "
        "AUROC: the chance that a foreign frame scores higher than one of test. FPR at 95 % TPR: known frames are the positives; the share of foreign frames that "
        "passes a limit that 95 % of test passes. Frames refused for their image quality count as the highest score. Intervals draw whole groups."
    )
    known = [
        (row["split"], str(row["frames"]), str(row["groups"]), with_interval(row["refused"]), share(row["by_quality"], 1))
        for row in found["known"]
    ]
    foreign = [
        (
            _KINDS.get(row["set"], row["set"]),
            str(row["frames"]),
            with_interval(row["auroc"]),
            with_interval(row["fpr_at_95_tpr"]),
            with_interval(row["refused"]),
            share(row["by_quality"], 1),
        )
        for row in found["foreign"]
    ]
    return [
        section(
            _TITLE,
            table(["made for", "frames", "groups", "refused", "by image quality"], known),
            table(["foreign", "frames", "AUROC", "FPR at 95 % TPR", "refused", "by image quality"], foreign),
            note=note,
        )
    ]


def _judged(found: Mapping[str, Any]) -> str:
    limits = found["limits"]
    brightness = f"the distance of the distribution of brightness (limit {decimal(limits['brightness'], 2)})"
    if not found["features"]:
        return f"{brightness} alone, because of the head's features: {found['features_reason']}"
    components = f"{count(found['components'], 'component')} and a residual, limit {decimal(limits['features'], 2)}"
    return f"the distance of the head's {found['features']} features ({components}) and {brightness}"
