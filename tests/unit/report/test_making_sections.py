"""What the page says about how the model was made: steps, search, pruning, training, the layers left in floating point."""

from __future__ import annotations

import itertools
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
import report_documents
from report_documents import epoch, full_document, step, trial

from edgekit.report import compile_page, making, pruning, search, steps, svg, training


def words(markup):
    """The text of a section, its numbers as they are read."""
    found = re.sub(r"<[^>]+>", " ", "".join(part.text for part in (markup if isinstance(markup, list) else [markup])))
    return re.sub(r"\s+", " ", found).replace("\u202f", " ")


def drawn(markup):
    """The elements of a section; raises when the markup is not well-formed XML."""
    return ET.fromstring(f"<div>{''.join(part.text for part in markup)}</div>")


def of_class(markup, kind):
    return [element for element in drawn(markup).iter() if element.get("class") == kind]


def points(element):
    return [tuple(float(number) for number in pair.split(",")) for pair in element.get("points").split()]


def test_the_steps_say_in_one_sentence_what_they_bought_and_cost():
    """From the first step to the last: times faster, times smaller, AUC, changed answers; a loss is called one."""
    said = words(steps.steps_section(full_document()))
    assert (
        "“int8”: 45× faster than “teacher (PyTorch)”, 13× smaller than “teacher (PyTorch)”, AUC −0.0007 against “teacher (PyTorch)”, 5 of 240 answers changed."
        in said
    )
    assert "measured on the split val (240 frames)" in said
    slower = [step("a", "", 1.0, 1000, 10, 0.9, None), step("b", "", 1.5, 3000, 10, 0.95, 3)]
    said = words(steps.steps_section(full_document(steps=slower)))
    assert "“b”: 1.50× slower than “a”, 3.0× larger than “a”, AUC +0.0500 against “a”, 3 of 240 answers changed." in said


def test_a_teacher_that_was_not_timed_is_not_what_others_are_faster_than():
    """The sentence names the first step that has a latency, and says nothing where there is none."""
    rows = [
        step("teacher", "", None, None, None, 0.9, None),
        step("FP32", "", 3.0, 4000, 9, 0.9, 0),
        step("INT8", "", 1.0, 1000, 9, 0.89, 2),
    ]
    said = words(steps.steps_section(full_document(steps=rows)))
    assert "“INT8”: 3.0× faster than “FP32”, 4.0× smaller than “FP32”, AUC −0.0100 against “teacher”, 2 of 240 answers changed." in said
    assert "faster" not in words(steps.steps_section(full_document(steps=[rows[0], dict(rows[2], latency_ms=None)])))


def test_a_bar_is_as_long_as_its_value():
    """Latency starts at zero: bars are in the ratio of their values, and a step that was not timed has none."""
    document = full_document()
    panel = drawn(steps.steps_section(document)).findall(".//h3/..")[0]
    assert panel.find("h3").text == "Latency, median (ms)"
    bars = [float(element.get("width")) for element in panel.iter("rect") if element.get("class") == "s1 fill"]
    known = [item["latency_ms"] for item in document["steps"] if item["latency_ms"] is not None]
    assert len(bars) == len(known) < len(document["steps"])
    assert [bar / bars[0] for bar in bars] == pytest.approx([value / known[0] for value in known], abs=1e-3)
    texts = [element.text for element in panel.iter("text")]
    assert texts[texts.index("pruned") + 1] == "not measured"


def test_a_step_that_was_not_measured_is_said_so():
    """Neither 0 nor empty; the teacher is what the others are compared with; nothing known of anything draws no chart."""
    said = words(steps.steps_section(full_document()))
    assert "teacher (PyTorch) 62.6 26.99 6 956 931 0.9931 the reference" in said
    assert "pruned not measured 6.87 1 790 400 0.9641 41 (17.08 %)" in said
    unknown = {"name": "x", "title": "", **dict.fromkeys(("latency_ms", "size_bytes", "parameters", "auc", "flips", "frames"))}
    markup = steps.steps_section(full_document(steps=[unknown, unknown]))
    assert not of_class(markup, "chart narrow")
    assert "None" not in words(markup)


def test_a_figure_that_no_step_has_is_no_column():
    """Parameters are counted for some compiles; of others the table has no column of gaps."""
    document = full_document()
    assert "parameters AUC, val" in words(steps.steps_section(document))
    document["steps"] = [dict(item, parameters=None) for item in document["steps"]]
    found = steps.steps_section(document)
    assert "size, MiB AUC, val" in words(found)
    rows = drawn(found).findall(".//tr")
    assert len(rows) == 1 + len(document["steps"])
    assert {len(list(row)) for row in rows} == {5}


def test_an_auc_is_a_place_beside_the_teachers():
    """Dots, not bars from zero; a higher AUC lies further right; the teacher's is marked in every row."""
    document = full_document()
    panel = next(item for item in drawn(steps.steps_section(document)).findall(".//h3/..") if item.find("h3").text == "AUC on val")
    places = [float(element.get("cx")) for element in panel.iter("circle")]
    values = [item["auc"] for item in document["steps"]]
    assert sorted(range(6), key=places.__getitem__) == sorted(range(6), key=values.__getitem__)
    assert {element.get("x1") for element in panel.iter("line") if element.get("class") == "guide"} == {f"{places[0]:.2f}".rstrip("0")}
    same = full_document(steps=[dict(item, auc=0.5) for item in document["steps"]])
    assert "nan" not in steps.steps_section(same)[0].text


def test_further_teachers_and_the_student_are_named_without_their_folders():
    """A name of a catalogue is whole, a file is its name alone."""
    document = full_document(student="pt2:/somewhere/private/small.pt2")
    said = words(steps.steps_section(document))
    assert "Further teachers timm:tf_efficientnet_lite0, onnx:second.onnx" in said
    assert "Student pt2:small.pt2" in said
    assert "private" not in compile_page.render(document, {})


def test_the_front_is_a_staircase_through_its_points():
    """It runs from point to point by latency, first across and then up: no AUC is claimed at a latency nobody measured."""
    document = full_document()
    front = sorted((item for item in document["search"]["trials"] if item["pareto"]), key=lambda item: item["latency_ms"])
    markup = search.search_section(document)
    stairs = points(of_class(markup, "s1 stroke")[0])
    assert len(stairs) == 2 * len(front)
    for (x1, y1), (x2, y2) in itertools.pairwise(stairs):
        assert x2 >= x1
        assert y2 <= y1
        assert x1 == x2 or y1 == y2
    dots = {(float(dot.get("cx")), float(dot.get("cy"))) for kind in ("s1 dot", "s3 dot") for dot in of_class(markup, kind)}
    assert len(dots) == len(front)
    assert all(min(abs(x - sx) + abs(y - sy) for sx, sy in stairs) < 0.2 for x, y in dots)


def test_the_chosen_point_is_marked_and_named():
    """One mark of its own, its number beside it, and a sentence; trials without a result are counted by state."""
    markup = search.search_section(full_document())
    assert len(of_class(markup, "s3 dot")) == 1
    assert "2, chosen" in [element.text for element in drawn(markup).iter("text")]
    said = words(markup)
    assert "Compiled: trial 2 (criterion taylor, latency target 0.25): 1.41 ms, AUC 0.9897." in said
    assert "Without a result and not drawn: 1 failed." in said
    assert "8 taylor 0.50 – – failed" in said
    assert len(of_class(markup, "hollow")) == 3


def test_a_search_that_compares_shares_is_drawn_in_shares():
    """Trials timed beside the unpruned model: the axis is that share, the front is in its order, and the least AUC asked for is a line."""
    points_ = [
        {**trial(0, "l1", None, 2.0, 0.90, pareto=True), "ratio": 0.5, "rung": "ptq", "share": 0.30},
        {**trial(1, "l1", None, 1.9, 0.95, pareto=True, chosen=True), "ratio": 0.25, "rung": "qat", "share": 0.40},
        {**trial(2, None, None, None, None, "fail"), "ratio": None, "rung": None, "share": None, "reason": "out of time"},
    ]
    for item in points_:
        del item["latency_target"]
    document = full_document(search={"trials": points_, "seed": 3, "storage": "local", "teacher_auc": 0.955, "max_auc_loss": 0.01})
    markup = search.search_section(document)
    assert "latency in parts of the unpruned INT8 model's" in [element.text for element in drawn(markup).iter("text")]
    stairs = points(of_class(markup, "s1 stroke")[0])
    assert [x for x, _ in stairs] == sorted(x for x, _ in stairs)
    bound, chosen = float(of_class(markup, "bound")[0].get("y1")), float(of_class(markup, "s3 dot")[0].get("cy"))
    assert stairs[0][1] > bound > chosen
    said = words(markup)
    assert "0, front l1 0.50 ptq 2.00 30.0 % 0.9000 complete 1, chosen l1 0.25 qat 1.90 40.0 % 0.9500 complete" in said
    assert "2 – – – – – – fail: out of time" in said
    assert "latency target" not in said


@pytest.mark.parametrize(
    "trials",
    [
        [],
        [trial(0, "l1", 0.5, None, None, "failed")],
        [trial(0, "l1", 0.5, 2.0, 0.9, pareto=True, chosen=True)],
        [trial(0, "l1", 0.5, 2.0, 0.9), trial(1, "l1", 0.5, 2.0, 0.9)],
    ],
    ids=["no trials", "none with a result", "a single one", "equal ones without a front"],
)
def test_a_search_of_few_results_still_has_its_section(trials):
    """Finite coordinates, well-formed markup, and words where there is no picture."""
    markup = search.search_section(full_document(search__trials=trials))
    assert "nan" not in markup[0].text
    assert bool(of_class(markup, "chart")) == any(item["auc"] for item in trials)
    assert ("No trial has a result." in words(markup)) == (not of_class(markup, "chart"))


def test_probes_show_the_share_of_the_latency_against_the_ratio():
    """The curve is in the order of the ratios whatever order they were measured in, and the target crosses it."""
    document = full_document()
    markup = pruning.pruning_section(document)
    curve = points(of_class(markup, "s1 stroke")[0])
    assert [x for x, _ in curve] == sorted(x for x, _ in curve)
    assert len(curve) == len(document["pruning"]["probes"])
    bound = float(of_class(markup, "bound")[0].get("y1"))
    above = [item["share"] > 0.4 for item in sorted(document["pruning"]["probes"], key=lambda item: item["ratio"])]
    assert [y < bound for _, y in curve] == above
    said = words(markup)
    assert "Latency asked for 40 % of the unpruned INT8 model's Latency measured 38.7 % of" in said
    assert "Measured on Some CPU 3000, 2 threads" in said
    assert "stands for no other device" in said


def test_every_layer_has_its_channels_before_and_after():
    """Two bars a layer from the same ground, in the ratio of the counts; the list has every layer; too many are not drawn."""
    layers = [{"name": "a", "before": 64, "after": 16}, {"name": "b", "before": 32, "after": 32}]
    markup = pruning.pruning_section(full_document(pruning__layers=layers))
    heights = {
        kind: [float(element.get("height")) for element in drawn(markup).iter("rect") if element.get("class") == kind]
        for kind in ("s1 band", "s1 fill")
    }
    assert heights["s1 fill"][0] / heights["s1 band"][0] == pytest.approx(0.25, abs=0.001)
    assert heights["s1 fill"][1] == heights["s1 band"][1] == pytest.approx(heights["s1 band"][0] / 2, abs=0.02)
    assert "Channels kept 48 of 96 (50 %), over 2 layers" in words(markup)
    assert "a 64 16 25 % b 32 32 100 %" in words(markup)
    many = [{"name": f"layer {index}", "before": 8, "after": 4} for index in range(pruning.MOST_BARS + 1)]
    markup = pruning.pruning_section(full_document(pruning__layers=many))
    assert not of_class(markup, "s1 band")
    assert "161 layers are too many to draw" in words(markup)
    assert "layer 160 8 4 50 %" in words(markup)
    document = full_document()
    del document["pruning"]["layers"]
    assert "Channels kept" not in words(pruning.pruning_section(document))
    assert "None" not in words(pruning.pruning_section(full_document(pruning__layers=[], pruning__probes=[], pruning__share=None)))


def test_a_training_shows_both_losses_and_the_epoch_that_was_kept():
    """One chart with the curves of train and val, one with the AUC, in each the kept epoch's line."""
    document = full_document(
        training=[
            {"stage": "distill", "best_epoch": 2, "history": [epoch(1, 2.0, 2.5, 0.8), epoch(2, 1.0, 1.5, 0.9), epoch(3, 0.5, 1.7, 0.85)]}
        ]
    )
    markup = training.training_section(document)
    train, val = points(of_class(markup, "s1 stroke")[0]), points(of_class(markup, "s2 stroke")[0])
    auc = points(of_class(markup, "s2 stroke")[1])
    assert [y for _, y in train] == sorted(y for _, y in train)
    assert min(range(3), key=lambda index: -val[index][1]) == 1
    assert min(range(3), key=lambda index: auc[index][1]) == 1
    guides = [float(element.get("x1")) for element in of_class(markup, "guide")]
    assert guides == pytest.approx([val[1][0], auc[1][0]], abs=0.1)
    assert "distill: 3 epochs, epoch 2 kept" in words(markup)
    assert "2 1.0000 1.5000 0.9000 5.0 × 10⁻⁴" in words(markup)


def test_an_epoch_without_a_figure_is_a_gap():
    """No line runs across it; what is never known has no chart; a training of no epoch says so."""
    history = [epoch(1, 1.0, 0.9, None), epoch(2, 0.9, None, None), epoch(3, 0.8, 0.7, None), epoch(4, 0.7, 0.6, None, None)]
    markup = training.training_section(full_document(training=[{"stage": "s", "best_epoch": 4, "history": history}]))
    assert [len(points(element)) for element in of_class(markup, "s1 stroke")] == [4]
    assert [len(points(element)) for element in of_class(markup, "s2 stroke")] == [2]
    assert len(of_class(markup, "s2 dot")) == 3
    assert len(of_class(markup, "chart narrow")) == 1
    assert "None" not in words(markup)
    long = [epoch(number, 1.0, 0.5 if number % 2 else None, None) for number in range(1, training.MOST_DOTS + 10)]
    assert (
        len(of_class(training.training_section(full_document(training=[{"stage": "s", "best_epoch": 1, "history": long}])), "s2 dot")) == 20
    )
    empty = training.training_section(full_document(training=[{"stage": "s", "best_epoch": None, "history": []}]))
    assert "No epoch was trained." in words(empty)


def test_what_val_said_before_the_training_is_epoch_zero():
    """The start has no train loss; weights that were never bettered are said to be kept as they were; why it ended is said."""
    stage = {
        "stage": "recover 1",
        "start": {"val_loss": 0.4, "val_auc": 0.97},
        "epochs": [epoch(1, 1.0, 0.5, 0.96), epoch(2, 0.9, 0.45, 0.965)],
        "best_epoch": 0,
        "stopped": "no better loss on val for 2 epochs",
    }
    markup = training.training_section(full_document(training=[stage]))
    assert [len(points(element)) for element in of_class(markup, "s1 stroke")] == [2]
    assert [len(points(element)) for element in of_class(markup, "s2 stroke")] == [3, 3]
    said = words(markup)
    assert "recover 1: 2 epochs, weights as they were before kept" in said
    assert "Ended: no better loss on val for 2 epochs." in said
    assert "before – 0.4000 0.9700 –" in said


def test_a_rung_that_could_not_be_tried_says_why():
    """It is no row of figures; variants of a rung are told apart, and the maps' likeness has a column where it is known."""
    document = full_document()
    first, second, third = document["ladder"]
    skipped = {**first, "rung": "float-fallback", "variant": "", "status": "skipped: no layer helps", "sufficient": False, "chosen": False}
    for key in (
        "frames",
        "flips",
        "harmful_flips",
        "auc_difference",
        "auc_difference_lower_bound",
        "mean_kl",
        "max_abs_logit",
        "map_likeness",
    ):
        skipped[key] = None
    likeness = {"median": 0.987, "p5": 0.931}
    document["ladder"] = [
        skipped,
        {**first, "map_likeness": likeness},
        {**second, "map_likeness": None},
        {**third, "variant": "2 layers", "map_likeness": likeness},
    ]
    said = words(making.ladder_section(document))
    assert "Not tried float-fallback skipped: no layer helps" in said
    assert "ptq 9 (3.8 %) 4 (1.7 %) −0.0020 −0.0090 0.0040 0.80 0.987, 0.931 no" in said
    assert "maps, p5" in said
    assert "qat: 2 layers, chosen" in said
    assert "“qat: 2 layers” was chosen" in said
    assert "maps, p5" not in words(making.ladder_section(full_document()))
    assert "(240 frames)" in said


def test_layers_that_were_left_in_floating_point_are_listed():
    """Name, type and measured error, worst first as the document has them; none where none was."""
    said = words(making.ladder_section(full_document()))
    assert "2 layers left in floating point" in said
    assert "blocks.0.conv Convolution 0.021 blocks.3.se MatMul 4.0 × 10⁻⁴" in said
    assert "left in floating point" not in words(making.ladder_section(full_document(fallback=None)))


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.open, self.is_balanced = [], set(), [], True
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        self.is_balanced &= bool(self.open) and self.open.pop() == tag


def replaced(value, hostile, keep):
    """Every text of a document turned hostile, but for what the page compares with."""
    if isinstance(value, dict):
        return {key: item if key in keep else replaced(item, hostile, keep) for key, item in value.items()}
    if isinstance(value, list):
        return [replaced(item, hostile, keep) for item in value]
    return hostile if isinstance(value, str) else value


def test_no_text_of_the_document_can_become_markup():
    """Every text of every new key is hostile at once: the page has the same elements and attributes as before."""
    plain = full_document()
    document = full_document()
    for key in ("steps", "operating_point", "subgroups", "pruning", "training", "search", "ensemble", "fallback", "gates", "mcnemar"):
        document[key] = replaced(document[key], "<script>alert('x')</script>\" onload=\"x", {"status", "measure"})
    frames, overlays = report_documents.frames_and_overlays()
    before, after = (Tags(compile_page.render(item, frames, overlays)) for item in (plain, document))
    assert "script" not in after.tags
    assert after.attributes == before.attributes
    assert after.is_balanced
    assert not after.open
    assert "onload=&quot;x" in compile_page.render(document, {})
    label = '<script>" onload="x'
    document = full_document(roc=[{**plain["roc"][0], "label": label}])
    for side in ("reference", "device"):
        document[side]["per_class"][label] = document[side]["per_class"]["malignant"]
    assert "<script>" not in compile_page.render(document, {})


def test_the_whole_page_is_made_of_the_json_report_alone():
    """A stored document gives the same page, which fetches nothing and has no script."""
    document = full_document()
    frames, overlays = report_documents.frames_and_overlays()
    page = compile_page.render(document, frames, overlays)
    assert compile_page.render(json.loads(json.dumps(document, allow_nan=False)), frames, overlays) == page
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    assert "url(" not in page
    assert "None" not in re.sub(r"<style>.*?</style>|<[^>]+>", "", page, flags=re.DOTALL)


def test_what_is_clipped_keeps_its_place():
    """The inner picture covers the plot one to one: its box and its coordinates are the same."""
    area = svg.Area(height=100, width=svg.NARROW)
    inner = ET.fromstring(svg.clipped(area, svg.line(0, 0, 1, 1, "grid")).text)
    box = [float(number) for number in inner.get("viewBox").split()]
    assert box == [float(inner.get(name)) for name in ("x", "y", "width", "height")]
    assert box == [area.left, area.top, area.x_end - area.left, area.y_end - area.top]


def test_a_narrow_chart_fits_a_phone_and_a_wide_one_scrolls():
    """Charts that stand side by side are narrow and say so to the style sheet."""
    mark = svg.line(0, 0, 1, 1, "grid")
    assert 'class="chart narrow"' in svg.chart(svg.Area(height=10, width=svg.NARROW), mark, label="x").text
    wide = svg.chart(svg.Area(height=10), mark, label="x").text
    assert 'class="chart"' in wide
    assert 'viewBox="0 0 720 10"' in wide
