"""FP32 against device on `test`: the figures, the AUC difference, the confusion matrices and every class.

Takes two documents of `edgekit evaluate` on the same frames. A figure that is undefined on either side is named in the tables and left out of
the chart, which says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit.report.charts import Interval, intervals
from edgekit.report.html import Content, Html, columns, confusion_table, element, key_values, section, table
from edgekit.report.wording import UNDEFINED, count, decimal, share, tiny, with_interval

Document = Mapping[str, Any]

REFERENCE = "FP32"
DEVICE = "device"

FIGURES = {
    "auc": "AUC",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "ece": "calibration error (ECE)",
}
CLASS_FIGURES = ("auc", "sensitivity", "specificity", "precision", "f1")
NOT_CHARTED = frozenset({"ece"})
"""The one figure where smaller is better would be misread in a row of figures where larger is."""

_METHODS = {
    "delong": "paired DeLong test, its variance summed over groups (DeLong 1988; Obuchowski 1997)",
    "bootstrap": "the lower of a paired bootstrap's percentile over groups and DeLong's bound with Student's quantile",
    "undefined": "none",
}


def figures_section(document: Document) -> Html:
    """Every figure of both sides with its interval, as a chart and as a table."""
    reference, device = document["reference"], document["device"]
    rows = [
        (title, with_interval(reference[name]), with_interval(device[name]), _change(reference[name]["value"], device[name]["value"]))
        for name, title in FIGURES.items()
    ]
    note = (
        f"{count(device['n'], 'frame')} of {count(device['groups'], 'group')} (patients or videos) of the split test; {REFERENCE} is the trained "
        "model before compression, device is the compiled artefact, run by the device's own engine. Intervals are 95 % and respect the groups: "
        f"they are drawn over whole groups, never over single frames. {_meaning(document)}"
    )
    return section(
        "FP32 against device",
        *_chart(reference, device),
        table(["figure", f"{REFERENCE}, 95 % interval", f"{DEVICE}, 95 % interval", "device \u2212 FP32"], rows),
        element(
            "p",
            "Larger is better, except for the calibration error, where smaller is. Chance can only raise a calibration error, so it may lie "
            "below its own interval.",
            class_="note",
            style="margin-top: 0.75rem",
        ),
        note=note,
    )


def difference_section(document: Document) -> Html:
    """The paired AUC difference with its lower bound, how the bound was found and why so."""
    found, agreement = document["auc_difference"], document["test_agreement"]
    why = found["reason"] or "the usual method; there are enough groups of either outcome, and its variance is not zero"
    pairs: list[tuple[str, Content]] = [
        ("AUC, FP32 → device", f"{decimal(found['reference_auc'], 4)} → {decimal(found['device_auc'], 4)}"),
        ("Device − FP32", _signed(found["difference"])),
        ("Standard error", decimal(found["standard_error"], 4)),
        *([] if found.get("quantile") is None else [("Standard errors to the bound", decimal(found["quantile"], 2))]),
        ("Lower bound (one-sided, 97.5 %)", element("strong", _signed(_lowest(found)))),
        ("Method", _METHODS.get(found["method"], found["method"])),
        ("Why this method", why),
        *_unseen(found),
        ("Mean |Δ probability|", decimal(agreement["mean_abs_probability"], 4)),
        ("Largest |Δ logit|", decimal(agreement["max_abs_logit"])),
        ("Mean KL divergence", f"{tiny(agreement['mean_kl'])} nats"),
    ]
    note = "Both models saw the same frames, so the difference of their AUCs is known better than either AUC; the last lines say how far single answers moved."
    return section("Difference, frame by frame", *_difference_chart(document), key_values(pairs), note=note)


def _lowest(found: Document) -> float | None:
    # Where nothing varies among these frames, what may have fallen unseen is part of the bound.
    lowest: float | None = found["lower_bound"]
    return lowest if lowest is None else max(-1.0, lowest - (found.get("undetected") or 0.0))


def _unseen(found: Document) -> list[tuple[str, Content]]:
    if found.get("undetected") is None or found["lower_bound"] is None:
        return []
    words = (
        f"nothing varies on these frames; of the {count(found['fewest_groups'], 'group')} of the rarer outcome none fell, so up to "
        f"{share(found['undetected'])} of such groups still may (exact, 97.5 %), and the bound allows for that"
    )
    return [("What these frames cannot show", words)]


def confusion_section(document: Document) -> Html:
    """Confusion matrices side by side; for multilabel the four counts of every label."""
    sides = ((document["reference"], REFERENCE), (document["device"], DEVICE))
    if document["task"] == "multilabel":
        note = "Counts of frames by the frozen threshold of each label. Hit: present and answered. False alarm: absent and answered."
        return section("Confusion", columns(*(_multilabel_confusion(found, title) for found, title in sides)), note=note)
    matrices = [
        confusion_table(found["labels"], np.asarray(found["confusion"]["value"], np.int64), caption=title) for found, title in sides
    ]
    note = "Rows are the truth, columns the answer, which is the most probable label. The percentage is the share of the row."
    return section("Confusion matrices", columns(*matrices), note=note)


def classes_section(document: Document) -> Html:
    """Every label against the rest, FP32 above device."""
    rows: list[tuple[Content, ...]] = []
    for label in document["device"]["labels"]:
        for side, title in (("reference", REFERENCE), ("device", DEVICE)):
            found = document[side]["per_class"][label]
            # Repeated for who hears the table, faint for who sees it.
            first = label if side == "reference" else element("span", label, class_="unknown")
            rows.append((first, title, str(found["support"]), *(with_interval(found[name]) for name in CLASS_FIGURES)))
    header = ("label", "model", "frames", *(FIGURES[name] for name in CLASS_FIGURES))
    by = "its frozen threshold" if document["task"] == "multilabel" else "the answer, the most probable label"
    return section(
        "Per class", table(header, rows), note=f"Each label against the rest, judged by {by}; 95 % intervals respect the groups."
    )


def _chart(reference: Document, device: Document) -> list[Html]:
    charted = {name: title for name, title in FIGURES.items() if name not in NOT_CHARTED}
    items = [
        Interval(label=title, series=series, value=side[name]["value"], low=side[name]["low"], high=side[name]["high"])
        for name, title in charted.items()
        for series, side in ((REFERENCE, reference), (DEVICE, device))
        if side[name]["value"] is not None
    ]
    missing = [title for name, title in charted.items() if reference[name]["value"] is None or device[name]["value"] is None]
    said = [element("p", f"Undefined on these frames and not drawn: {', '.join(missing)}.", class_="note")] if missing else []
    return [*([intervals(items, quantity="figure, with its 95 % interval")] if items else []), *said]


def _difference_chart(document: Document) -> list[Html]:
    found = document["auc_difference"]
    if found["lower_bound"] is None or found["difference"] is None:
        return []
    label = "ΔAUC"
    bound = next((gate["bound"] for gate in document["gates"] if gate["name"] == "auc_difference_lower_bound"), None)
    # The bound is one-sided: the whisker ends at the measured difference, because nothing was asked about the other side.
    item = Interval(label=label, series="difference", value=found["difference"], low=_lowest(found), high=found["difference"])
    said = "The whisker reaches down to the lower bound; the dashed line is the least that the recipe allows."
    return [
        intervals([item], quantity="device \u2212 FP32, AUC", bounds=None if bound is None else {label: bound}),
        element("p", said, class_="note"),
    ]


def _multilabel_confusion(found: Document, title: str) -> Html:
    # The evaluation's tables hold absent before present.
    cells = {"hits": (1, 1), "missed": (1, 0), "false alarms": (0, 1), "rightly absent": (0, 0)}
    tables = zip(found["labels"], found["confusion"]["value"], strict=True)
    rows = [(label, *(str(counts[row][column]) for row, column in cells.values())) for label, counts in tables]
    return table(["label", *cells], rows, caption=title)


def _meaning(document: Document) -> str:
    if document["task"] == "multilabel":
        return (
            "Figures are means over the labels that are both present and absent among these frames, each at its frozen threshold; accuracy asks "
            "for all labels of a frame."
        )
    about = next(iter(document["thresholds"].items()), None)
    if document["task"] == "binary" and about:
        macro = f"AUC, precision, recall and F1 are those of “{about[0]}”."
    else:
        macro = "AUC (one against the rest), precision, recall and F1 are means over the labels."
    if about is None:
        return f"{macro} Sensitivity and specificity are means over the labels."
    return f"{macro} Sensitivity and specificity are about “{about[0]}” at its threshold {decimal(about[1])}, frozen on the split val."


def _change(before: float | None, after: float | None) -> Content:
    if before is None or after is None:
        return element("span", UNDEFINED, class_="unknown")
    return _signed(after - before)


def _signed(value: float | None) -> str:
    return decimal(value, 4, signed=True)
