"""The page of a compile, from documents that the evaluation makes of seeded logits."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from edgekit.catalog.target import EngineChoice, Fact, Target
from edgekit.errors import DataError
from edgekit.evaluation import decision
from edgekit.evaluation.delong import paired_auc_difference
from edgekit.evaluation.evaluate import evaluate
from edgekit.evaluation.gates import apply_gates
from edgekit.evaluation.metrics import Outcomes
from edgekit.evaluation.paired import agreement, compare_answers
from edgekit.profiler.host import fingerprint
from edgekit.report import compile_page
from edgekit.schema.accept import AcceptSpec
from edgekit.schema.decode import encode
from edgekit.schema.model_io import OutputSpec

MULTICLASS = OutputSpec(labels=("benign", "malignant", "normal"), task="multiclass", positive="malignant")
BINARY = OutputSpec(labels=("clear", "pneumonia"), task="binary", positive="pneumonia")
MULTILABEL = OutputSpec(labels=("effusion", "mass", "nodule"), task="multilabel")
LATENCY = {"p50": 3.25, "p90": 4.5, "p95": 5.75, "p99": None, "max": 27.5, "samples": 461}
ENGINE = {"name": "openvino", "version": "2026.4.1", "device": "CPU", "precision": "f32", "threads": "2"}


class Proven:
    """A compile's document and flipped frames, made of seeded logits by the evaluation that the compiler proves with."""

    def __init__(
        self,
        *,
        output=MULTICLASS,
        noise=0.05,
        frames=120,
        accept=None,
        file="case-{}.png",
        truth=None,
        rungs=("ptq",),
        cam=True,
        notes=(),
        channels=1,
        size=16,
    ):
        random = np.random.default_rng(7)
        labels = output.labels
        if truth is None:
            present = random.random((frames, len(labels))) < 0.3 if output.task == "multilabel" else np.eye(len(labels), dtype=bool)
            truth = present if output.task == "multilabel" else present[np.arange(frames) % len(labels)]
        logits = (truth * 3.0 + random.normal(0, 1.2, truth.shape) - (1.5 if output.task == "multilabel" else 0)).astype(np.float32)
        device = (logits + random.normal(0, noise, truth.shape)).astype(np.float32)
        if output.task == "binary":
            logits, device = (values[:, 1:] - values[:, :1] for values in (logits, device))
        thresholds = dict.fromkeys(labels, 0.4375) if output.task == "multilabel" else {output.positive: 0.4375} if output.positive else {}
        self.output, self.truth, self.files = output, truth, [file.format(index) for index in range(len(truth))]
        self.groups = [f"patient-{index // 2}" for index in range(len(truth))]
        self.before, self.after = (_outcomes(values, truth, output, thresholds) for values in (logits, device))
        self.flips = compare_answers(self.before.answers, self.after.answers, truth, output)
        tensors = random.integers(0, 256, (frames, size, size, channels), dtype=np.uint8)
        self.frames = {
            self.files[index]: tensors[index].squeeze(axis=-1) if channels == 1 else tensors[index] for index in self.flips.indices
        }
        accept = accept or AcceptSpec(auc_margin=0.05, max_flips=0.5, max_harmful_flips=0.5)
        difference = paired_auc_difference(self.before, self.after, groups=self.groups)
        gates = apply_gates(accept, difference, self.flips)
        agreed = agreement(*(decision.logits_by_label(values, output) for values in (logits, device)), output, outputs=logits.shape[1])
        accepted = all(gate.passed for gate in gates)
        self.document = {
            "accepted": accepted,
            "gates": encode(gates),
            "reference": evaluate(self.before, groups=self.groups).to_json(),
            "device": evaluate(self.after, groups=self.groups).to_json(),
            "name": "tiny",
            "version": "1.2",
            "target": encode(TARGET),
            "task": output.task,
            "positive": output.positive,
            "source": "timm",
            "rung": rungs[-1],
            "precision": "int8",
            "ladder": [
                _rung(rung, self.flips, difference, agreed, sufficient=rung == rungs[-1] and noise < 1, chosen=rung == rungs[-1])
                for rung in rungs
            ],
            "auc_difference": encode(difference),
            "test_agreement": encode(agreed),
            "flips": [self._flip(index) for index in self.flips.indices],
            "cam": {
                "rows": 7 if cam else 0,
                "columns": 9 if cam else 0,
                "reason": "" if cam else "the head is not a pooled linear one",
                "largest_residual": 9.5e-7 if cam else None,
            },
            "thresholds": thresholds,
            "data": {
                "train": {label: int(truth[:40, column].sum()) for column, label in enumerate(labels)},
                "test": {label: int(truth[:, column].sum()) for column, label in enumerate(labels)},
            },
            "calibration_frames": 30,
            "notes": list(notes),
            "host": encode(fingerprint()),
            "bundles": ["/somewhere/private/tiny.edgekit"] if accepted or not accept.enforce else [],
            "size_bytes": 4_219_309,
            "stages": [{"name": "load", "cached": True, "seconds": 0.25}, {"name": "quantize ptq", "cached": False, "seconds": 12.5}],
            "latency_ms": LATENCY,
            "engines": [ENGINE_ROW],
            "oracle": None,
            "engine": ENGINE,
        }

    def _flip(self, index):
        def named(row):
            return [label for label, chosen in zip(self.output.labels, row, strict=True) if chosen]

        kind = "harmful" if index in self.flips.harmful else "helpful" if index in self.flips.helpful else "neither"
        return {
            "file": self.files[index],
            "group": self.groups[index],
            "kind": kind,
            "truth": named(self.truth[index]),
            "reference": named(self.before.answers[index]),
            "device": named(self.after.answers[index]),
            "reference_probability": float(self.before.probability[index].max()),
            "device_probability": float(self.after.probability[index].max()),
        }

    def page(self):
        return compile_page.render(self.document, self.frames)


def _outcomes(logits, truth, output, thresholds):
    probability = decision.probabilities(decision.logits_by_label(logits, output), output, outputs=logits.shape[1])
    return Outcomes(probability=probability, truth=truth, output=output, thresholds=thresholds)


def _rung(name, flips, difference, agreed, *, sufficient, chosen):
    return {
        "rung": name,
        "title": TITLES[name],
        "frames": flips.frames,
        "flips": len(flips.indices),
        "harmful_flips": len(flips.harmful),
        "auc_difference": difference.difference,
        "auc_difference_lower_bound": difference.lower_bound,
        "mean_kl": agreed.mean_kl,
        "max_abs_logit": agreed.max_abs_logit,
        "sufficient": sufficient,
        "chosen": chosen,
    }


ENGINE_ROW = {
    "name": "openvino",
    "rung": "ptq",
    "precision": "int8",
    "oracle": False,
    "accepted": True,
    "failed_gates": [],
    "auc": 0.97,
    "auc_lower_bound": -0.004,
    "frames": 240,
    "flips": 3,
    "harmful_flips": 1,
    "cam": {"median": 0.99, "p5": 0.95},
    "size_bytes": 4_300_000,
    "reason": "",
    "float32_operators": 0,
    "findings": [],
}

TITLES = {"ptq": "post-training quantization", "ptq-full": "post-training quantization, histogram ranges, full bias correction"}
TARGET = Target(
    name="x86-64",
    title="x86-64 CPU",
    architectures=("x86_64",),
    engines=(EngineChoice(name="openvino", settings={"NUM_STREAMS": "1"}),),
    facts=(Fact(statement="INT8 is fast.", source="a manual"),),
)

GOOD = Proven()
HARMED = Proven(noise=1.0, frames=240, rungs=("ptq", "ptq-full"), accept=AcceptSpec())


def words(page):
    """The page's text, without markup, its numbers as they are read."""
    found = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", found).replace("\u202f", " ").replace("&#x27;", "'").replace("&quot;", '"')


def part(page, title):
    """The words of one section."""
    return words(re.search(rf"<section><h2>{re.escape(title)}</h2>.*?</section>", page, flags=re.DOTALL)[0])


def changed(proven, **changes):
    """A copy of a document with dotted keys (double underscores) set."""
    document = copy.deepcopy(proven.document)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = document
        for parent in parents:
            place = place[parent]
        place[last] = value
    return document


def minus(number, digits, *, signed=False):
    return f"{number:{'+' if signed else ''}.{digits}f}".replace("-", "−")


class Markup(HTMLParser):
    """Tags in order, their attributes, and whether they close in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.attributes, self.is_balanced = [], [], [], True
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        self.is_balanced &= bool(self.open) and self.open.pop() == tag


SPARED = Proven(noise=1.0, accept=AcceptSpec(enforce=False, auc_margin=0.5, max_flips=0.9))
ACCEPTED = "Accepted. All 3 gates passed on the 120 frames of 60 groups of the split test"
REFUSED = (
    "Refused. 3 of 3 gates failed on the 240 frames of 120 groups of the split test: loss of AUC, right answers made wrong, changed answers. "
    "No bundle was written."
)
WRITTEN = (
    "Written although refused. 1 of 3 gates failed on the 120 frames of 60 groups of the split test: right answers made wrong. "
    "The recipe says enforce = false"
)


@pytest.mark.parametrize(("proven", "verdict"), [(GOOD, ACCEPTED), (HARMED, REFUSED), (SPARED, WRITTEN)])
def test_the_verdict_stands_first_and_says_why(proven, verdict):
    """Accepted, refused, and written although refused are three different sentences, before everything else."""
    found = words(proven.page())
    assert verdict in found
    assert found.index(verdict) < found.index("ΔAUC") < found.index("Acceptance gates")


def test_the_parts_come_in_the_order_they_are_judged_in():
    """Gates, evidence, then how it was made."""
    titles = re.findall(r"<h2>(.*?)</h2>", GOOD.page())
    assert titles == [
        "Acceptance gates",
        "FP32 against device",
        "Difference, frame by frame",
        "Confusion matrices",
        "Per class",
        "Changed answers",
        "Quantization ladder",
        "Class activation map",
        "Latency on this host, and size",
        "Data",
        "Notes",
        "Stages",
        "Device and host",
    ]


@pytest.mark.parametrize("proven", [GOOD, HARMED])
def test_a_gate_shows_its_value_its_bound_its_result_and_its_reason(proven):
    """A gate is judged from its own line."""
    found = part(proven.page(), "Acceptance gates")
    auc, harmful, flips = proven.document["gates"]
    result = {True: "passed", False: "failed"}
    assert (
        f"{result[auc['passed']]} {minus(auc['value'], 4, signed=True)} above {minus(auc['bound'], 4)} Loss of AUC {auc['explanation']}"
        in found
    )
    for gate, title in ((harmful, "Right answers made wrong"), (flips, "Changed answers")):
        line = f"{result[gate['passed']]} {100 * gate['value']:.2f} % at most {100 * gate['bound']:.2f} % {title} {gate['explanation']}"
        assert line in found


def test_a_value_just_beyond_its_bound_does_not_look_equal_to_it():
    """1.0001 % against 1 % is written with the digits that make the difference."""
    document = changed(GOOD)
    document["gates"][1] |= {"value": 0.010001, "bound": 0.01, "passed": False}
    document["gates"][0] |= {"value": -0.05000004, "bound": -0.05, "passed": False}
    found = part(compile_page.render(document, {}), "Acceptance gates")
    assert "failed 1.0001 % at most 1.0000 %" in found
    assert "failed −0.05000004 above −0.05000000" in found


@pytest.mark.parametrize("proven", [GOOD, HARMED])
def test_every_figure_of_both_sides_has_its_interval(proven):
    """The table holds the nine figures of FP32 and device, and their difference."""
    found = part(proven.page(), "FP32 against device")
    for name in ("accuracy", "auc", "balanced_accuracy", "ece", "f1", "precision", "recall", "sensitivity", "specificity"):
        before, after = proven.document["reference"][name], proven.document["device"][name]
        written = " ".join(f"{item['value']:.3f} {item['low']:.3f} to {item['high']:.3f}" for item in (before, after))
        assert f"{written} {minus(round(after['value'] - before['value'], 4) or 0.0, 4, signed=after['value'] != before['value'])}" in found
    assert "respect the groups" in found
    assert "“malignant” at its threshold 0.438" in found


def test_the_chart_pairs_fp32_with_the_device():
    """Eight figures with two whiskers each; the calibration error, where smaller is better, is not among them."""
    chart = re.search(r"<h2>FP32 against device</h2>.*?</svg>", HARMED.page(), flags=re.DOTALL)[0]
    assert len(re.findall(r'class="s1 stroke"', chart)) == len(re.findall(r'class="s2 stroke"', chart)) == 8
    assert "ECE" not in chart


def test_the_difference_names_its_bound_its_method_and_its_reason():
    """DeLong where it holds, else what took its place and why."""
    found = part(HARMED.page(), "Difference, frame by frame")
    difference = HARMED.document["auc_difference"]
    assert difference["method"] == "delong"
    assert f"Lower bound (one-sided, 97.5 %) {minus(difference['lower_bound'], 4)} Method paired DeLong" in found
    assert f"Standard errors to the bound {difference['quantile']:.2f}" in found
    assert "cannot show" not in found
    assert f"AUC, FP32 → device {difference['reference_auc']:.4f} → {difference['device_auc']:.4f}" in found
    few = Proven(frames=12)
    assert few.document["auc_difference"]["method"] == "bootstrap"
    found = part(few.page(), "Difference, frame by frame")
    assert "the lower of a paired bootstrap's percentile over groups and DeLong's bound with Student's quantile" in found
    assert "Standard errors to the bound" not in found
    assert few.document["auc_difference"]["reason"] in found


def test_a_difference_without_spread_has_no_bound_of_nothing():
    """Equal models: what sixty patients may hide is taken off the bound, and said."""
    same = Proven(noise=0.0)
    difference = same.document["auc_difference"]
    assert difference["lower_bound"] == 0
    found = part(same.page(), "Difference, frame by frame")
    hidden = 1 - 0.025 ** (1 / difference["fewest_groups"])
    assert f"Lower bound (one-sided, 97.5 %) {minus(-hidden, 4)}" in found
    assert f"of the {difference['fewest_groups']} groups of the rarer outcome none fell, so up to {100 * hidden:.2f} %" in found
    assert "Not demonstrated" in same.page()


def test_what_is_undefined_is_said_and_not_drawn():
    """Test frames of one class have no AUC: the page says so, and refuses."""
    proven = Proven(frames=12, truth=np.tile([True, False, False], (12, 1)))
    page = proven.page()
    assert "Refused." in words(page)
    assert "failed undefined above" in part(page, "Acceptance gates")
    assert "AUC undefined undefined undefined" in part(page, "FP32 against device")
    assert "Undefined on these frames and not drawn: AUC" in part(page, "FP32 against device")
    assert "AUC, FP32 → device undefined → undefined" in part(page, "Difference, frame by frame")
    assert "None" not in words(page)
    assert not re.search(r"\bnan\b", words(page), flags=re.IGNORECASE)


def test_the_confusion_matrices_stand_side_by_side():
    """Both counts are there, FP32 first, in one row of columns."""
    page = HARMED.page()
    block = re.search(r"<h2>Confusion matrices</h2>.*?</section>", page, flags=re.DOTALL)[0]
    tables = re.findall(r"<table.*?</table>", block, flags=re.DOTALL)
    assert 'class="columns"' in block
    assert HARMED.document["reference"]["confusion"] != HARMED.document["device"]["confusion"]
    for found, side, title in zip(tables, ("reference", "device"), ("FP32", "device"), strict=True):
        counts = [int(number) for number in re.findall(r"<td[^>]*>(\d+)<", found)]
        assert counts == np.ravel(HARMED.document[side]["confusion"]["value"]).tolist()
        assert f"<caption>{title}</caption>" in found


def test_a_multilabel_model_shows_the_four_counts_of_every_label():
    """Hits, missed, false alarms and the rest, from tables that hold absent before present."""
    proven = Proven(output=MULTILABEL, noise=0.8)
    page = proven.page()
    for side, title in (("reference", "FP32"), ("device", "device")):
        (absent, false), (missed, hits) = proven.document[side]["confusion"]["value"][0]
        table = words(re.search(rf"<caption>{title}</caption>.*?</table>", page, flags=re.DOTALL)[0])
        assert f"{title} label hits missed false alarms rightly absent effusion {hits} {missed} {false} {absent} " in table
    assert "means over the labels that are both present and absent" in part(page, "FP32 against device")
    assert "effusion 0.438, mass 0.438, nodule 0.438" in part(page, "Device and host")


@pytest.mark.parametrize("output", [MULTICLASS, BINARY, MULTILABEL, OutputSpec(labels=("a", "b"), task="multiclass")])
def test_every_class_of_every_task_has_its_line(output):
    """Support and five figures a label for FP32 and device."""
    proven = Proven(output=output, noise=0.8)
    found = part(proven.page(), "Per class")
    for label in output.labels:
        for side, title in (("reference", "FP32"), ("device", "device")):
            item = proven.document[side]["per_class"][label]
            figures = " ".join(
                f"{item[name]['value']:.3f} {item[name]['low']:.3f} to {item[name]['high']:.3f}"
                for name in ("auc", "sensitivity", "specificity", "precision", "f1")
            )
            assert f"{label} {title} {item['support']} {figures}" in found


def test_flips_are_counted_by_kind_and_by_group():
    """Totals are those of the document."""
    found = part(HARMED.page(), "Changed answers")
    flips = HARMED.document["flips"]
    for kind, meaning in (("harmful", "FP32 right, device wrong"), ("helpful", "FP32 wrong, device right"), ("neither", "both wrong")):
        of_kind = [flip for flip in flips if flip["kind"] == kind]
        groups = len({flip["group"] for flip in of_kind})
        assert re.search(rf"{kind}: {meaning}[^0-9]* {len(of_kind)} {len(of_kind) / 2.4:.2f} % {groups} ", found)
    assert f"all {len(flips)} {len(flips) / 2.4:.2f} %" in found


def test_every_flipped_frame_shows_what_both_said():
    """Picture, truth, both answers with their probability, file and group."""
    page = HARMED.page()
    cards = [words(card) for card in re.findall(r"<figure.*?</figure>", page, flags=re.DOTALL)]
    assert len(cards) == len(HARMED.document["flips"]) == page.count('src="data:image/png;base64,')
    for flip in HARMED.document["flips"]:
        before, after = flip["reference"][0], flip["device"][0]
        line = (
            f"{flip['kind']} truth {flip['truth'][0]} FP32 {before} ({flip['reference_probability']:.2f}) "
            f"device {after} ({flip['device_probability']:.2f}) {flip['file']} group {flip['group']}"
        )
        assert line in " ".join(" ".join(cards).split())


def test_harmful_flips_come_first_and_the_rest_is_counted():
    """Of many flips sixty are shown, harmful ones before others, the surest first; the page says which are not."""
    proven = Proven(noise=3.0, frames=240)
    flips = proven.document["flips"]
    harmful = sorted((flip for flip in flips if flip["kind"] == "harmful"), key=lambda flip: -flip["device_probability"])
    assert len(flips) > len(harmful) > 60
    page = proven.page()
    shown = re.findall(r"case-\d+\.png", words("".join(re.findall(r"<figure.*?</figure>", page, flags=re.DOTALL))))
    assert shown == [flip["file"] for flip in harmful[:60]]
    hidden = len(harmful) - 60
    assert f"{len(flips) - 60} further frames ({hidden} harmful, " in part(page, "Changed answers")


def test_a_helpful_flip_never_stands_before_a_harmful_one():
    """The order is harmful, neither, helpful."""
    kinds = re.findall(r"<figcaption><strong[^>]*>(\w+)<", Proven(noise=2.0, frames=150).page())
    assert set(kinds) == {"harmful", "neither", "helpful"}
    assert kinds == sorted(kinds, key=("harmful", "neither", "helpful").index)


def test_without_flips_nothing_is_shown():
    """No picture, and no warning about pictures that are not there."""
    proven = Proven(noise=0.0)
    page = proven.page()
    assert "No answer changed on these frames" in part(page, "Changed answers")
    assert "<img" not in page
    assert "this page shows no patient image" in words(page)


def test_a_flip_without_pixels_is_still_shown():
    """A stored document can be shown where the frames are no longer there."""
    page = compile_page.render(HARMED.document, {})
    assert page.count("no picture") == len(HARMED.document["flips"])


def test_colour_frames_are_shown_and_broken_ones_refused():
    """RGB pixels become pictures; an array that is none is an error of the data."""
    proven = Proven(noise=1.0, channels=3)
    assert proven.page().count("<img") == len(proven.document["flips"])
    name = proven.document["flips"][0]["file"]
    with pytest.raises(DataError, match="uint8"):
        compile_page.render(proven.document, {name: np.zeros((4, 4), np.float32)})


def test_the_ladder_says_which_rung_was_chosen_and_why():
    """The first sufficient rung, or the nearest where none was."""
    found = part(Proven(noise=0.05, rungs=("ptq", "ptq-full")).page(), "Quantization ladder")
    assert "“ptq-full” was chosen: it is the first rung" in found
    assert re.search(r" ptq \d+ \([\d.]+ %\).* no ptq-full, chosen .* yes ", found)
    assert "post-training quantization, histogram ranges, full bias correction" in found
    found = part(HARMED.page(), "Quantization ladder")
    assert "No rung was sufficient on val; “ptq-full” was chosen because its answers are nearest" in found


def test_the_map_is_described_or_its_absence_explained():
    """Size and largest deviation, or the reason why there is none."""
    found = part(GOOD.page(), "Class activation map")
    assert "7 rows × 9 columns" in found
    assert "Largest deviation 9.5 × 10⁻⁷" in found
    found = part(Proven(cam=False).page(), "Class activation map")
    assert "no map, because the head is not a pooled linear one" in found
    assert "rows" not in found


def test_latency_belongs_to_the_host_it_was_measured_on():
    """The machine is named, a percentile of too few samples is undefined, size is in bytes."""
    page = compile_page.render(changed(GOOD, host__device_model=None, host__cpu_model="Some CPU 3000"), GOOD.frames)
    found = part(page, "Latency on this host, and size")
    assert "Measured on the host of this compile, Some CPU 3000, with openvino 2026.4.1 on CPU in f32, 2 threads" in found
    assert "It stands for no other device" in found
    assert "median 3.25 ms p90 4.50 ms p95 5.75 ms p99 undefined 461 samples are too few for it largest 27.5 ms" in found
    assert "4 219 309 bytes" in found
    none = changed(GOOD, latency_ms={**dict.fromkeys(("p50", "p90", "p95", "p99")), "max": 2.0, "samples": 3})
    assert "Latency, median undefined on" in words(compile_page.render(none, GOOD.frames))


def test_data_stages_notes_and_versions_are_listed():
    """What an engineer needs to repeat it."""
    page = Proven(notes=("the softmax was removed",)).page()
    assert "train 14 13 13 40 test 40 40 40 120" in part(page, "Data")
    assert "Calibration 30 frames, never of val or test" in part(page, "Data")
    assert "the softmax was removed" in part(page, "Notes")
    assert "Nothing about the model" in part(GOOD.page(), "Notes")
    assert "load 0.2 from the cache quantize ptq 12.5 made all 12.8" in part(page, "Stages")
    host = part(page, "Device and host")
    for text in (f"numpy {np.__version__}", "x86-64: x86-64 CPU", "NUM_STREAMS = 1", "INT8 is fast. (a manual)", "malignant 0.438"):
        assert text in host


def test_frames_of_several_labels_are_not_summed_up():
    """A total over labels would count a multilabel frame twice."""
    found = part(Proven(output=MULTILABEL).page(), "Data")
    assert "split effusion mass nodule train" in found
    assert "counts for each of them" in found


def test_what_the_page_must_not_leave_open_is_said():
    """Patient images, no travel, no clearance, groups."""
    found = words(HARMED.page())
    for text in (
        "this page shows thumbnails and file names of patient images",
        "must not travel with the bundle",
        "edgekit claims no clearance as a medical device",
        "drawn over whole groups, never over single frames",
        "these are images of patients",
    ):
        assert text in found


def test_labels_files_and_reasons_can_never_become_markup():
    """Hostile text of every source is escaped, and adds no element and no attribute."""
    hostile = "<script>alert('x')</script>\" onerror=\"x"
    output = OutputSpec(labels=(hostile + "1", hostile + "2", "normal"), task="multiclass", positive=hostile + "1")
    plain = Proven(noise=1.0, cam=False, notes=("n",))
    proven = Proven(noise=1.0, cam=False, output=output, file="{}" + hostile, notes=(hostile,))
    document = changed(
        proven,
        name=hostile,
        version=hostile,
        rung=hostile,
        precision=hostile,
        source=hostile,
        bundles=[hostile],
        target__title=hostile,
        target__engines=[{"name": hostile, "settings": {hostile: hostile}}],
        cam__reason=hostile,
        auc_difference__method=hostile,
        auc_difference__reason=hostile,
        host__cpu_model=hostile,
        engine__version=hostile,
    )
    for place in (*document["gates"], *document["flips"], *document["ladder"], *document["stages"]):
        place |= {key: hostile for key, value in place.items() if isinstance(value, str) and key not in ("kind", "file", "rung")}
    page = compile_page.render(document, proven.frames)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 40
    markup = Markup(page)
    assert set(markup.tags) == set(Markup(plain.page()).tags)
    assert {name for _, name, _ in markup.attributes} == {name for _, name, _ in Markup(plain.page()).attributes}
    assert page.count("<img") == len(document["flips"])


@pytest.mark.parametrize("proven", [GOOD, HARMED, Proven(output=MULTILABEL, noise=0.8)])
def test_the_page_is_whole_and_refers_to_nothing_outside_itself(proven):
    """Every element is closed in order; pictures are data, styles inline, and nothing is fetched."""
    page = proven.page()
    markup = Markup(page)
    assert markup.is_balanced
    assert not markup.open
    assert "http" not in page.replace("http-equiv", "")
    assert not {"script", "link", "iframe", "a"} & set(markup.tags)
    assert all(value.startswith("data:image/png;base64,") for _, name, value in markup.attributes if name == "src")
    assert "url(" not in page
    assert "default-src &#x27;none&#x27;" in page


def test_the_page_comes_from_the_document_alone():
    """A stored JSON report gives the same page, and the folder of the bundle is not on it."""
    stored = json.loads(json.dumps(GOOD.document, allow_nan=False))
    page = GOOD.page()
    assert compile_page.render(stored, GOOD.frames) == page
    assert "tiny.edgekit" in page
    assert "private" not in page


def test_what_did_not_run_is_said_first():
    """An artefact of the numerical oracle is not called proven on a device, and has no latency."""
    findings = [{"rule": "F4", "severity": "warning"}, {"rule": "S1", "severity": "info"}]
    jetson = {**ENGINE_ROW, "name": "tensorrt-int8", "oracle": True, "findings": findings, "float32_operators": 2}
    missing = {**ENGINE_ROW, "name": "tensorrt-fp16", "reason": "an operator is not there", "accepted": False}
    refused = {**ENGINE_ROW, "name": "onnxruntime", "accepted": False, "failed_gates": ["flips", "net_harm"], "cam": None}
    document = changed(
        GOOD,
        oracle="the stand-in",
        engines=[jetson, missing, refused],
        latency_ms={"p50": None, "p90": None, "p95": None, "p99": None, "max": None, "samples": 0},
        engine__name="tensorrt-int8",
    )
    said = words(compile_page.render(document, GOOD.frames))
    assert "tensorrt-int8 did not run: what is called “device” on this page was computed by the stand-in" in said
    assert "to be measured on the device" in said
    assert "Not measured: tensorrt-int8 does not run on the host of this compile" in said
    assert "refused: flips, net_harm" in said
    assert "warnings of the rules F4; 2 operators in float32" in said
    assert "left out: an operator is not there" in said
    assert "numerics-checked, not device-verified" in said
    assert "did not run" not in words(compile_page.render(changed(GOOD), GOOD.frames))
