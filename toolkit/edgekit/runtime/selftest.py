"""The golden frames: does this machine answer as the machine the bundle was proven on?

Runs at `edgekit build`, at `edgekit verify` and at the end of a compile, not at every opening. The frames are synthetic, so they prove that the arithmetic is
the same, not that the answers on patients are right: that is what the acceptance gate has shown, once, with the same arithmetic.

Rules this file keeps:

1. PASS: every logit, every map, and of a recurrent classifier every state, is within the tolerance of the one that was proven, and every map adds up to its logit.
   That it adds up is not enough: a map may point elsewhere and have the same mean. How far a map is off is the root mean square over its cells: a logit is a mean of
   them, and a machine that rounds in another order moves a single cell further than any mean.
2. FAIL: it is not, or the engine failed on a frame. NOT RUN: the engine cannot be opened here.
3. To a recurrent classifier the golden frames are one clip in their order, from its first state on.
4. An answer that changed is told and fails nothing: a synthetic frame may lie on the border between two labels, and the tolerance is the bound.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import CamSpec, EngineSpec, Manifest
from edgekit.bundle.reader import Bundle
from edgekit.errors import BundleError, EdgekitError, NotFiniteError, TargetError
from edgekit.evaluation import decision
from edgekit.runtime.classifier import completeness_residual, open_for_check
from edgekit.runtime.engines.base import Engine, RawOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCheck:
    """One engine on the golden frames.

    Attributes:
        engine: Name of the engine.
        status: PASS, FAIL, or NOT RUN where the bundle cannot be opened on the engine here.
        frames: Golden frames compared.
        max_difference: Largest |Δlogit|; None when not run.
        tolerance: What was allowed.
        reason: Why it failed or was not run.
        max_residual: Largest |mean of a map + bias − logit|; None where the bundle has no maps, where they are not finite, or when not run.
        label_changes: Golden frames that are answered with other labels than the machine gave that the bundle was proven on; None when not run.
        max_map_difference: How far the worst map is off, in logit units, root mean square over its cells; None as for `max_residual`, and where the bundle has no golden maps.
        answered: Whether the engine answered: what it said was compared, or is no number. A device that failed on a frame gave no answer to judge the engine by.
    """

    engine: str
    status: str
    frames: int
    max_difference: float | None
    tolerance: float
    reason: str
    max_residual: float | None = None
    label_changes: int | None = None
    max_map_difference: float | None = None
    answered: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """The golden members for one engine: what goes in, and what came out where the bundle was proven.

    Attributes:
        frames: uint8 (frames, rows, columns, channels).
        logits: float32 (frames, outputs), finite.
        tolerance: Largest |Δlogit|.
        maps: float32 (frames, maps, rows, columns), finite; None where the bundle has none.
        map_tolerance: How far a map may be off, root mean square over its cells.
        states: The state after each frame, float32 (frames, *shape of the state), finite; None where the classifier is not recurrent.
        state_tolerance: Largest difference of an element of a state.
    """

    frames: NDArray[np.uint8]
    logits: NDArray[np.float32]
    tolerance: float
    maps: NDArray[np.float32] | None = None
    map_tolerance: float = 0.0
    states: NDArray[np.float32] | None = None
    state_tolerance: float = 0.0


def run(bundle: Bundle) -> tuple[EngineCheck, ...]:
    """Runs every engine of a bundle on its golden frames.

    Raises:
        BundleError: The golden members do not fit the manifest.
    """
    return tuple(check(bundle, spec) for spec in bundle.manifest.engines)


def check(bundle: Bundle, spec: EngineSpec) -> EngineCheck:
    """Runs one engine of a bundle on its golden frames.

    Raises:
        BundleError: The golden members do not fit the manifest.
    """
    golden = read_golden(bundle, spec)
    try:
        engine = open_for_check(bundle, spec)
    except EdgekitError as error:
        return _unfinished(spec, golden, "NOT RUN", f"{error.message}; {error.hint}" if error.hint else error.message)
    try:
        found = answer_clip(engine, golden.frames)
    except TargetError as error:
        return _unfinished(spec, golden, "FAIL", error.message, answered=isinstance(error, NotFiniteError))
    finally:
        engine.close()
    return compare(bundle.manifest, spec, golden, found)


def answer_clip(engine: Engine, frames: NDArray[np.uint8]) -> list[RawOutput]:
    """What an engine gives for frames in their order; the state that it carries, if it carries one, is that of one clip (rule 3).

    Args:
        engine: An opened engine.
        frames: uint8 (frames, rows, columns, channels).

    Raises:
        TargetError: The engine failed.
    """
    state, found = engine.initial_state(), []
    for frame in frames:
        found.append(engine.infer(np.ascontiguousarray(frame[None]), state))
        state = found[-1].next_state
    return found


def read_golden(bundle: Bundle, spec: EngineSpec) -> Golden:
    """The golden members for an engine.

    Raises:
        BundleError: They do not fit the manifest.
    """
    manifest = bundle.manifest
    frames = bundle.load_array(manifest.golden.frames)
    expected = bundle.load_array(manifest.golden.logits[spec.name])
    shape = (len(frames), *manifest.input.size, manifest.input.frame_channels)
    if (
        frames.dtype != np.uint8
        or frames.shape != shape
        or expected.shape != (len(frames), spec.outputs)
        or not np.isfinite(expected).all()
    ):
        raise BundleError(
            f"{bundle.path}: the golden frames {frames.shape} and logits {expected.shape} are not {shape} and finite",
            hint="compile it again",
        )
    golden = Golden(frames=frames, logits=expected, tolerance=manifest.golden.tolerance[spec.name])
    if manifest.cam is not None and manifest.cam.golden:
        cam = manifest.cam
        maps = _golden_member(bundle, "maps", cam.golden[spec.name], (len(frames), cam.maps, cam.rows, cam.columns))
        golden = dataclasses.replace(golden, maps=maps, map_tolerance=cam.golden_tolerance[spec.name])
    if manifest.state is not None:
        state = manifest.state
        states = _golden_member(bundle, "states", state.golden[spec.name], (len(frames), *state.shape))
        golden = dataclasses.replace(golden, states=states, state_tolerance=state.tolerance[spec.name])
    return golden


def _golden_member(bundle: Bundle, what: str, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    found = bundle.load_array(name)
    if found.dtype != np.float32 or found.shape != shape or not np.isfinite(found).all():
        raise BundleError(f"{bundle.path}: the golden {what} {found.shape} are not {shape}, float32 and finite", hint="compile it again")
    return found


def compare(manifest: Manifest, spec: EngineSpec, golden: Golden, found: list[RawOutput]) -> EngineCheck:
    """Compares what an engine gave for the golden frames with what was proven (rule 1)."""
    logits = np.stack([raw.logits for raw in found])
    difference = float(np.abs(logits - golden.logits).max())
    residual, reason = None if manifest.cam is None else _worst_residual(manifest.cam, found), ""
    apart_maps = None if golden.maps is None or residual is None or not np.isfinite(residual) else _maps_apart(golden, found)
    if not difference <= golden.tolerance:
        reason = "this machine's arithmetic differs from the one the bundle was proven with"
    elif (apart := _states_apart(golden, found)) > golden.state_tolerance:
        reason = f"the state that is carried is off by {apart:.3g}, {golden.state_tolerance:.3g} allowed"
    elif residual is not None and not np.isfinite(residual):
        reason = "a map is not finite"
    elif residual is not None and manifest.cam is not None and residual > manifest.cam.tolerance:
        reason = f"a map does not add up to its logit: off by {residual:.3g} logit units, {manifest.cam.tolerance:.3g} allowed"
    elif apart_maps is not None and not apart_maps <= golden.map_tolerance:
        reason = f"a map differs from the one that was proven: off by {apart_maps:.3g} logit units, {golden.map_tolerance:.3g} allowed"
    return EngineCheck(
        engine=spec.name,
        status="FAIL" if reason else "PASS",
        frames=len(golden.frames),
        max_difference=difference,
        tolerance=golden.tolerance,
        reason=reason,
        max_residual=residual if residual is not None and np.isfinite(residual) else None,
        label_changes=int((_answers(manifest, spec, logits) != _answers(manifest, spec, golden.logits)).any(axis=1).sum()),
        max_map_difference=apart_maps,
    )


def _maps_apart(golden: Golden, found: list[RawOutput]) -> float:
    """How far the worst map is off, root mean square over its cells; infinite where their sizes differ."""
    maps = np.stack([raw.cam for raw in found if raw.cam is not None])
    if golden.maps is None or maps.shape != golden.maps.shape:
        return float("inf")
    return float(np.sqrt(np.square(maps - golden.maps).mean(axis=(2, 3))).max())


def _states_apart(golden: Golden, found: list[RawOutput]) -> float:
    """Largest difference of an element of a state; 0 where the classifier is not recurrent."""
    if golden.states is None:
        return 0.0
    given = [raw.next_state for raw in found if raw.next_state is not None]
    return float(np.abs(np.stack(given) - golden.states).max()) if len(given) == len(found) else float("inf")


def _worst_residual(cam: CamSpec, found: list[RawOutput]) -> float:
    """Largest residual of the maps; NaN where one is not finite, or is not there."""
    if not all(raw.cam is not None and np.isfinite(raw.cam).all() for raw in found):
        return float("nan")
    return float(max(completeness_residual(raw, cam).max() for raw in found))


def _answers(manifest: Manifest, spec: EngineSpec, logits: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The answers that a user is given, bool (frames, labels)."""
    output = manifest.output
    temperature = manifest.decision.temperature if spec.temperature is None else spec.temperature
    probability = decision.probabilities(decision.logits_by_label(logits, output), output, outputs=logits.shape[1], temperature=temperature)
    return decision.answers(probability, output, manifest.decision.thresholds)


def _unfinished(spec: EngineSpec, golden: Golden, status: str, reason: str, *, answered: bool = False) -> EngineCheck:
    return EngineCheck(
        engine=spec.name,
        status=status,
        frames=len(golden.frames),
        max_difference=None,
        tolerance=golden.tolerance,
        reason=reason,
        answered=answered,
    )
