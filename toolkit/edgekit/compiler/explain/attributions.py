"""The methods that captum computes: integrated gradients, saliency, layer-wise relevance propagation.

captum is an extra of its own (`edgekit-toolkit[captum]`) and does not load beside every PyTorch; it is imported when it is needed.

Its layer-wise relevance propagation has rules for few layers and cannot see what is no layer: an addition or a ReLU that is written as a function passes its
gradient on as if that were relevance, and the map is wrong without a word. So the network is watched first, and refused with the name of whatever has no
rule.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import MissingEngineError, ModelError

if TYPE_CHECKING:
    import torch

    from edgekit.compiler.explain.methods import Map, Question

STEPS = (64, 256)
"""Of the integral from the black frame (Gauss–Legendre), until it is complete; the paper finds 20 to 300 enough."""

INCOMPLETE = 0.05
"""Distance of the map's sum from y(frame) − y(black) at which the integral is taken for complete, in parts of the larger |y|; the paper asks for 5 %."""

_INSTALL = "install the extra: edgekit-toolkit[captum]"

# These move values or join them and change none, so relevance goes through them as gradients do.
_SAME_VALUES = frozenset(
    {"flatten", "view", "reshape", "squeeze", "unsqueeze", "contiguous", "permute", "transpose", "cat", "concat", "clone"}
)
# Of a layer that computes nothing captum has no rule; the ε-rule gives it everything, as it should.
_IDENTITIES = ("Flatten", "Identity")


def load_library() -> Any:
    """Captum's attributions.

    Raises:
        MissingEngineError: It is not installed, or does not load beside this PyTorch.
    """
    try:
        from captum import attr
    except Exception as error:  # beside a PyTorch that it does not fit it fails with more than ImportError
        raise MissingEngineError(f"captum cannot be loaded: {error}", hint=_INSTALL) from error
    return attr


def saliency(question: Question) -> Map:
    """See `methods.saliency`."""
    method = load_library().Saliency(_score_of(question))
    with _quiet():
        found = method.attribute(question.frame.detach().clone(), abs=True)
    return np.asarray(found.detach()[0].amax(dim=0).float().numpy(), dtype=np.float32)


def integrated_gradients(question: Question) -> Map:
    """See `methods.integrated_gradients`."""
    import torch

    score = _score_of(question)
    method = load_library().IntegratedGradients(score)
    with torch.no_grad():
        ends = [float(score(frames)) for frames in (question.frame, question.black)]
    missing = float("inf")
    for steps in STEPS:
        with _quiet():
            # One step at a time: not every network takes several frames.
            found = method.attribute(question.frame.detach().clone(), baselines=question.black, n_steps=steps, internal_batch_size=1)
        missing = abs(float(found.double().sum()) - (ends[0] - ends[1]))
        if missing <= INCOMPLETE * max(abs(end) for end in ends):
            return _summed(found)
    raise ModelError(
        f"integrated gradients miss {missing:.3g} of y(frame) − y(black) = {ends[0] - ends[1]:.3g} after {STEPS[-1]} steps",
        hint="the answer bends too much on the way from black for this method; leave it out of explain.compare",
    )


def layer_wise_relevance(question: Question) -> Map:
    """See `methods.layer_wise_relevance`."""
    import torch

    library = load_library()
    module = copy.deepcopy(question.module)
    for part in module.modules():
        if isinstance(part, torch.nn.ReLU):
            part.inplace = False  # captum's hooks do not bear it
    without_rule = _unseen(module, question.frame)
    if without_rule:
        raise ModelError(
            f"captum has no rule of layer-wise relevance propagation for {without_rule}", hint="leave lrp out of explain.compare"
        )
    for part in module.modules():
        if type(part).__name__ in _IDENTITIES and not list(part.children()):
            part.rule = _epsilon_rule()
    method = library.LRP(module)
    try:
        with _quiet():
            found = method.attribute(question.frame.detach().clone(), target=question.output)
    except (TypeError, RuntimeError) as error:
        raise ModelError(f"captum's layer-wise relevance propagation fails: {str(error).splitlines()[0]}") from error
    return _summed(question.sign * found)


def _epsilon_rule() -> Any:
    """The ε-rule for a layer that passes values on."""
    from captum.attr._utils.lrp_rules import EpsilonRule

    return EpsilonRule()


def _score_of(question: Question) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda frames: question.sign * question.module(frames)[:, question.output]


def _summed(attribution: torch.Tensor) -> Map:
    return np.asarray(attribution.detach()[0].sum(dim=0).float().numpy(), dtype=np.float32)


def _unseen(module: torch.nn.Module, frame: torch.Tensor) -> str:
    """The first layer without a rule, or the first computation outside a layer; empty where captum can follow everything."""
    from captum.attr._core.lrp import SUPPORTED_LAYERS_WITH_RULES, SUPPORTED_NON_LINEAR_LAYERS

    known = (*SUPPORTED_LAYERS_WITH_RULES, *SUPPORTED_NON_LINEAR_LAYERS)
    leaves = {part: name for name, part in module.named_modules() if not list(part.children())}
    for part, name in leaves.items():
        if type(part) not in known and type(part).__name__ not in _IDENTITIES:
            return f"the layer {name or 'itself'} ({type(part).__name__})"
    seen = _functions_outside(module, frame, list(leaves))
    return f"{seen}(), which is no layer" if seen else ""


def _functions_outside(module: torch.nn.Module, frame: torch.Tensor, leaves: Sequence[torch.nn.Module]) -> str:
    """Name of the first function of PyTorch that changes values and is not called by a layer; empty where there is none."""
    import torch
    from torch.overrides import TorchFunctionMode

    inside, found = [0], []

    class Watch(TorchFunctionMode):
        def __torch_function__(
            self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
        ) -> Any:
            result = func(*args, **dict(kwargs or {}))
            name = getattr(func, "__name__", "?").strip("_")
            computes = isinstance(result, torch.Tensor) and result.is_floating_point() and name not in _SAME_VALUES
            if not inside[0] and computes and name != "get":
                found.append(name)
            return result

    def enter(*_: object) -> None:
        inside[0] += 1

    def leave(*_: object) -> None:
        inside[0] -= 1

    hooks = [hook for leaf in leaves for hook in (leaf.register_forward_pre_hook(enter), leaf.register_forward_hook(leave))]
    try:
        with torch.no_grad(), Watch():
            module(frame)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Captum warns of what it does on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
