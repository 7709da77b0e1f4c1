"""What the page says about the proof: gates, ROC curves, sensitivity and specificity, calibration, subgroups, maps."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import report_documents
from report_documents import full_document, gate, proportion

from edgekit.report import calibration, cam, compile_page, flips, gates, operating, roc, subgroups, svg


def words(markup):
    """The text of a section, its numbers as they are read."""
    found = re.sub(r"<[^>]+>", " ", "".join(part.text for part in (markup if isinstance(markup, list) else [markup])))
    return re.sub(r"\s+", " ", found).replace("\u202f", " ")


def drawn(markup):
    """The elements of a section; raises when the markup is not well-formed XML, which all of it is but for pictures and line breaks."""
    text = "".join(part.text for part in (markup if isinstance(markup, list) else [markup]))
    return ET.fromstring(f"<div>{text.replace('<br>', '<br/>')}</div>")


def of_class(markup, kind, tag="*"):
    return [element for element in drawn(markup).iter() if element.get("class") == kind and tag in ("*", element.tag)]


def points(element):
    return np.array([[float(number) for number in pair.split(",")] for pair in element.get("points").split()])


NEW_KEYS = (
    "steps",
    "roc",
    "reliability",
    "mcnemar",
    "operating_point",
    "subgroups",
    "pruning",
    "training",
    "search",
    "ensemble",
    "student",
)


def test_a_section_without_its_key_is_not_drawn():
    """An absent key, null and an empty value are the same: the page is that of a compile without the part."""
    page = compile_page.render(full_document(**dict.fromkeys(NEW_KEYS), fallback=None), {})
    absent = full_document(fallback=None)
    for key in NEW_KEYS:
        del absent[key]
    del absent["fallback"]
    assert compile_page.render(absent, {}) == page
    titles = re.findall(r"<h2>(.*?)</h2>", compile_page.render(full_document(), {}))
    assert [title for title in titles if title not in re.findall(r"<h2>(.*?)</h2>", page)] == [
        "ROC curves",
        "Sensitivity and specificity, paired",
        "Calibration",
        "Changed answers by subgroup",
        "What each step did",
        "Search",
        "Pruning",
        "Training",
    ]


def test_what_was_not_demonstrated_is_amber_and_not_failed():
    """The verdict counts it neither as passed nor as failed, and names it; its line has the advice."""
    document = full_document()
    found = words(gates.verdict(document))
    assert "Accepted. 15 of 17 gates passed on the 300 frames of 150 groups of the split test, and none failed." in found
    assert "Not demonstrated: loss of sensitivity, loss of peaks inside the lesion. These frames neither prove nor disprove it" in found
    section = gates.gates_section(document)
    assert "not demonstrated −0.0612 above −0.0500 Loss of sensitivity" in words(section)
    assert "What could help: more test frames: about 410" in words(section)
    assert re.findall(r'<strong style="color: var\(--(\w+)\)[^>]*>not demonstrated<', section.text) == ["warning"] * 2


def test_a_gate_that_refuses_is_failed_whatever_its_status_says():
    """A recipe may ask for a demonstration: then the gate did not let the model through, and is red."""
    refused = gate("sensitivity", -0.06, -0.05, "not demonstrated") | {"passed": False}
    document = full_document(gates=[refused], accepted=False, bundles=[])
    assert "Refused. 1 of 1 gate failed" in words(gates.verdict(document))
    assert "Not demonstrated" not in words(gates.verdict(document))
    assert re.search(r"var\(--bad\)[^>]*>failed<", gates.gates_section(document).text)


def test_a_document_that_contradicts_itself_is_never_shown_as_accepted():
    """Accepted beside a failed gate is read as refused."""
    document = full_document(gates=[gate("flips", 0.2, 0.02, "failed")])
    assert "Accepted" not in words(gates.verdict(document))
    assert "var(--good)" not in gates.verdict(document).text


@pytest.mark.parametrize(
    ("item", "line"),
    [
        (gate("net_harm", -0.0012, 0.005), "passed −0.12 % at most 0.50 % Answers made wrong, less those made right"),
        (gate("ece_increase", 0.0300001, 0.03, "failed"), "failed +0.0300001 at most +0.0300000 Rise of the calibration error"),
        (gate("latency_ms", 2.504, 2.5, "failed"), "failed 2.504 ms at most 2.500 ms Latency on the compile's host"),
        (gate("size_mb", 4.22, 8.0), "passed 4.22 MB at most 8.00 MB Size of the bundle"),
        (gate("specificity", None, -0.05, "failed"), "failed undefined above −0.0500 Loss of specificity"),
        (gate("subgroup_flips", 0.04, 0.05), "passed 4.00 % at most 5.00 % Changed answers in the worst subgroup"),
        (gate("a_new_gate", 0.5, 0.75), "passed 50.00 % at most 75.00 % A new gate"),
    ],
)
def test_every_gate_is_written_in_its_own_unit(item, line):
    """Shares, differences, times and sizes are not mixed up, and a bound that is just missed does not look kept."""
    assert line in words(gates.gates_section(full_document(gates=[item])))


def test_advice_stands_only_where_it_is_needed():
    """A gate that passed needs none; one without advice has no empty line."""
    listed = [gate("flips", 0.0, 0.02, advice="climb"), gate("harmful_flips", 0.5, 0.01, "failed")]
    assert "What could help" not in words(gates.gates_section(full_document(gates=listed)))
    assert "What could help: climb" in words(gates.gates_section(full_document(gates=[gate("flips", 1.0, 0.02, "failed", "climb")])))


def test_both_roc_curves_and_their_frozen_points_are_in_one_chart():
    """The polylines are the document's points on axes from 0 to 1, and each dot lies on its own curve."""
    document = full_document()
    entry = document["roc"][0]
    markup = roc.roc_section(document)
    area = svg.Area(height=364, width=svg.NARROW)
    x, y = area.horizontal(0, 1), area.vertical(0, 1)
    for index, (side, kind) in enumerate((("reference", "s1 under"), ("device", "s2 stroke"))):
        curve = points(of_class(markup, kind, "polyline")[0])
        assert curve[:, 0] == pytest.approx([x(value) for value in entry[side]["fpr"]], abs=0.1)
        assert curve[:, 1] == pytest.approx([y(value) for value in entry[side]["tpr"]], abs=0.1)
        dot = of_class(markup, f"s{index + 1} dot")[0]
        fpr, tpr = entry["operating"][side]
        assert (float(dot.get("cx")), float(dot.get("cy"))) == (pytest.approx(x(fpr), abs=0.1), pytest.approx(y(tpr), abs=0.1))
    said = words(markup)
    auc = {side: document[side]["per_class"]["malignant"]["auc"]["value"] for side in ("reference", "device")}
    assert f"FP32, AUC {auc['reference']:.4f} device, AUC {auc['device']:.4f}" in said
    assert "“malignant” against the rest, frozen threshold 0.438" in said


def test_the_corner_is_drawn_larger_only_where_the_curves_reach_it():
    """A weak model's corner is empty, and then there is one chart."""
    assert len(of_class(roc.roc_section(full_document()), "chart narrow")) == 2
    document = full_document()
    for side in ("reference", "device"):
        document["roc"][0][side] = {"fpr": [0.0, 0.3, 1.0], "tpr": [0.0, 0.6, 1.0]}
    assert len(of_class(roc.roc_section(document), "chart narrow")) == 1


def test_a_roc_curve_of_one_outcome_is_said_not_to_exist():
    """Undefined in words, no chart; a label without a threshold has a curve and no dot."""
    document = full_document()
    document["roc"][0] |= {"device": {"fpr": [], "tpr": []}}
    markup = roc.roc_section(document)
    assert "Undefined on these frames for device" in words(markup)
    assert not of_class(markup, "chart narrow")
    document = full_document()
    document["roc"][0]["operating"] = None
    markup = roc.roc_section(document)
    assert of_class(markup, "chart narrow")
    assert not of_class(markup, "s1 dot")
    assert "frozen threshold" not in words(markup).replace("A dot marks the threshold that was frozen", "")


def test_a_difference_that_is_not_demonstrated_says_how_many_frames_it_would_take():
    """Both values, the interval, the bound against the margin, and the result in words."""
    said = words(operating.operating_section(full_document()))
    line = "malignant, 0.438 sensitivity 0.950 0.940 −0.0100 −0.0612 to +0.0412 −0.0612 above −0.0500 not demonstrated would take about 410 frames with it"
    assert line in said
    assert "specificity 0.945 0.950 +0.0050 −0.0201 to +0.0301 −0.0201 above −0.0500 demonstrated" in said


@pytest.mark.parametrize(("status", "color"), [("demonstrated", "good"), ("not demonstrated", "warning"), ("worse", "bad")])
def test_the_three_results_have_three_colours(status, color):
    """Worse is never amber, and what is not demonstrated never green."""
    document = full_document()
    document["operating_point"][0]["sensitivity"] = proportion(0.9, 0.8, 0.02, status)
    assert re.search(rf"var\(--{color}\)[^>]*>{status}<", operating.operating_section(document)[0].text)


def test_the_threshold_is_not_what_the_device_answers_by():
    """Said where there is a threshold and one answer; several labels are answered by it."""
    said = "The device's label is the most probable one and does not use this threshold"
    document = full_document()
    assert said in words(operating.operating_section(document))
    assert said not in words(operating.operating_section(full_document(task="multilabel")))
    for item in document["operating_point"]:
        item["threshold"] = None
    assert said not in words(operating.operating_section(document))


def test_a_figure_that_is_undefined_is_in_the_table_and_not_in_the_chart():
    """No positives on test: undefined, and no dot at zero; a label that is judged by its answer says so."""
    document = full_document()
    names = ("reference", "device", "difference", "low", "high", "lower_bound", "frames_needed")
    nothing = {**dict.fromkeys(names), "margin": 0.05, "status": "not demonstrated"}
    document["operating_point"][0] |= {"sensitivity": nothing, "threshold": None}
    markup = operating.operating_section(document)
    assert (
        "malignant, by the answer sensitivity undefined undefined undefined no interval undefined above −0.0500 not demonstrated"
        in words(markup)
    )
    assert len(of_class(markup, "s1 dot")) == 1
    document["operating_point"][0]["specificity"] = nothing
    assert not of_class(operating.operating_section(document), "chart")


def test_the_reliability_diagram_has_a_dot_for_every_bin_with_frames():
    """Dots lie at (mean probability, share right), larger where there are more frames; empty bins have none."""
    document = full_document()
    bins = document["reliability"]["bins"]
    markup = calibration.calibration_section(document)
    area = svg.Area(height=364, width=svg.NARROW)
    x, y = area.horizontal(0, 1), area.vertical(0, 1)
    for index, side in enumerate(("reference", "device")):
        filled = [found[side] for found in bins if found[side]["frames"]]
        assert len(filled) < len(bins)
        dots = of_class(markup, f"s{index + 1} dot")
        assert [float(dot.get("cx")) for dot in dots] == pytest.approx([x(found["confidence"]) for found in filled], abs=0.1)
        assert [float(dot.get("cy")) for dot in dots] == pytest.approx([y(found["accuracy"]) for found in filled], abs=0.1)
        radii = [float(dot.get("r")) for dot in dots]
        assert np.argmax(radii) == np.argmax([found["frames"] for found in filled])


def test_calibration_shows_both_temperatures_and_what_scaling_did():
    """Before and after for both sides, and the difference that the gate is about."""
    said = words(calibration.calibration_section(full_document()))
    for text in (
        "temperature 1.182 1.243",
        "ECE before scaling 0.0312 0.0391",
        "ECE after scaling 0.0187 0.0204",
        "ECE, device − FP32 +0.0017",
    ):
        assert text in said
    said = words(calibration.calibration_section(full_document(reliability__ece__device=None, task="multilabel")))
    assert "ECE after scaling 0.0187 undefined" in said
    assert "ECE, device − FP32 undefined" in said
    assert "how often it is present" in said


def test_every_subgroup_has_its_frames_and_its_upper_bound():
    """Share and bound are in the table; the chart's whiskers end at the bound, and the recipe's limit crosses them."""
    document = full_document()
    markup = subgroups.subgroups_section(document)
    said = words(markup)
    assert "scanner: EPIQ 5 50 25 2 4.00 % 13.71 % 1 1" in said
    assert len(of_class(markup, "s1 stroke")) == len(document["subgroups"])
    assert len(of_class(markup, "bound")) == len(document["subgroups"])
    stroke, bound = of_class(markup, "s1 stroke")[0], of_class(markup, "bound")[0]
    # The highest upper bound comes first; pixels are linear in the share, so the limit divides the whisker as it divides the figures.
    low, high, limit = (float(place) for place in (stroke.get("x1"), stroke.get("x2"), bound.get("x1")))
    assert (limit - low) / (high - low) == pytest.approx((0.05 - 0.04) / (0.1371 - 0.04), abs=1e-3)
    many = [dict(item, value=f"{item['value']} {index}") for index in range(5) for item in document["subgroups"]]
    markup = subgroups.subgroups_section(full_document(subgroups=many))
    assert len(of_class(markup, "s1 stroke")) == subgroups.MOST_DRAWN
    assert "Drawn: the 16 with the highest upper bound" in words(markup)
    assert words(markup).count("EPIQ 5 4 50 25") == 1


def test_names_that_are_cut_alike_stay_apart():
    """Two subgroups whose long names begin alike are two rows, as are two labels."""
    document = full_document()
    for index, item in enumerate(document["subgroups"]):
        item["value"] = "x" * 60 + str(index)
    document["operating_point"] = [dict(document["operating_point"][0], label="y" * 60 + str(index)) for index in range(3)]
    rows = of_class(subgroups.subgroups_section(document), "s1 dot")
    assert len({dot.get("cy") for dot in rows}) == len(document["subgroups"])
    rows = of_class(operating.operating_section(document), "s1 dot")
    assert len({dot.get("cy") for dot in rows}) == 6


def test_mcnemar_is_reported_with_what_it_does_not_prove():
    """Counts, p and method, and no claim of equality; without it nothing is said."""
    said = words(flips.flips_section(full_document(), {}))
    assert "5 harmful against 4 helpful frames: p = 0.81 (McNemar's exact test over whole groups" in said
    assert "two-sided). It asks whether as many answers became wrong as right" in said
    assert "helpful labels of frames: p" in words(flips.flips_section(full_document(mcnemar__unit="labels of frames"), {}))
    assert "does not prove" in said
    assert "p = undefined" in words(flips.flips_section(full_document(mcnemar__p_value=None), {}))
    assert "harmful against" not in words(flips.flips_section(full_document(mcnemar=None), {}))


def test_a_flipped_frame_stands_beside_its_maps_before_and_after():
    """Three pictures a card, in the order frame, FP32, device, each with its words; without maps there is the frame alone."""
    document = full_document()
    frames, overlays = report_documents.frames_and_overlays()
    page = compile_page.render(document, frames, overlays)
    cards = re.findall(r"<figure.*?</figure>", page, flags=re.DOTALL)
    assert len(cards) == len(document["flips"]) > 0
    for card in cards:
        assert card.count('src="data:image/png;base64,') == 3
        assert re.findall(r"<span>(.*?)</span>", card) == ["frame", "FP32 map", "device map"]
    assert len(set(re.findall(r'src="([^"]+)"', page))) == 3 * len(cards)
    first = document["flips"][0]["file"]
    some = compile_page.render(document, frames, {first: overlays[first]})
    assert some.count("device map</span>") == 1
    assert some.count("<img") == len(cards) + 2
    assert compile_page.render(document, frames, None) == compile_page.render(document, frames)
    assert "<span>frame</span>" not in compile_page.render(document, frames)


def test_the_caption_names_the_label_that_the_maps_are_of():
    """Of several labels, the one that changed; nothing without maps, and nothing where each side shows its own answer."""
    document = full_document()
    frames, overlays = report_documents.frames_and_overlays()
    assert "map of " not in words(flips.flips_section(document, frames, overlays))
    document["flips"][0]["cam_label"] = "cyst"
    assert words(flips.flips_section(document, frames, overlays)).count("map of cyst") == 1
    assert "map of " not in words(flips.flips_section(document, frames))


def test_the_map_says_how_near_it_stays_to_the_trained_models():
    """Every likeness that is known, by what is compared on which split; none is invented."""
    said = words(cam.map_section(full_document()))
    assert "With the trained model's FP32 map, test median 0.973, 5th percentile 0.912" in said
    assert "With the map of the unquantized network, test median 0.989, 5th percentile 0.942" in said
    assert "With the map of the unquantized network, val median 0.991, 5th percentile 0.953" in said
    said = words(
        cam.map_section(full_document(cam__agreement=None, cam__likeness_on_test=None, cam__likeness_on_val=None, cam__found=None))
    )
    assert "percentile" not in said
