"""search: tries criteria, ratios and rungs within a budget, and keeps the front of latency against AUC.

Optuna proposes the points (multi-objective TPE); its storage lets several processes or machines share one study: each asks, computes and tells, until
together they have told the recipe's number of trials.

Rules this file keeps:

1. A trial is a short version of what the compile does with the chosen point: cut, train, quantize, measure on `val`. `test` is never looked at.
2. Latency is measured on the compiled INT8 candidate, interleaved with the unpruned one; a trial is judged by the ratio, so that trials of a slow minute
   stand beside trials of a fast one. Machines that share a study must be alike: the host is part of the study's name.
3. The chosen point is the fastest of the front whose AUC is at most `max_auc_loss` below the teacher's; the most accurate one where none is, and that is said.
4. A point that cannot be built is a failed trial with its reason, not the end of the search.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from edgekit.catalog.compress import Criterion, Rung, StudySpec
from edgekit.compiler import timing
from edgekit.compiler.progress import Progress
from edgekit.compiler.versions import versions
from edgekit.compiler.workspace import Stage, code_digest, digest
from edgekit.errors import CatalogError, ModelError
from edgekit.schema.decode import encode

STUDY = "study.json"
_STORAGE = "study.sqlite3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What a trial tries: a criterion, the share of channels that goes, and a rung."""

    criterion: Criterion
    ratio: float
    rung: Rung


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a point came to on `val`.

    Attributes:
        share: Latency in parts of the unpruned INT8 model's.
        latency_ms: Latency on this host.
        auc: AUC of the compiled candidate.
    """

    share: float
    latency_ms: float
    auc: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A finished search: the chosen point, and every trial for the report, JSON-ready."""

    chosen: Point
    document: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StudyStage(Stage[Study]):
    """Searches.

    Attributes:
        spec: Budget and space.
        depends_on: Everything a trial's outcome depends on, for the key.
        teacher_auc: The teacher's AUC on `val`.
        evaluate: Computes a point; its own stages are cached, so an interrupted trial resumes.
    """

    name: ClassVar[str] = "search"
    resumes: ClassVar[bool] = True
    spec: StudySpec
    depends_on: Mapping[str, object]
    teacher_auc: float
    evaluate: Callable[[Point], Outcome]

    def requires(self) -> Mapping[str, object]:
        return {
            "spec": {**encode(self.spec), "storage": None},
            "depends_on": self.depends_on,
            "host": timing.host_name(),
            "versions": versions(
                *(
                    "optuna",
                    "torch",
                    "torch-pruning",
                    "timm",
                    "torchvision",
                    "accelerate",
                    "openvino",
                    "nncf",
                    "onnx",
                    "onnxscript",
                    "numpy",
                )
            ),
        }

    def apply(self, folder: Path, progress: Progress) -> None:
        study = self._open(folder)
        while (told := _told(study)) < self.spec.trials:
            progress.step(told, self.spec.trials)
            self._try(study, progress)
        document = self._document(study)
        (folder / STUDY).write_text(json.dumps(document, allow_nan=False))
        (folder / _STORAGE).unlink(missing_ok=True)

    def _open(self, folder: Path) -> Any:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = self.spec.storage or f"sqlite:///{folder / _STORAGE}"
        try:
            return optuna.create_study(
                study_name=f"edgekit-{digest({'code': code_digest(), **self.requires()})[:16]}",
                storage=storage,
                directions=["minimize", "maximize"],
                load_if_exists=True,
            )
        except Exception as error:  # a database driver raises its own kinds; the URL may hold a password
            raise CatalogError(
                f"compress.study.storage: a storage of the kind {storage.partition(':')[0]!r} cannot be opened: {type(error).__name__}",
                hint="an Optuna storage URL, for example sqlite:////shared/study.db or postgresql://…; leave it out for a file in the work folder",
            ) from error

    def _try(self, study: Any, progress: Progress) -> None:
        import optuna

        # A sampler's draws depend on where the study stands: one that goes on does not propose its first points again, and neither do machines that share it.
        study.sampler = optuna.samplers.TPESampler(seed=self.spec.seed + self._standing(study))
        trial = study.ask()
        low, high = self.spec.ratios
        point = Point(
            criterion=trial.suggest_categorical("criterion", list(self.spec.criteria)),
            # Channels are rounded to the target's multiple anyway; a coarse grid lets equal points be found in the cache.
            ratio=round(trial.suggest_float("ratio", low, high), 2),
            rung=trial.suggest_categorical("rung", list(self.spec.rungs)),
        )
        try:
            found = self.evaluate(point)
        except ModelError as error:
            trial.set_user_attr("reason", error.message)
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            progress.note(f"trial {trial.number}: {point.criterion}, {point.ratio:.0%} of the channels: {error.message}")
            return
        trial.set_user_attr("latency_ms", found.latency_ms)
        trial.set_user_attr("ratio", point.ratio)
        study.tell(trial, [found.share, found.auc])
        progress.note(
            f"trial {trial.number}: {point.criterion}, {point.ratio:.0%} of the channels out, {point.rung}: "
            f"{found.share:.1%} of the unpruned INT8 latency, AUC {found.auc:.4f} on val"
        )

    def _standing(self, study: Any) -> int:
        """Trials that were told; of a shared study also those that others are at."""
        return _told(study) if self.spec.storage is None else len(study.get_trials(deepcopy=False))

    def _document(self, study: Any) -> dict[str, Any]:
        front = {trial.number for trial in study.best_trials}
        trials = [_trial(trial, pareto=trial.number in front) for trial in study.trials if trial.state.is_finished()]
        chosen = choose([trial for trial in trials if trial["pareto"]], self.teacher_auc - self.spec.max_auc_loss)
        return {
            "trials": [{**trial, "chosen": trial is chosen} for trial in trials],
            "storage": "shared" if self.spec.storage else "local",
            "seed": self.spec.seed,
            "teacher_auc": self.teacher_auc,
            "max_auc_loss": self.spec.max_auc_loss,
            "host": timing.host_name(),
        }

    def ensures(self, folder: Path) -> Study:
        document = json.loads((folder / STUDY).read_text())
        chosen = next(trial for trial in document["trials"] if trial["chosen"])
        return Study(chosen=Point(criterion=chosen["criterion"], ratio=chosen["ratio"], rung=chosen["rung"]), document=document)


def choose(front: Sequence[dict[str, Any]], least_auc: float) -> dict[str, Any]:
    """The point of a front that is compiled (rule 3).

    Raises:
        ModelError: No trial succeeded.
    """
    if not front:
        raise ModelError(
            "no trial of the search succeeded; the report of each says why",
            hint="widen compress.study.ratios or criteria, or prune without search",
        )
    good = [trial for trial in front if trial["auc"] >= least_auc]
    return min(good, key=lambda trial: float(trial["share"])) if good else max(front, key=lambda trial: float(trial["auc"]))


def _told(study: Any) -> int:
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def _trial(trial: Any, *, pareto: bool) -> dict[str, Any]:
    share, auc = trial.values or (None, None)
    return {
        "number": trial.number,
        "criterion": trial.params.get("criterion"),
        "ratio": trial.user_attrs.get("ratio"),
        "rung": trial.params.get("rung"),
        "share": share,
        "latency_ms": trial.user_attrs.get("latency_ms"),
        "auc": auc,
        "state": trial.state.name.lower(),
        "reason": trial.user_attrs.get("reason", ""),
        "pareto": pareto,
    }
