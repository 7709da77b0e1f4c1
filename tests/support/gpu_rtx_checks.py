"""What must hold of one try of TensorRT for RTX on a GPU, whichever way it ends."""

from __future__ import annotations

import half_checks
from gpu_rtx import Outcome
from half_checks import Note, Written


def check_outcome(outcome: Outcome, compute_capability: str, written: Written, note: Note) -> None:
    """On a GPU that the product is for it answers as the oracle foresaw; on another it may refuse, and then edgekit's own error says why.

    An error of any other kind never came out: it would have ended the process.
    """
    named = f"TensorRT for RTX {outcome.product}, for compute capabilities {', '.join(outcome.gpus)}; this GPU has {compute_capability}"
    if outcome.error:
        note("outcome", f"{named}: REFUSED at {outcome.reached!r}: {outcome.error}")
        assert not outcome.is_for(compute_capability), outcome.error
        assert outcome.error.startswith(("TargetError: ", "EngineNotBuiltError: ", "ModelRefusedError: ")), outcome.error
        return
    assert outcome.reached == "done"
    note("outcome", f"{named}: RAN, built in {outcome.build_seconds:.1f} s, CUDA graph: {outcome.described['cuda_graph']}")
    indices = iter(range(len(outcome.answers)))
    half_checks.check_answers(written, lambda _: outcome.answer(next(indices)), note)
