"""Checks that stop a compile before any gate could hide the fault: the machine, the labels, the teacher's score, the export."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgekit.catalog.recipe import ModelSpec, Recipe
from edgekit.catalog.target import Target
from edgekit.compiler import ladder
from edgekit.compiler.dialects import dialect_of
from edgekit.compiler.processes import Processes
from edgekit.compiler.progress import Progress
from edgekit.compiler.quantize.rungs import POST_TRAINING, RUNGS
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.measure import Measured
from edgekit.errors import CatalogError, MissingEngineError, ModelError, TargetError
from edgekit.evaluation import metrics
from edgekit.evaluation.dataset import DataManifest
from edgekit.evaluation.intervals import Figure
from edgekit.runtime.classifier import check_instruction_sets
from edgekit.runtime.engines import engine_class
from edgekit.runtime.engines.openvino import check_device

CHANCE = 0.5
EXPORT_TOLERANCE = 2e-3
"""Largest |Δlogit| between the trained model and the unquantized engine, in parts of the largest |logit| (at least of 1)."""


def check_machine(target: Target, recipe: Recipe) -> None:
    """Stops before any work when this machine cannot prove a bundle for the target.

    An engine that reads ONNX can be proven in the numerical oracle where it cannot run; OpenVINO only where it runs. What is decided by a measured latency
    can be decided only where the engine runs.

    Raises:
        TargetError: The target is another kind of machine.
        MissingEngineError: An engine of the target, the oracle or the quantizer is not installed.
    """
    if platform.machine().lower() in target.architectures:
        check_instruction_sets(target.instruction_sets, target.name)
    for choice in target.engines:
        dialect = dialect_of(target, choice)
        proven_with = "onnxruntime" if dialect.oracle else choice.name
        if choice.name == "openvino" and dialect.oracle:
            raise TargetError(
                f"the target {target.name} is {', '.join(target.architectures)}, this machine is {platform.machine().lower()}",
                hint="OpenVINO is proven on the kind of machine it runs on; compile it there",
            )
        found = engine_class(proven_with).available()
        if found.version is None:
            raise MissingEngineError(f"the target {target.name} needs {proven_with} here: {found.reason}", hint=found.hint)
        if choice.name == "openvino":
            check_device(choice.settings.get("DEVICE", "CPU"))
        quantizes = any(RUNGS[rung].quantize for rung in recipe.compress.quantize.ladder)
        if choice.name == "openvino" and quantizes and importlib.util.find_spec("nncf") is None:
            raise MissingEngineError("NNCF is not installed", hint="install the extra: edgekit-toolkit[compile]")
        dialect.ladder(recipe.compress.quantize.ladder)
    if dialect_of(target).oracle and recipe.accept.max_latency_ms is not None:
        raise TargetError(
            f"[accept] max_latency_ms is about {target.name}, whose latency cannot be measured on this machine",
            hint='leave it out; on the device, edgekit profile BUNDLE --fail-if "latency_ms.p99 > …" measures it',
        )
    prune = recipe.compress.prune
    if dialect_of(target).oracle and (recipe.compress.search or (prune is not None and prune.measure == "latency")):
        asked = "search decides" if recipe.compress.search else "prune.latency_target decides"
        raise TargetError(
            f"[compress] {asked} by the latency on {target.name}, which cannot be measured on this machine",
            hint="say with prune.macs_target, and without a search, how many multiply-accumulates may be left, or give the recipe a student",
        )


def check_processes(recipe: Recipe, processes: Processes) -> None:
    """Stops when the processes of a launcher cannot do together what the recipe asks.

    Raises:
        CatalogError: A search, which is shared by its storage and not by a launcher; a batch that they cannot share evenly.
    """
    if processes.count == 1:
        return
    compress = recipe.compress
    if compress.search:
        raise CatalogError(
            f"a search runs in one process, not in {processes.count}",
            hint="several compiles, each started alone, may share compress.study.storage; or set compress.search = false",
        )
    batches = {"compress.quantize.qat.batch": compress.quantize.qat.batch} if "qat" in compress.quantize.ladder else {}
    if compress.distill is not None:
        batches["compress.distill.batch"] = compress.distill.batch
    for name, size in batches.items():
        if size % processes.count:
            raise CatalogError(
                f"{name} = {size} cannot be shared evenly by {processes.count} processes", hint=f"choose a multiple of {processes.count}"
            )


def check_recurrent(recipe: Recipe) -> None:
    """Stops before any work when a recipe asks of a recurrent model what takes frames one by one.

    Raises:
        CatalogError: Names what is asked.
    """
    if recipe.model.state is None:
        return
    compress = recipe.compress
    asked = {
        "compress.prune": compress.prune is not None,
        "compress.student": compress.student is not None,
        "compress.distill": compress.distill is not None,
        "compress.search": compress.search,
        **{f"compress.quantize.ladder: {rung}": rung not in (*POST_TRAINING, "float") for rung in compress.quantize.ladder},
        "explain.compare": bool(recipe.explain.compare),
        "data.columns.mask": recipe.data.columns.mask is not None,
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise CatalogError(
                f"{name} is not made for a recurrent model: it takes single frames, without the frames before them",
                hint=f"leave it out; a recurrent model is quantized after its training, by the rungs {', '.join(POST_TRAINING)} or float",
            )


def check_trainable(recipe: Recipe, data: DataManifest) -> None:
    """Stops before any work when what the recipe trains cannot be trained.

    Raises:
        CatalogError: The model, where it is pruned or trained itself, or the student is no network of PyTorch.
        DataError: There are no frames of `train`.
    """
    compress = recipe.compress
    if compress.makes_new_network:
        source = recipe.model.source if compress.student is None else compress.student.source
        reason = untrainable(source)
        if reason and compress.distill is not None:
            raise CatalogError(f"compress.distill: {reason}", hint="give the network itself, with source = timm:, torchvision: or python:")
    if compress.distill is not None or "qat" in compress.quantize.ladder:
        data.split("train")


def untrainable(source: str) -> str:
    """Why a source cannot be trained or pruned; empty where it can."""
    kind = source.partition(":")[0]
    return f"a model from {kind}: is no network that PyTorch can train" if kind in ("onnx", "pt2") else ""


def check_meaning(model: ModelSpec, outputs: int) -> None:
    """Stops when one logit is to stand for two labels in the wrong order: a logit above 0 means the second label.

    Raises:
        CatalogError: The positive label is not the second one.
    """
    if not model.output.accepts_logits(outputs):
        raise CatalogError(
            f"the model has one logit, which is high for {model.labels[-1]!r}, but positive = {model.positive!r}",
            hint="labels = [negative, positive]: swap the labels, or correct positive",
        )


def check_above_chance(auc: Figure, *, enforce: bool, progress: Progress, who: str = "the trained model") -> None:
    """Stops when a trained model is certainly worse than guessing on `val`: every later gate only compares with it, or it teaches.

    Args:
        auc: Its AUC on `val`; certainly means that the whole 95 % interval is below one half.
        enforce: The recipe's.
        progress: Told where the recipe does not enforce.
        who: The model, for the message.

    Raises:
        ModelError: With `enforce`; otherwise it is noted.
    """
    if auc.high is None or auc.high >= CHANCE:
        return
    message = f"{who}'s AUC on val is {auc.value:.3f}, certainly worse than guessing"
    if enforce:
        raise ModelError(message, hint="check the order of [model] labels, [input], the weights and the data manifest, in this order")
    progress.note(message)


def check_expected(model: ModelSpec, splits: Mapping[str, PreparedSplit], reference: Mapping[str, NDArray[np.float32]]) -> None:
    """Stops when the reference does not score what the recipe says it scored where it was trained.

    Wrong preprocessing, a wrong order of labels or the wrong weights would otherwise be compressed faithfully.

    Raises:
        ModelError: Names both figures.
    """
    expected = model.expected
    if expected is None:
        return
    split = splits[expected.split]
    found = point_figures(ladder.outcomes(reference[expected.split], split, model.output, {}))
    for name, wanted in (("auc", expected.auc), ("accuracy", expected.accuracy)):
        # Written so that an undefined figure, which is NaN here, is a mismatch.
        if wanted is not None and not abs(found[name] - wanted) <= expected.tolerance:
            raise ModelError(
                f"the trained model's {name} on {expected.split} is {found[name]:.4f}, the recipe expects {wanted:.4f} ± {expected.tolerance}",
                hint="check the order of [model] labels, [input], the weights and the data manifest, in this order",
            )


def check_export(reference: NDArray[np.float32], engine: Measured, progress: Progress) -> None:
    """Stops when the unquantized engine does not compute what the trained model computes.

    Raises:
        ModelError: Names the largest difference and the frame.
    """
    difference = np.abs(reference - engine.logits).max(axis=1)
    allowed = EXPORT_TOLERANCE * max(1.0, float(np.abs(reference).max()))
    worst = int(difference.argmax())
    if not difference[worst] <= allowed:
        raise ModelError(
            f"the exported graph answers frame {worst} of val with logits off by {difference[worst]:.4g} (allowed {allowed:.4g})",
            hint="the export changed the model: look for code that depends on the training mode, the batch or random numbers",
        )
    progress.note(
        f"the exported graph reproduces the trained model to {float(difference[worst]):.2g} logit units on {len(reference)} frames"
    )


def point_figures(outcomes: metrics.Outcomes) -> dict[str, float]:
    """Every figure of `metrics.FIGURES` without its interval; NaN where it is undefined."""
    weights = np.ones((1, len(outcomes.truth)))
    table = metrics.figures(outcomes, weights, metrics.class_figures(outcomes, weights))
    return {name: float(values[0]) for name, values in table.items()}
