"""Opens a bundle and classifies frames.

```python
classifier = edgekit.load("lung.edgekit")
prediction = classifier.predict(frame)
prediction.label, prediction.probabilities, prediction.overlay()
```

Rules this file keeps:

1. Only verified bytes reach the engine: the reader has checked every member's digest on the memory the engine then reads.
2. The engine that runs is the first one of the bundle that can run here, in the order of `engines.choice`; every engine of a bundle was accepted by its
   gate, and nothing else ever answers. Which one does, and why not those before it, is in `engine_notes` and in each answer. Where a library is missing or
   refuses the model, or the device cannot run it, the next engine is tried; where a bundle is damaged, asks for a setting that none may, or has a model that
   is not what its manifest says, that is an error and no reason for another engine.
3. An engine that fails on a frame gives way to the next in the same manner, for good, and that frame is answered there; where none is left, the failure is
   the answer.
4. Whoever names an engine gets that one or an error, before a frame and at each; one that was refused here is refused by its name too.
5. Logit = mean of the map + bias is checked on every frame, with the graph's own offset where the bias depends on the frame; a map that breaks it is withheld,
   the answer is kept.
6. `predict` may be called from several threads; frames are then answered one at a time, and an answer is wholly of one engine.
7. A frame that the input gate refuses goes unanswered: no label, no probability, no logit and no map leave this file.
8. Nothing is kept from frame to frame here: what belongs to a sequence of frames is in `clip.Clip`.
"""

from __future__ import annotations

import os
import platform
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import CamSpec, EngineSpec, Manifest
from edgekit.bundle.reader import Bundle, open_bundle
from edgekit.errors import BundleError, EdgekitError, MissingEngineError, TargetError, nearest
from edgekit.evaluation import decision
from edgekit.imaging.preprocess import check_frame, preprocess
from edgekit.imaging.quality import tensor_figures
from edgekit.runtime.cpu import instruction_sets
from edgekit.runtime.engines import open_engine
from edgekit.runtime.engines.base import Engine, ModelRefusedError, RawOutput
from edgekit.runtime.engines.choice import candidates, open_candidate
from edgekit.runtime.input_gate import InputGate
from edgekit.runtime.prediction import Prediction

if TYPE_CHECKING:
    from edgekit.runtime.clip import Clip

_NOT_ASKED_FOR = "the map was not asked for"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inferred:
    """What one engine gave for a frame, with what belongs to that engine."""

    raw: RawOutput
    engine: str
    notes: tuple[str, ...]
    temperature: float


def open_for_check(bundle: Bundle, spec: EngineSpec) -> Engine:
    """Opens an engine to find out whether it may answer here: for golden frames and timings. Whoever answers with it opens a `Classifier`.

    Raises:
        EdgekitError: It cannot be opened, or the model is not what the manifest says.
    """
    check_machine(bundle.manifest)
    engine = open_engine(spec, bundle.members)
    try:
        _check_graph(bundle.manifest, bundle.path, engine)
    except BaseException:
        engine.close()
        raise
    return engine


class Classifier:
    """A bundle, opened on an engine. It may be used as a context manager, which closes it."""

    def __init__(self, bundle: Bundle, *, engine: str | None = None) -> None:
        self.manifest: Manifest = bundle.manifest
        self.bundle_digest: str = bundle.digest
        self.path: Path = bundle.path
        self.size_bytes: int = bundle.size_bytes
        self.engine_notes: list[str] = []
        check_machine(self.manifest)
        self._gate = InputGate.open(bundle)
        self._members = bundle.members
        self._rest = deque(candidates(self._wanted(engine), bundle.digest))
        self._lock = threading.Lock()
        self._closed = False
        self.engine_name: str
        self.engine: Engine
        errors = self._open_next()
        if errors:
            raise _none_runs(bundle, errors, self.engine_notes)

    def __enter__(self) -> Classifier:  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Gives back what the engine holds, after the frame that is being answered; again does nothing. No frame is answered afterwards."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self.engine.close()

    def predict(self, frame: NDArray[np.uint8], *, explain: bool = True, gate: bool = True) -> Prediction:
        """Classifies one frame.

        Args:
            frame: uint8 (rows, columns), or uint8 (rows, columns, 3) in RGB order. The answer keeps a copy for its overlay, so a camera may write into the buffer
                again as soon as this returns.
            explain: Whether the answer has its map. The graph computes it in any case; without it nothing is copied or checked, and there is no overlay.
            gate: Whether a frame that is not assessable goes unanswered. Without it the frame is judged as well and `assessable` says how, but it is answered in any
                case: for engineers, who measure the classifier itself.

        Raises:
            DataError: The frame is not one: wrong type, shape, empty or too large.
            TargetError: The engine failed, and no other engine of the bundle can run here; or the classifier was closed; or it is recurrent, so that a frame
                alone has no answer.
            BundleError: The engine failed, and the bundle is wrong about the next one.
        """
        if self.manifest.state is not None:
            raise TargetError(
                "this classifier is recurrent: its answer for a frame depends on the frames before it",
                hint="clip = classifier.clip(), then clip.predict(frame) for each frame of one source in its order",
            )
        return self.step(frame, None, explain=explain, gate=gate)[0]

    def clip(self) -> Clip:
        """A clip in progress: what belongs to a sequence of frames, such as those of a cine or a camera. Each source has its own."""
        from edgekit.runtime.clip import Clip

        return Clip(self)

    def initial_state(self) -> NDArray[np.float32] | None:
        """The state before the first frame of a clip, a new array; None where the classifier is not recurrent."""
        spec = self.manifest.state
        return None if spec is None else np.zeros(spec.shape, dtype=np.float32)

    def step(
        self,
        frame: NDArray[np.uint8],
        state: NDArray[np.float32] | None,
        *,
        explain: bool = True,
        gate: bool = True,
        watch: Callable[[NDArray[np.uint8]], str] | None = None,
    ) -> tuple[Prediction, NDArray[np.float32] | None]:
        """One frame of a clip, for `Clip`: the answer, and the state that the next frame is given. Errors and other arguments as in `predict`.

        After a frame that went unanswered the state is that of a new clip: it does not belong to the sequence.

        Args:
            frame: The frame.
            state: What the frame before gave.
            explain: As in `predict`.
            gate: As in `predict`.
            watch: Told of the tensor; says why the clip is not assessable, and nothing where it is.
        """
        start = perf_counter_ns()
        held = check_frame(frame).copy() if explain else check_frame(frame)
        tensor = preprocess(held, self.manifest.input)
        figures = None if self._gate is None else tensor_figures(tensor)
        refused = "" if self._gate is None or figures is None else self._gate.before(held, figures)
        refused = (watch(tensor) if watch is not None else "") or refused
        prepared = perf_counter_ns()
        if refused and gate:
            return self._unanswered(refused, (start, prepared, prepared)), self.initial_state()
        with self._lock:
            found = self._infer(tensor, state)
        inferred = perf_counter_ns()
        if self._gate is not None and figures is not None:
            refused = refused or self._gate.after(found.engine, found.raw, figures)
        if refused and gate:
            return self._unanswered(refused, (start, prepared, inferred), found), self.initial_state()
        return self._answer(held if explain else None, found, refused, (start, prepared, inferred)), found.raw.next_state

    def _unanswered(self, reason: str, clock: tuple[int, int, int], found: _Inferred | None = None) -> Prediction:
        """What is said of a frame that is not assessable: why, and nothing that could be taken for an answer."""
        return Prediction(
            label=None,
            probabilities={},
            logits={},
            accepted=self.manifest.accepted,
            assessable=False,
            reason=reason,
            engine=self.engine_name if found is None else found.engine,
            engine_notes=tuple(self.engine_notes) if found is None else found.notes,
            **_timed(clock),
            _maps=None,
            _frame=None,
            _manifest=self.manifest,
        )

    def _infer(self, tensor: NDArray[np.uint8], state: NDArray[np.float32] | None) -> _Inferred:
        """What the engine gives, or the first of those after it that does (rule 3); under the lock."""
        if self._closed:
            raise TargetError("the classifier was closed", hint="open the bundle again")
        while True:
            try:
                raw = self.engine.infer(tensor, state)
            except TargetError as error:
                failed, before = self.engine, len(self.engine_notes)
                self.engine_notes.append(f"{self.engine_name}: failed on a frame: {error.message}")
                if self._open_next():
                    # Nothing else runs: this engine stays, and may do better on the next frame.
                    del self.engine_notes[before:]
                    raise
                failed.close()
            else:
                return _Inferred(raw=raw, engine=self.engine_name, notes=tuple(self.engine_notes), temperature=self._temperature)

    def _answer(self, held: NDArray[np.uint8] | None, inferred_by: _Inferred, refused: str, clock: tuple[int, int, int]) -> Prediction:
        manifest, raw = self.manifest, inferred_by.raw
        output = manifest.output
        logits = decision.logits_by_label(raw.logits, output)
        probability = decision.probabilities(logits, output, outputs=len(raw.logits), temperature=inferred_by.temperature)
        named = decision.answered(probability, output, manifest.decision.thresholds)
        maps, reason = (None, _NOT_ASKED_FOR) if held is None else _maps(raw, manifest.cam, manifest.cam_reason, len(output.labels))
        return Prediction(
            label=named if output.task == "multilabel" else named[0],
            probabilities=dict(zip(output.labels, probability.tolist(), strict=True)),
            logits=dict(zip(output.labels, logits.tolist(), strict=True)),
            accepted=manifest.accepted,
            assessable=not refused,
            reason="; ".join(filter(None, (refused, reason))),
            engine=inferred_by.engine,
            engine_notes=inferred_by.notes,
            **_timed(clock),
            _maps=maps,
            _frame=held,
            _manifest=manifest,
        )

    def _wanted(self, name: str | None) -> Sequence[EngineSpec]:
        """The engines that may answer: all of the bundle, or the one that was named (rule 4)."""
        specs = self.manifest.engines
        if name is None:
            return specs
        named = [spec for spec in specs if spec.name == name]
        if not named:
            raise TargetError(f"{self.path}: the bundle holds no {name!r} engine", hint=nearest(name, [spec.name for spec in specs]))
        return named

    def _open_next(self) -> list[EdgekitError]:
        """Opens the next engine that can run here (rule 2).

        Returns:
            Nothing where one was opened; where none was, why not.
        """
        errors: list[EdgekitError] = []
        while self._rest:
            candidate = self._rest.popleft()
            spec = candidate.spec
            try:
                engine = open_candidate(candidate, self._members)
            except (MissingEngineError, TargetError, ModelRefusedError) as error:
                self.engine_notes.append(f"{spec.name}: {error.message}")
                errors.append(error)
                continue
            try:
                _check_graph(self.manifest, self.path, engine)
                if self._gate is not None:
                    self._gate.check_graph(spec.name, engine, self.path)
            except BaseException:
                engine.close()
                raise
            if not self._rest:
                # Nothing will be opened from them any more, and a device has little memory.
                self._members = {}
            self.engine, self.engine_name = engine, spec.name
            self._temperature = self.manifest.decision.temperature if spec.temperature is None else spec.temperature
            return []
        return errors or [TargetError(f"{self.path}: no other engine of the bundle is left", hint="edgekit verify BUNDLE")]


def _none_runs(bundle: Bundle, errors: Sequence[EdgekitError], notes: Sequence[str]) -> EdgekitError:
    """One error for several engines: the installer's where every one is missing, else the device's."""
    if len(errors) == 1:
        return errors[0]
    kind = MissingEngineError if all(isinstance(error, MissingEngineError) for error in errors) else TargetError
    hints = dict.fromkeys(error.hint for error in errors if error.hint)
    return kind(f"{bundle.path}: no engine of the bundle runs here: {'; '.join(notes)}", hint="; ".join(hints))


def check_machine(manifest: Manifest) -> None:
    """Refuses a machine that a bundle was not proven for.

    Raises:
        TargetError: It has another architecture, or its CPU lacks what was needed.
    """
    machine = platform.machine().lower()
    if machine not in manifest.target.architectures:
        raise TargetError(
            f"the bundle was proven on {', '.join(manifest.target.architectures)}, this machine is {machine}",
            hint=f"compile it for this machine; it was compiled for the target {manifest.target.name}",
        )
    check_instruction_sets(manifest.target.instruction_sets, manifest.target.name)


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


def _check_graph(manifest: Manifest, path: Path, engine: Engine) -> None:
    """What the manifest says of the graph must be so: a map of another size would be drawn in the wrong place."""
    cam = manifest.cam
    bias = cam is None or bool(cam.bias)
    for what, listed, found in (
        ("takes frames of the shape", (1, *manifest.input.size, manifest.input.frame_channels), engine.input_shape),
        ("carries a state of the shape", None if manifest.state is None else manifest.state.shape, engine.state_shape),
        ("computes maps of the shape", None if cam is None else (cam.maps, cam.rows, cam.columns), engine.map_shape),
        ("adds to a map's mean", "a constant" if bias else "an offset", "an offset" if engine.gives_offset else "a constant"),
    ):
        if listed != found:
            raise BundleError(f"{path}: the model {what} {found}, the manifest says {listed}", hint="compile the bundle again")


def _timed(clock: tuple[int, int, int]) -> dict[str, Any]:
    """`Prediction.stages_ms` and `latency_ms`, from the times in nanoseconds of the start, of the tensor and of the engine's answer; it ends now."""
    start, prepared, inferred = clock
    end = perf_counter_ns()
    stages = {"preprocess": (prepared - start) / 1e6, "infer": (inferred - prepared) / 1e6, "cam": (end - inferred) / 1e6}
    return {"stages_ms": stages, "latency_ms": (end - start) / 1e6}


def completeness_residual(raw: RawOutput, spec: CamSpec) -> NDArray[np.float32]:
    """|mean of the map + bias − logit| a raw logit, float32 (outputs,), in logit units; NaN where a map is not finite or there is none."""
    added = np.asarray(spec.bias, dtype=np.float32) if spec.bias else raw.offset
    if raw.cam is None or added is None:
        return np.full_like(raw.logits, np.nan)
    # raw.cam.mean(axis=(1, 2)) takes three times as long for maps so small.
    residual: NDArray[np.float32] = np.abs(np.add.reduce(raw.cam, axis=(1, 2)) / np.float32(raw.cam[0].size) + added - raw.logits)
    return residual


def _maps(raw: RawOutput, spec: CamSpec | None, why_none: str, labels: int) -> tuple[NDArray[np.float32] | None, str]:
    """The maps by label, or None with the reason."""
    if spec is None or raw.cam is None:
        return None, why_none
    residual = completeness_residual(raw, spec)
    # Written so that NaN is withheld too.
    if not bool((residual <= spec.tolerance).all()):
        return None, f"{_MAP_WITHHELD} (off by {float(residual.max()):.3g} logit units)"
    if len(raw.cam) == 1 and labels == 2:
        return np.concatenate([-raw.cam, raw.cam]), ""
    return raw.cam, ""
