"""The acceptance gates about the class activation map: what the device draws must be what the unquantized network would draw.

The rules are those of `gates`, and:

1. The maps are those of the network that is quantized, before and after. A pruned network or a student has maps of its own; how near they are to the trained
   model's is reported and no gate asks it.
2. A share of one frame in twenty cannot be told on fewer than `FEWEST_GROUPS` groups: within the limit is then *not demonstrated*, and so is beyond it, if a
   single frame makes the difference.
3. A network of random weights draws maps too. Where those pass the gates of likeness, these cannot tell a faithful map from any other, and that is said.
4. A gate that the recipe waives is not there; its figure is in the report.
5. A model without a map has none of these gates; lesions are asked for only where the data manifest names masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.evaluation.fidelity import Fidelity
from edgekit.evaluation.gates import GateResult, GateStatus, nearer_to_the_reference, result, undemonstrated
from edgekit.evaluation.localisation import Localisation
from edgekit.schema.accept import AcceptSpec, CamGate
from edgekit.schema.decode import encode

FEWEST_GROUPS = 20
"""One group in as many is the twentieth that the 5th percentile and the share of peaks are about."""

MORE_GROUPS = f"test frames of at least {FEWEST_GROUPS} groups (patients)"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Likeness:
    """A gate of likeness: the figure of `Fidelity` it is about, the limit of `AcceptSpec`, and what the figure is, in words."""

    gate: CamGate
    figure: str
    limit: str
    words: str
    is_share: bool = False


LIKENESS = (
    _Likeness(gate="cam_pearson", figure="pearson_median", limit="min_cam_pearson", words="the median of Pearson's correlation"),
    _Likeness(gate="cam_pearson_p5", figure="pearson_p5", limit="min_cam_pearson_p5", words="the 5th percentile of Pearson's correlation"),
    _Likeness(gate="cam_overlap", figure="overlap_median", limit="min_cam_overlap", words="the median overlap of the largest tenth"),
    _Likeness(
        gate="cam_peak",
        figure="peak_kept",
        limit="min_cam_peak_kept",
        words="the share of frames whose peak is kept (within one cell, or where FP32 is nearly as high)",
        is_share=True,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomDraw:
    """The maps of the same network with random weights, against its real ones.

    Attributes:
        what: Which weights are random: "head" or "all".
        seed: Of the weights.
        figures: As `fidelity.values` gives them.
    """

    what: str
    seed: int
    figures: Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The control that must fail: networks of random weights.

    Attributes:
        frames: Frames it was made on.
        draws: One a random network.
    """

    frames: int
    draws: tuple[RandomDraw, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapEvidence:
    """What was found out about the maps.

    Attributes:
        fidelity: On `test`, device against the network before quantization.
        residual_share: From `fidelity.residual_share`.
        control: The random networks; None where no control was made.
        localisation: Against masks; None where the data manifest names none.
    """

    fidelity: Fidelity
    residual_share: float | None
    control: Control | None
    localisation: Localisation | None

    def to_json(self) -> dict[str, Any]:
        """Aggregate figures, JSON-ready: no frame is named."""
        return {
            "fidelity": self.fidelity.to_json(),
            "residual_share": self.residual_share,
            "control": encode(self.control),
            "localisation": encode(self.localisation),
        }


def map_gates(spec: AcceptSpec, found: MapEvidence, *, new_network: bool) -> tuple[GateResult, ...]:
    """Holds the maps against the recipe's `[accept]`; waived gates are left out."""
    closer = nearer_to_the_reference(new_network=new_network)
    gates = [_likeness_gate(spec, row, found.fidelity, closer) for row in LIKENESS if row.gate not in spec.waive_cam]
    further = {
        "cam_residual": _residual_gate(spec, found.residual_share),
        "cam_control": _control_gate(spec, found.control),
        "cam_pointing_game": _pointing_gate(spec, found.localisation, closer),
    }
    gates += [gate for name, gate in further.items() if gate is not None and name not in spec.waive_cam]
    return tuple(gates)


def is_alike(spec: AcceptSpec, figures: Mapping[str, float | None]) -> bool:
    """Whether figures of likeness (names of `fidelity.FIGURES`) reach every limit that is not waived; one that is undefined reaches none."""
    held = [row for row in LIKENESS if row.gate not in spec.waive_cam]
    return all((value := figures[row.figure]) is not None and value >= getattr(spec, row.limit) for row in held)


def wants_control(spec: AcceptSpec) -> bool:
    """Whether there is a gate of likeness that a control could fail, and the control is not waived."""
    return "cam_control" not in spec.waive_cam and any(row.gate not in spec.waive_cam for row in LIKENESS)


def _likeness_gate(spec: AcceptSpec, row: _Likeness, found: Fidelity, closer: str) -> GateResult:
    figure, bound = getattr(found, row.figure), getattr(spec, row.limit)
    value = figure.value
    if value is None:
        text = f"Neither FP32's map nor the device's says anything about a place on any of {found.featureless} frames, so they cannot be compared."
        return result(row.gate, None, bound, "failed", (text, '[explain] map = "none", or a model whose map is larger than one cell'))
    form = "{:.1%}" if row.is_share else "{:.3f}"
    spread = "" if figure.low is None else f" (95 % interval {form.format(figure.low)} to {form.format(figure.high)})"
    left_out = f"; {found.featureless} without any structure in either map left out" if found.featureless else ""
    text = (
        f"On {found.frames} frames of {found.groups} groups{left_out}, {row.words} between the device's map and FP32's is {form.format(value)}{spread}, "
        f"{'not below' if value >= bound else 'below'} the least allowed {form.format(bound)}"
    )
    if row.is_share:
        text = text.replace(" between the device's map and FP32's", "")
    status: GateStatus = "passed" if value >= bound else "failed"
    few = found.groups < FEWEST_GROUPS
    if few and (value >= bound or found.spared.get(row.figure, bound - 1) >= bound):
        said = "" if value >= bound else "; a single frame makes the difference"
        text += f"{said}, but {found.groups} groups are too few to tell one frame in {FEWEST_GROUPS}: not demonstrated."
        return undemonstrated(spec, row.gate, value, bound, (text, MORE_GROUPS))
    return result(row.gate, value, bound, status, (f"{text}.", closer))


def _residual_gate(spec: AcceptSpec, value: float | None) -> GateResult:
    bound = spec.max_cam_residual
    if value is None:
        text = "It could not be measured how nearly the maps add up to the logits: there are no frames, or a logit does not vary."
        return result("cam_residual", None, bound, "failed", (text, "more test frames"))
    text = (
        f"The device's maps add up to its logits but for {value:.2%} of the logit's standard deviation at most, "
        f"{'within' if value <= bound else 'more than'} the allowed {bound:.2%}."
    )
    advice = "the head of the map must stay in floating point; please report the architecture"
    return result("cam_residual", value, bound, "passed" if value <= bound else "failed", (text, advice))


def _control_gate(spec: AcceptSpec, control: Control | None) -> GateResult | None:
    if not wants_control(spec):
        return None
    if control is None or not control.draws:
        return result("cam_control", None, 0.0, "failed", ("The control with random weights was not made.", "make it"))
    alike = [draw for draw in control.draws if is_alike(spec, draw.figures)]
    nearest = max((draw.figures["pearson_median"] or 0.0 for draw in control.draws), default=0.0)
    value, count = len(alike) / len(control.draws), len(control.draws)
    if not alike:
        text = (
            f"The same network with random weights, drawn {count} times, passes the gates of likeness never (nearest median of Pearson's correlation "
            f"{nearest:.3f}, {control.frames} frames): they tell this network's maps from others."
        )
        return result("cam_control", value, 0.0, "passed", (text, ""))
    text = (
        f"The same network with random weights, drawn {count} times, passes the gates of likeness {len(alike)} times ({_kinds(alike)}; {control.frames} frames): "
        "on these frames they cannot tell a faithful map from any other, and say nothing."
    )
    advice = "test frames that differ more, higher accept.min_cam_… limits, or a model whose map is finer"
    return undemonstrated(spec, "cam_control", value, 0.0, (text, advice))


def _kinds(draws: Sequence[RandomDraw]) -> str:
    return ", ".join(f"{what} weights" for what in dict.fromkeys(draw.what for draw in draws))


def _pointing_gate(spec: AcceptSpec, found: Localisation | None, closer: str) -> GateResult | None:
    if found is None:
        return None
    name, bound, part = "cam_pointing_game", -spec.cam_pointing_margin, found.pointing
    if part.low is None or part.difference is None or part.reference is None or part.device is None:
        text = "No frame has a lesion mask that can be used, so nothing is known of where the maps point."
        return undemonstrated(spec, name, None, bound, (text, "masks of the lesions in the data manifest"))
    text = (
        f"The peak of the map lies inside the lesion on {part.device:.1%} of {part.frames} frames with a mask on the device and on {part.reference:.1%} with FP32 "
        f"({part.lost} lost, {part.gained} gained); with 97.5 % confidence the difference is more than {part.low:+.4f}"
    )
    if part.status == "demonstrated":
        return result(name, part.low, bound, "passed", (f"{text}, above the allowed {bound:+.4f}: demonstrated to be not worse.", ""))
    if part.status == "worse":
        return result(name, part.low, bound, "failed", (f"{text}. The loss is more than the allowed {-bound:.4f}.", closer))
    needed = "more frames with masks" if part.frames_needed is None else f"about {part.frames_needed} frames with masks"
    return undemonstrated(spec, name, part.low, bound, (f"{text}, not above the allowed {bound:+.4f}: not demonstrated.", needed))
