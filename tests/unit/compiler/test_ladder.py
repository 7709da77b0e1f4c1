"""Which rung of the ladder is taken, on synthetic logits; and the two checks before it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from network_builders import binary_spec, model_spec

from edgekit.catalog.recipe import Expected
from edgekit.compiler import ladder
from edgekit.compiler.checks import EXPORT_TOLERANCE, check_above_chance, check_expected, check_export, check_meaning
from edgekit.compiler.progress import Silent
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.measure import Measured
from edgekit.compiler.stages.quantize import Artefact
from edgekit.errors import CatalogError, ModelError
from edgekit.evaluation.dataset import Sample
from edgekit.evaluation.intervals import Figure
from edgekit.evaluation.temperature import Temperature
from edgekit.schema.accept import AcceptSpec
from edgekit.schema.model_io import OutputSpec

OUTPUT = OutputSpec(labels=("a", "b", "c"), task="multiclass")
UNFITTED = Temperature(value=1.0, frames=0, nll_before=None, nll_after=None, ece_before=0.0, ece_after=0.0, reason="not asked for")
ARTEFACT = Artefact(files={}, sha256="", precision="int8", outputs=3)
GATES = AcceptSpec(auc_margin=0.01, max_harmful_flips=0.01)


def split_of(truth, *, labels=3):
    """A split with these right answers, one patient a frame."""
    samples = tuple(
        Sample(path=None, file=f"{index}", labels=(), split="val", group=f"p{index}", mask=None, extra={}, line=index)
        for index in range(len(truth))
    )
    return PreparedSplit(
        tensors=np.zeros((len(truth), 1, 1, 1), dtype=np.uint8), truth=np.eye(labels, dtype=bool)[truth], samples=samples, sha256=""
    )


class World:
    """A reference that is right on most frames, and rungs that differ from it by as much as they are told."""

    def __init__(self, frames=1000, seed=0):
        self.random = np.random.default_rng(seed)
        truth = self.random.integers(0, 3, frames)
        self.split = split_of(truth)
        self.reference = self.random.normal(size=(frames, 3)).astype(np.float32)
        self.reference[np.arange(frames), truth] += 2
        self.tried, self.told, self.made = [], [], []

    def device(self, *, flips=0, noise=0.0):
        """The reference's logits with noise, and with the two best of `flips` frames exchanged."""
        logits = self.reference + noise * self.random.normal(size=self.reference.shape).astype(np.float32)
        for index in range(flips):
            best, second = np.argsort(-logits[index])[:2]
            logits[index, [best, second]] = logits[index, [second, best]]
        return logits

    def yardstick(self, exact=None):
        exact = Measured(logits=self.reference, maps=None) if exact is None else exact
        return ladder.Yardstick(reference=self.reference, exact=exact, split=self.split, output=OUTPUT, thresholds={}, temperature=UNFITTED)

    def climb(self, rungs, accept=GATES, *, max_flips=0.02):
        """Climbs a table of rung to logits, to a reason to skip, or to a table of variant to logits."""

        def attempt(rung, tried):
            self.tried.append(rung)
            self.told.append([result.rung for result in tried])
            found = rungs[rung]
            if isinstance(found, str):
                yield ladder.Skipped(rung=rung, reason=found)
                return
            for label, logits in (found if isinstance(found, dict) else {"": found}).items():
                self.made.append(label or rung)
                yield ladder.Variant(label=label, artefact=ARTEFACT, measured=Measured(logits=logits, maps=None))

        return ladder.climb(tuple(rungs), attempt, self.yardstick().compare, accept, max_flips)


def test_the_first_rung_that_suffices_is_taken():
    """Later rungs are not even made, though they would be nearer."""
    world = World()
    chosen, tried = world.climb({"ptq": world.device(noise=0.01), "ptq-full": world.device(), "float": world.device()})
    assert (chosen.rung, chosen.sufficient) == ("ptq", True)
    assert world.tried == ["ptq"]
    assert tried == (chosen,)


def test_a_rung_that_flips_too_much_is_climbed_over():
    """Three percent of flips where two are allowed."""
    world = World()
    chosen, tried = world.climb({"ptq": world.device(flips=30), "ptq-full": world.device(), "float": world.device()})
    assert chosen.rung == "ptq-full"
    assert [result.sufficient for result in tried] == [False, True]
    assert world.tried == ["ptq", "ptq-full"]


def test_the_order_is_the_recipes():
    """Not the table's."""
    world = World()
    assert world.climb({"float": world.device(), "ptq": world.device()})[0].rung == "float"


def test_where_none_suffices_the_nearest_is_taken():
    """By mean KL divergence: a rung with more flips and nearer probabilities wins over the reverse."""
    world = World()
    far = world.device(flips=25, noise=1.5)
    near = world.device(flips=30)
    chosen, tried = world.climb({"ptq": far, "ptq-full": near, "float": world.device(flips=200)})
    divergence = {result.rung: result.comparison.agreement.mean_kl for result in tried}
    assert chosen.rung == min(divergence, key=divergence.get) == "ptq-full"
    assert not chosen.sufficient
    assert len(tried) == 3


def test_a_lower_bound_of_the_auc_that_is_too_low_is_climbed_over():
    """Few answers flip where the scores of the frames that are right lose their order."""
    world = World()
    blurred = world.reference * np.where(np.arange(1000) % 2, 0.02, 1).astype(np.float32)[:, None]
    comparison = ladder.compare(world.reference, blurred, world.split, OUTPUT, {})
    assert comparison.flips.indices == ()
    assert comparison.auc.lower_bound < -0.01
    assert world.climb({"ptq": blurred, "float": world.device()})[0].rung == "float"
    assert world.climb({"ptq": blurred, "float": world.device()}, AcceptSpec(auc_margin=0.5))[0].rung == "ptq"


# No flip among n frames still allows 1 − 0.05^(1/n) with 95 % confidence: 1 % needs 299 frames.
@pytest.mark.parametrize(("frames", "first"), [(77, False), (298, False), (299, True)])
def test_a_small_split_must_show_more_than_luck(frames, first):
    """Counting alone would take any rung that happens to flip nothing."""
    world = World(frames)
    chosen, tried = world.climb({"ptq": world.device(), "ptq-full": world.device()})
    assert tried[0].sufficient is first
    assert len(tried) == (1 if first else 2)
    assert chosen.rung == "ptq"  # both are equal to the reference, and the first of equals wins


def test_harmful_flips_have_their_own_limit():
    """Eight harmful flips of a thousand may be 1.4 % with 95 % confidence, which is below the limit of all flips and above theirs."""
    world = World()
    right = np.flatnonzero(world.reference.argmax(1) == world.split.truth.argmax(1))[:8]
    wrong = world.device()
    for index in right:
        best, second = np.argsort(-wrong[index])[:2]
        wrong[index, [best, second]] = wrong[index, [second, best]]
    assert not world.climb({"ptq": wrong}, AcceptSpec(auc_margin=0.5, max_harmful_flips=0.01))[0].sufficient
    assert world.climb({"ptq": wrong}, AcceptSpec(auc_margin=0.5, max_harmful_flips=0.02))[0].sufficient


def test_a_comparison_counts_what_changed():
    """The flips of the synthetic device, each of them, and the largest change of a logit."""
    world = World()
    device = world.device(flips=5)
    device[7, 0] += 0.25
    found = ladder.compare(world.reference, device, world.split, OUTPUT, {})
    assert found.flips.frames == 1000
    assert set(found.flips.indices) >= set(range(5))
    assert found.agreement.max_abs_logit == pytest.approx(np.abs(device - world.reference).max())
    assert found.agreement.mean_kl > 0


def test_the_share_of_flips_is_the_callers():
    """A new network is allowed more than the trained one, whatever the recipe's gates hold by default."""
    world = World()
    harmless = world.device()
    wrong = np.flatnonzero(world.reference.argmax(1) != world.split.truth.argmax(1))[:30]
    for index in wrong:  # from one wrong answer to another or to the right one
        best, second = np.argsort(-harmless[index])[:2]
        harmless[index, [best, second]] = harmless[index, [second, best]]
    rungs, wide = {"ptq": harmless}, AcceptSpec(auc_margin=0.5)
    assert not world.climb(rungs, wide, max_flips=0.02)[0].sufficient
    assert world.climb(rungs, wide, max_flips=0.05)[0].sufficient


def test_variants_are_tried_like_rungs():
    """Until one suffices; the ones behind it are not made."""
    world = World()
    several = {"1 layer": world.device(flips=30), "2 layers": world.device(flips=1), "4 layers": world.device()}
    chosen, tried = world.climb({"ptq": world.device(flips=40), "float-fallback": several, "float": world.device()})
    assert (chosen.rung, chosen.label, chosen.sufficient) == ("float-fallback", "2 layers", True)
    assert world.made == ["ptq", "1 layer", "2 layers"]
    assert [(result.rung, result.label) for result in tried] == [("ptq", ""), ("float-fallback", "1 layer"), ("float-fallback", "2 layers")]


def test_the_nearest_may_be_any_variant():
    """Where none suffices, neither the last nor the last rung's is taken for being last."""
    world = World()
    several = {"1 layer": world.device(flips=35), "2 layers": world.device(flips=30), "4 layers": world.device(flips=40)}
    chosen, tried = world.climb({"ptq": world.device(flips=50), "float-fallback": several, "ptq-full": world.device(flips=60)})
    divergence = {result.label or result.rung: result.comparison.agreement.mean_kl for result in tried}
    assert chosen.label == min(divergence, key=divergence.get) == "2 layers"
    assert not chosen.sufficient
    assert len(tried) == 5


def test_a_rung_is_told_what_was_tried_before():
    """Not what was skipped."""
    world = World()
    world.climb({"ptq": world.device(flips=40), "ptq-no-smoothquant": "no attention", "float-fallback": world.device()})
    assert world.told == [[], ["ptq"], ["ptq"]]


def test_a_skipped_rung_is_reported_and_never_chosen():
    """With why; the rows of the report keep the order of the ladder, and all have the same keys."""
    world = World()
    chosen, tried = world.climb({"ptq-no-smoothquant": "no attention", "ptq": world.device(flips=30), "qat": "no training frames"})
    rows = ladder.describe_all(tried, chosen)
    assert chosen.rung == "ptq"
    assert [(row["rung"], row["status"], row["flips"], row["chosen"]) for row in rows] == [
        ("ptq-no-smoothquant", "skipped: no attention", None, False),
        ("ptq", "tried", 30, True),
        ("qat", "skipped: no training frames", None, False),
    ]
    assert len({tuple(sorted(row)) for row in rows}) == 1


def test_a_ladder_with_nothing_to_try_is_refused():
    """By the names and reasons of its rungs."""
    with pytest.raises(
        CatalogError, match=r"no rung of the ladder can be tried: ptq-no-smoothquant: no attention; qat: no training frames"
    ):
        World().climb({"ptq-no-smoothquant": "no attention", "qat": "no training frames"})


def test_the_maps_are_compared_with_those_before_quantization():
    """And the answers with the reference, which may be another network's."""
    world = World(frames=8)
    maps = np.random.default_rng(1).normal(size=(8, 3, 4, 4)).astype(np.float32)
    exact = Measured(logits=world.device(noise=0.5), maps=maps)
    yardstick = world.yardstick(exact)
    found = yardstick.compare(Measured(logits=world.device(flips=2), maps=2 * maps + 1))
    assert found.map_likeness == pytest.approx({"median": 1.0, "p5": 1.0, "overlap": 1.0, "peak_kept": 1.0})
    assert found.flips.indices == (0, 1)
    turned = yardstick.compare(Measured(logits=world.device(), maps=-maps)).map_likeness
    assert [turned[name] for name in ("median", "p5")] == pytest.approx([-1.0, -1.0])
    assert yardstick.compare(Measured(logits=world.device(), maps=None)).map_likeness is None


@pytest.mark.parametrize(
    ("likeness", "spec", "enough"),
    [
        (None, {}, True),
        ({"median": 0.96, "p5": 0.9, "overlap": 0.8, "peak_kept": 0.96}, {}, True),
        ({"median": 0.94, "p5": 0.9, "overlap": 0.8, "peak_kept": 0.96}, {}, False),
        ({"median": 0.96, "p5": 0.8, "overlap": 0.8, "peak_kept": 0.96}, {}, False),
        ({"median": 0.96, "p5": 0.9, "overlap": 0.6, "peak_kept": 0.96}, {}, False),
        ({"median": 0.96, "p5": 0.9, "overlap": 0.8, "peak_kept": 0.8}, {}, False),
        ({"median": 0.96, "p5": 0.9, "overlap": 0.8, "peak_kept": 0.8}, {"waive_cam": ("cam_peak",)}, True),
        ({"median": 0.96, "p5": 0.9, "overlap": 0.8, "peak_kept": 0.8}, {"min_cam_peak_kept": 0.7}, True),
    ],
)
def test_a_rung_that_loses_the_maps_does_not_suffice(likeness, spec, enough):
    """Whatever its answers are; by every limit that the gate will hold on `test`."""
    world = World()
    chosen, _ = world.climb({"ptq": world.device()})
    found = dataclasses.replace(chosen.comparison, map_likeness=likeness)
    assert ladder._suffices(found, AcceptSpec(**spec), 0.02) is enough


def test_the_report_tells_every_rung():
    """JSON-ready, with the likeness of the maps and the layers left in float where there are such; one is chosen."""
    world = World()
    chosen, tried = world.climb({"ptq": world.device(flips=30), "float-fallback": {"ptq with 1 layer in float32": world.device()}})
    layers = {"base": "ptq", "base_error": 0.5, "layers": [{"name": "conv1", "type": "Convolution", "error": 0.25}]}
    comparison = dataclasses.replace(chosen.comparison, map_likeness={"median": 0.99, "p5": 0.9})
    left = dataclasses.replace(chosen, artefact=dataclasses.replace(ARTEFACT, fallback=layers), comparison=comparison)
    rows = ladder.describe_all((tried[0], left), left)
    assert [(row["rung"], row["variant"], row["chosen"], row["sufficient"], row["flips"], row["frames"]) for row in rows] == [
        ("ptq", "", False, False, 30, 1000),
        ("float-fallback", "ptq with 1 layer in float32", True, True, 0, 1000),
    ]
    assert rows[1]["mean_kl"] == pytest.approx(0)
    assert [row["map_likeness"] for row in rows] == [None, {"median": 0.99, "p5": 0.9}]
    assert [row["fallback"] for row in rows] == [None, layers]
    assert json.loads(json.dumps(rows)) == rows


def expected(**fields):
    return model_spec(expected=Expected(**fields))


def scored(world):
    """What the reference scores, found here: accuracy by counting."""
    return float((world.reference.argmax(1) == world.split.truth.argmax(1)).mean())


def test_a_teacher_that_scores_as_expected_passes():
    """Within the tolerance on either side, on the split that is named; nothing expected, nothing checked."""
    world = World()
    accuracy = scored(world)
    splits, reference = {"test": world.split}, {"test": world.reference}
    for shift in (-0.004, 0, 0.004):
        check_expected(expected(accuracy=accuracy + shift), splits, reference)
    check_expected(model_spec(), splits, reference)
    with pytest.raises(ModelError, match=rf"accuracy on test is {accuracy:.4f}, the recipe expects {accuracy - 0.006:.4f} ± 0\.005"):
        check_expected(expected(accuracy=accuracy - 0.006), splits, reference)


def test_another_order_of_labels_is_found():
    """It would pass every later gate, since reference and device are wrong alike."""
    world = World()
    splits = {"val": world.split}
    with pytest.raises(ModelError, match=r"auc on val is .*, the recipe expects 0\.99") as caught:
        check_expected(expected(split="val", auc=0.99), splits, {"val": world.reference[:, [1, 0, 2]]})
    assert caught.value.hint.startswith("check the order of [model] labels")


def test_an_auc_that_is_undefined_is_a_mismatch():
    """A split of one class has none."""
    split = split_of(np.zeros(20, dtype=int))
    with pytest.raises(ModelError, match="auc on test is nan"):
        check_expected(expected(auc=0.9), {"test": split}, {"test": np.zeros((20, 3), dtype=np.float32)})


class Told(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.mark.parametrize("scale", [0.1, 1.0, 50.0])
def test_an_export_is_compared_frame_by_frame(scale):
    """Up to a share of the largest logit, at least of 1; the worst frame is named."""
    reference = np.zeros((5, 3), dtype=np.float32)
    reference[0, 0] = scale
    allowed = EXPORT_TOLERANCE * max(1.0, scale)
    told = Told()
    near, far = reference.copy(), reference.copy()
    near[3, 1] += allowed * 0.99
    far[3, 1] -= allowed * 1.01
    check_export(reference, Measured(logits=near, maps=None), told)
    assert len(told.notes) == 1
    with pytest.raises(ModelError, match="answers frame 3 of val with logits off by"):
        check_export(reference, Measured(logits=far, maps=None), told)


def test_an_export_that_answers_with_nothing_is_refused():
    """NaN is not near to anything."""
    reference = np.zeros((5, 3), dtype=np.float32)
    broken = reference.copy()
    broken[2, 0] = np.nan
    with pytest.raises(ModelError, match="answers frame 2"):
        check_export(reference, Measured(logits=broken, maps=None), Silent())


def test_one_logit_stands_for_the_second_label():
    """With the positive label first, a high logit would be read as negative."""
    check_meaning(binary_spec(), 1)
    check_meaning(binary_spec(), 2)
    swapped = model_spec(labels=("positive", "negative"), task="binary", positive="positive")
    check_meaning(swapped, 2)
    with pytest.raises(CatalogError, match="the model has one logit, which is high for 'negative', but positive = 'positive'"):
        check_meaning(swapped, 1)


def figure(value, low, high):
    return Figure(value=value, low=low, high=high)


def test_a_teacher_certainly_worse_than_guessing_is_refused():
    """Every later gate only compares with it; with `enforce = false` it is noted. A wide interval is no certainty."""
    told = Told()
    for auc in (figure(None, None, None), figure(0.4, 0.2, 0.5), figure(0.9, 0.8, 1.0)):
        check_above_chance(auc, enforce=True, progress=told)
    assert told.notes == []
    with pytest.raises(ModelError, match=r"AUC on val is 0\.400, certainly worse than guessing"):
        check_above_chance(figure(0.4, 0.3, 0.499), enforce=True, progress=told)
    check_above_chance(figure(0.4, 0.3, 0.499), enforce=False, progress=told)
    assert told.notes == ["the trained model's AUC on val is 0.400, certainly worse than guessing"]
