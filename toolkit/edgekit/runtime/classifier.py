"""Opens a bundle and classifies frames.

```python
classifier = edgekit.load("lung.edgekit")
prediction = classifier.predict(frame)
prediction.label, prediction.probabilities, prediction.overlay()
```

Rules this file keeps:

1. Only verified bytes reach the engine: the reader has checked every member's digest on the memory the engine then reads.
2. The engine that runs is the first one of the bundle that can run here, in the order of `engines.choice`; every engine of a bundle was accepted by its
   gate, and nothing else ever answers. Which one does, and why not those before it, is in `engine_notes` and in each answer. Whoever names an engine gets
   that one or an error. A bundle that is damaged, or whose model is not what its manifest says, is an error and no reason for another engine.
3. Logit = mean of the map + bias is checked on every frame; a map that breaks it is withheld, the answer is kept.
4. `predict` may be called from several threads; frames are then answered one at a time.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter_ns

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import CamSpec, EngineSpec, Manifest
from edgekit.bundle.reader import Bundle, open_bundle
from edgekit.errors import BundleError, EdgekitError, MissingEngineError, TargetError, nearest
from edgekit.evaluation import decision
from edgekit.imaging.preprocess import check_frame, preprocess
from edgekit.runtime.cpu import instruction_sets
from edgekit.runtime.engines import open_engine
from edgekit.runtime.engines.base import Engine, RawOutput
from edgekit.runtime.engines.choice import Candidate, candidates
from edgekit.runtime.prediction import Prediction

_MAP_WITHHELD = "the map does not add up to the logit and is withheld"
_CPUINFO = Path("/proc/cpuinfo")


def load(path: str | os.PathLike[str], *, engine: str | None = None) -> Classifier:
    """Opens a bundle.

    Args:
        path: The `.edgekit` file.
        engine: Name of the engine to use; None for the first one of the bundle that can run here.

    Raises:
        BundleError: The file is missing, damaged, foreign or too new.
        TargetError: This machine is not one the bundle was made for, the engine is not in the bundle, or none of its engines can run here.
        MissingEngineError: No engine of the bundle is installed.
    """
    return Classifier(open_bundle(Path(path)), engine=engine)


class Classifier:
    """A bundle, opened on an engine."""

    def __init__(self, bundle: Bundle, *, engine: str | None = None) -> None:
        self.manifest: Manifest = bundle.manifest
        self.bundle_digest: str = bundle.digest
        self.path: Path = bundle.path
        self.size_bytes: int = bundle.size_bytes
        self.engine_notes: list[str] = []
        _check_architecture(bundle.manifest)
        check_instruction_sets(self.manifest.target.instruction_sets, self.manifest.target.name)
        spec, self.engine = self._open(bundle, engine)
        self.engine_name: str = spec.name
        self._temperature = self.manifest.decision.temperature if spec.temperature is None else spec.temperature
        _check_graph(bundle, self.engine)
        self._lock = threading.Lock()

    def predict(self, frame: NDArray[np.uint8]) -> Prediction:
        """Classifies one frame.

        Args:
            frame: uint8 (rows, columns), or uint8 (rows, columns, 3) in RGB order. It is copied before anything is computed from it, so
                a camera may write into the buffer again at any time.

        Raises:
            DataError: The frame is not one: wrong type, shape, empty or too large.
            TargetError: The engine failed.
        """
        start = perf_counter_ns()
        held = check_frame(frame).copy()
        tensor = preprocess(held, self.manifest.input)
        prepared = perf_counter_ns()
        with self._lock:
            raw = self.engine.infer(tensor)
        inferred = perf_counter_ns()
        return self._answer(held, raw, (start, prepared, inferred))

    def _answer(self, held: NDArray[np.uint8], raw: RawOutput, clock: tuple[int, int, int]) -> Prediction:
        manifest = self.manifest
        output = manifest.output
        logits = decision.logits_by_label(raw.logits, output)
        probability = decision.probabilities(logits, output, outputs=len(raw.logits), temperature=self._temperature)
        chosen = decision.answers(probability[None], output, manifest.decision.thresholds)[0]
        named = tuple(label for label, is_chosen in zip(output.labels, chosen, strict=True) if is_chosen)
        maps, reason = _maps(raw, manifest.cam, manifest.cam_reason, len(output.labels))
        start, prepared, inferred = clock
        end = perf_counter_ns()
        return Prediction(
            label=named if output.task == "multilabel" else named[0],
            probabilities=dict(zip(output.labels, probability.tolist(), strict=True)),
            logits=dict(zip(output.labels, logits.tolist(), strict=True)),
            accepted=manifest.accepted,
            assessable=True,
            reason=reason,
            engine=self.engine_name,
            engine_notes=tuple(self.engine_notes),
            stages_ms={"preprocess": (prepared - start) / 1e6, "infer": (inferred - prepared) / 1e6, "cam": (end - inferred) / 1e6},
            latency_ms=(end - start) / 1e6,
            _maps=maps,
            _frame=held,
            _manifest=manifest,
        )

    def _open(self, bundle: Bundle, name: str | None) -> tuple[EngineSpec, Engine]:
        """The engine that answers, and its entry in the manifest (rule 2)."""
        names = [spec.name for spec in bundle.manifest.engines]
        if name is not None:
            if name not in names:
                raise TargetError(f"{bundle.path}: the bundle holds no {name!r} engine", hint=nearest(name, names))
            named = bundle.manifest.engines[names.index(name)]
            return named, open_engine(named, bundle.members)
        errors: list[EdgekitError] = []
        for candidate in candidates(bundle.manifest.engines, bundle.digest):
            spec = candidate.spec
            try:
                return spec, _open_candidate(candidate, bundle)
            except (MissingEngineError, TargetError, BundleError) as error:
                self.engine_notes.append(f"{spec.name}: {error.message}")
                errors.append(error)
        raise _none_runs(bundle, errors, self.engine_notes)


def _open_candidate(candidate: Candidate, bundle: Bundle) -> Engine:
    if candidate.refusal is not None:
        raise candidate.refusal
    return open_engine(candidate.spec, bundle.members)


def _none_runs(bundle: Bundle, errors: Sequence[EdgekitError], notes: Sequence[str]) -> EdgekitError:
    """One error for several engines: the installer's where every one is missing, else the device's."""
    if len(errors) == 1:
        return errors[0]
    kind = MissingEngineError if all(isinstance(error, MissingEngineError) for error in errors) else TargetError
    hints = dict.fromkeys(error.hint for error in errors if error.hint)
    return kind(f"{bundle.path}: no engine of the bundle runs here: {'; '.join(notes)}", hint="; ".join(hints))


def _check_architecture(manifest: Manifest) -> None:
    machine = platform.machine().lower()
    if machine not in manifest.target.architectures:
        raise TargetError(
            f"the bundle was proven on {', '.join(manifest.target.architectures)}, this machine is {machine}",
            hint=f"compile it for this machine; it was compiled for the target {manifest.target.name}",
        )


def check_instruction_sets(wanted: Sequence[str], target: str) -> None:
    """Refuses a CPU that lacks what a bundle was proven with: on one without VNNI, weights of the full range are summed in 16 bits, and cut off unseen.

    Args:
        wanted: Any one of these will do; empty where every CPU will do.
        target: Name of the device profile, for the message.

    Raises:
        TargetError: The CPU has none of them, or does not tell what it has.
    """
    if not wanted:
        return
    try:
        found = instruction_sets(_CPUINFO.read_text("utf-8", errors="replace"))
    except OSError as error:
        raise TargetError(
            f"{_CPUINFO} cannot be read, so nobody knows whether this CPU has {' or '.join(wanted)}", hint=str(error)
        ) from error
    if not set(wanted) & set(found or ()):
        raise TargetError(
            f"the target {target} needs a CPU with {' or '.join(wanted)}, this one has {', '.join(found or ()) or 'none that is known'}",
            hint="compile for a target without that need, such as x86-64",
        )


def _check_graph(bundle: Bundle, engine: Engine) -> None:
    """What the manifest says of the graph must be so: a map of another size would be drawn in the wrong place."""
    manifest, cam = bundle.manifest, bundle.manifest.cam
    for what, listed, found in (
        ("takes frames of the shape", (1, *manifest.input.size, manifest.input.frame_channels), engine.input_shape),
        ("computes maps of the shape", None if cam is None else (cam.maps, cam.rows, cam.columns), engine.map_shape),
    ):
        if listed != found:
            raise BundleError(f"{bundle.path}: the model {what} {found}, the manifest says {listed}", hint="compile the bundle again")


def _maps(raw: RawOutput, spec: CamSpec | None, why_none: str, labels: int) -> tuple[NDArray[np.float32] | None, str]:
    """The maps by label, or None with the reason."""
    if spec is None or raw.cam is None:
        return None, why_none
    residual = np.abs(raw.cam.mean(axis=(1, 2)) + np.asarray(spec.bias, dtype=np.float32) - raw.logits)
    # Written so that NaN is withheld too.
    if not bool((residual <= spec.tolerance).all()):
        return None, f"{_MAP_WITHHELD} (off by {float(residual.max()):.3g} logit units)"
    if len(raw.cam) == 1 and labels == 2:
        return np.concatenate([-raw.cam, raw.cam]), ""
    return raw.cam, ""
