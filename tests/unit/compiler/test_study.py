"""The search: which point of a front is compiled, what a shared study counts, and that a failed trial is not the end."""

from __future__ import annotations

import pytest

from edgekit.catalog.compress import StudySpec
from edgekit.compiler import study as s
from edgekit.compiler import workspace as w
from edgekit.compiler.progress import Silent
from edgekit.errors import CatalogError, ModelError


def trial(number, share, auc):
    return {"number": number, "share": share, "auc": auc}


FRONT = [trial(0, 0.9, 0.990), trial(1, 0.5, 0.985), trial(2, 0.3, 0.970)]


@pytest.mark.parametrize(
    ("least", "chosen"),
    [(0.96, 2), (0.98, 1), (0.985, 1), (0.9851, 0), (0.999, 0)],
    ids=["all-good", "two-good", "on-the-line", "one-good", "none-good"],
)
def test_the_fastest_good_point_is_chosen(least, chosen):
    """Where none is good enough, it is the most accurate one."""
    assert s.choose(FRONT, least)["number"] == chosen


def test_a_search_without_a_success_is_refused():
    """There is nothing to compile."""
    with pytest.raises(ModelError, match="no trial of the search succeeded"):
        s.choose([], 0.9)


def stage(evaluate, **changes):
    spec = StudySpec(**{"trials": 5, "ratios": (0.1, 0.5), "rungs": ("ptq",), **changes})
    return s.StudyStage(spec=spec, depends_on={"network": "x"}, teacher_auc=0.99, evaluate=evaluate)


def slower_is_better(point):
    """The more goes, the faster and the worse."""
    return s.Outcome(share=1 - point.ratio, latency_ms=10 * (1 - point.ratio), auc=0.99 - 0.01 * point.ratio)


def test_every_trial_is_told_and_one_is_chosen(tmp_path):
    """With its criterion, ratio and rung; the seed makes the same points."""
    found = [w.Workspace(tmp_path / name, Silent()).run(stage(slower_is_better)) for name in ("one", "two")]
    trials = found[0].document["trials"]
    assert [item["number"] for item in trials] == [0, 1, 2, 3, 4]
    assert {item["state"] for item in trials} == {"complete"}
    assert [item["chosen"] for item in trials].count(True) == 1
    assert found[0].chosen.ratio == max(item["ratio"] for item in trials)
    assert [item["ratio"] for item in found[1].document["trials"]] == [item["ratio"] for item in trials]


def test_a_trial_that_cannot_be_built_counts_and_says_why(tmp_path):
    """The search goes on with the next one."""

    def every_other(point):
        if point.criterion == "bn-scale":
            raise ModelError("no batch norm")
        return slower_is_better(point)

    document = w.Workspace(tmp_path, Silent()).run(stage(every_other, trials=8, criteria=("l1", "bn-scale"))).document
    assert len(document["trials"]) == 8
    failed = [item for item in document["trials"] if item["state"] == "fail"]
    assert failed
    assert all((item["reason"], item["share"], item["pareto"]) == ("no batch norm", None, False) for item in failed)


def test_an_interrupted_search_goes_on(tmp_path):
    """Trials that were told are not computed again."""
    computed = []

    def interrupted(point):
        computed.append(point)
        if len(computed) == 3:
            raise KeyboardInterrupt
        return slower_is_better(point)

    space = w.Workspace(tmp_path, Silent())
    with pytest.raises(KeyboardInterrupt):
        space.run(stage(interrupted))
    document = space.run(stage(interrupted)).document
    assert len([item for item in document["trials"] if item["state"] == "complete"]) == 5
    assert len(computed) == 6


def test_compiles_that_share_a_storage_share_the_trials(tmp_path):
    """The second one finds the study finished and computes nothing."""
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    computed = []

    def counted(point):
        computed.append(point)
        return slower_is_better(point)

    found = [w.Workspace(tmp_path / name, Silent()).run(stage(counted, storage=storage)) for name in ("one", "two")]
    assert len(computed) == 5
    assert found[0].chosen == found[1].chosen


def test_a_storage_that_cannot_be_opened_is_the_recipes_fault(tmp_path):
    """With the key's name."""
    with pytest.raises(CatalogError, match=r"compress\.study\.storage: a storage of the kind 'sqlite' cannot be opened"):
        w.Workspace(tmp_path, Silent()).run(stage(slower_is_better, storage="sqlite:////nowhere/at/all/study.db"))
