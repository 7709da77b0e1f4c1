"""The input gate's section of a compile's page."""

from __future__ import annotations

import copy

from edgekit.report.input_gate import input_gate_section

FIGURE = {"value": 0.875, "low": 0.75, "high": 0.9375}
FOUND = {
    "limits": {"features": 1.75, "brightness": 3.25},
    "frames": 80,
    "groups": 40,
    "components": 64,
    "features": 1280,
    "features_reason": "",
    "quality": {},
    "known": [{"split": "test", "frames": 120, "groups": 60, "refused": FIGURE, "by_quality": 0.5}],
    "foreign": [
        {"set": "noise", "frames": 48, "groups": 48, "auroc": FIGURE, "fpr_at_95_tpr": FIGURE, "refused": FIGURE, "by_quality": 1.0},
        {"set": "<b>mri</b>", "frames": 9, "groups": 3, "auroc": FIGURE, "fpr_at_95_tpr": FIGURE, "refused": FIGURE, "by_quality": 0.0},
    ],
}


def text(found=FOUND, reason=""):
    return "".join(str(part) for part in input_gate_section({"input_gate": {"reason": reason, "found": found}}))


def test_both_kinds_of_mistakes_are_shown():
    """Refused frames of test and each foreign set with intervals, the limits, and the conventions; names are escaped."""
    page = text()
    for shown in (
        "0.875",
        "0.750 to 0.938",
        "limit 1.75",
        "limit 3.25",
        "1280 features",
        "known frames are the positives",
        "noise (drawn)",
    ):
        assert shown in page, shown
    assert "<b>mri" not in page
    assert "&lt;b&gt;mri" in page


def test_brightness_alone_is_said_with_its_reason():
    """No one may take it for the features' verdict."""
    found = copy.deepcopy(FOUND)
    found |= {"features": 0, "components": 0, "features_reason": "no layer is found", "limits": {"features": None, "brightness": 2.0}}
    assert "alone, because of the head&#x27;s features: no layer is found" in text(found).replace("&#39;", "&#x27;").replace(
        "head's", "head&#x27;s"
    )


def test_a_bundle_without_a_gate_says_so():
    """With the reason, and that every frame is answered; a document of before there were gates has no section."""
    assert "3 patients are too few. Every frame is answered" in text(None, "3 patients are too few")
    assert input_gate_section({}) == []
