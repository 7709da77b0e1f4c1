"""Explanation methods of the literature, computed in PyTorch on the trained model, to compare the device's map with.

Rules this file keeps:

1. A method takes a `Question` and answers with a map, float32 (rows, columns). `METHODS` is the table; a further method is a function and a row.
2. A map is signed where the method is. The papers' last ReLU is left out, since it only hides the evidence against; ReLUs inside a formula stay.
3. Methods that weigh features answer in the features' size, and are multiplied by the number of positions: like the device's map they are then in logit
   units, and for a head of average pooling and a linear layer Grad-CAM and HiResCAM are the device's map. Methods that go back to the frame answer in the
   frame's size.
4. A formula is used where its paper's assumptions hold; where they do not, the model is refused with the reason, and nothing is patched up.

None of these maps proves what a clinician would call the reason; several of them agreeing does not either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import CatalogError, ModelError, nearest

if TYPE_CHECKING:
    import torch

    from edgekit.compiler.explain.features import Features

Map = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """What a method is asked.

    Attributes:
        module: From float32 (1, channels, height, width) to (1, outputs), in evaluation mode. No method changes it.
        frame: float32 (1, channels, height, width), as the module takes it.
        black: The same size, a frame of black pixels as the module takes it: where integrated gradients start.
        output: Index of the output that is explained.
        negative: Whether the evidence against that output is asked for: a single logit stands for the second label, its negative for the first.
    """

    module: torch.nn.Module
    frame: torch.Tensor
    black: torch.Tensor
    output: int
    negative: bool = False

    @property
    def sign(self) -> float:
        """1, or −1 for the negative."""
        return -1.0 if self.negative else 1.0

    def score(self, answer: torch.Tensor) -> torch.Tensor:
        """What is explained of an answer (1, outputs): a scalar."""
        return self.sign * answer[0, self.output]


def grad_cam(question: Question) -> Map:
    """Grad-CAM: features weighed by their mean gradient, N · Σ_k (1/N Σ_ij ∂y/∂A_kij) A_k.

    Selvaraju et al. 2017, Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization (ICCV), equations 1 and 2 without the last ReLU.
    """
    values, gradients = _watched(question)
    return np.asarray(_positions(values) * (gradients.mean(axis=(1, 2), keepdims=True) * values).sum(axis=0), dtype=np.float32)


def hires_cam(question: Question) -> Map:
    """HiResCAM: features times gradients, N · Σ_k ∂y/∂A_k ⊙ A_k.

    Draelos and Carin 2020, Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks (arXiv:2011.08891), equation 4.
    """
    values, gradients = _watched(question)
    return np.asarray(_positions(values) * (gradients * values).sum(axis=0), dtype=np.float32)


def layer_cam(question: Question) -> Map:
    """LayerCAM: features times the positive part of their gradients, N · Σ_k ReLU(∂y/∂A_k) ⊙ A_k.

    Jiang et al. 2021, LayerCAM: Exploring Hierarchical Class Activation Maps for Localization (IEEE TIP 30), equations 5 to 7 without the last ReLU.
    """
    values, gradients = _watched(question)
    return np.asarray(_positions(values) * (np.maximum(gradients, 0) * values).sum(axis=0), dtype=np.float32)


def grad_cam_plus_plus(question: Question) -> Map:
    """Grad-CAM++: features weighed by Σ_ij α_kij ReLU(∂y/∂A_kij) with α = g² / (2 g² + g³ Σ_ab A_kab).

    Chattopadhay et al. 2018, Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep Convolutional Networks (WACV), equations 17 and 19, without
    the last ReLU. Where the gradient is not positive its ReLU is 0, so α is only needed where g > 0, and is there 1 / (2 + g Σ A). The weights are sums
    over positions already, so the map is not multiplied by their number.

    Raises:
        ModelError: The formula has no value because features sum to a large negative number; the paper takes features after a ReLU.
    """
    values, gradients = _watched(question)
    positive = gradients > 0
    denominator = 2 + gradients * values.sum(axis=(1, 2), keepdims=True)
    if (denominator[positive] <= 0).any():
        raise ModelError(
            "Grad-CAM++ is not defined here: it takes features that are not negative, and these are",
            hint="compare with hires-cam or layer-cam",
        )
    weights = np.divide(gradients, denominator, out=np.zeros_like(gradients), where=positive).sum(axis=(1, 2), keepdims=True)
    return np.asarray((weights * values).sum(axis=0), dtype=np.float32)


def saliency(question: Question) -> Map:
    """Saliency: the largest |∂y/∂x| over the channels of each pixel. It has no sign.

    Simonyan, Vedaldi and Zisserman 2014, Deep Inside Convolutional Networks (arXiv:1312.6034), section 3.1. The plain gradient, not times the frame.

    Raises:
        MissingEngineError: captum is not installed.
    """
    from edgekit.compiler.explain import attributions

    return attributions.saliency(question)


def integrated_gradients(question: Question) -> Map:
    """Integrated gradients from a black frame, summed over channels: the map's sum is y(frame) − y(black), up to the steps of the integral.

    Sundararajan, Taly and Yan 2017, Axiomatic Attribution for Deep Networks (ICML), equation 3.

    Raises:
        MissingEngineError: captum is not installed.
        ModelError: The integral is not complete after as many steps as are tried.
    """
    from edgekit.compiler.explain import attributions

    return attributions.integrated_gradients(question)


def layer_wise_relevance(question: Question) -> Map:
    """Layer-wise relevance propagation by the ε-rule, summed over channels.

    Bach et al. 2015, On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance Propagation (PLOS ONE 10), equation 58. With ReLUs
    and an ε that only keeps from dividing by zero it is the gradient times the frame (Ancona et al. 2018, Towards better understanding of gradient-based
    attribution methods, proposition 1), and that is what to expect of it. A bias keeps the relevance that falls to it.

    Raises:
        MissingEngineError: captum is not installed.
        ModelError: A layer has no rule in captum; it is named.
    """
    from edgekit.compiler.explain import attributions

    return attributions.layer_wise_relevance(question)


METHODS: Mapping[str, Callable[[Question], Map]] = {
    "grad-cam": grad_cam,
    "hires-cam": hires_cam,
    "layer-cam": layer_cam,
    "grad-cam++": grad_cam_plus_plus,
    "integrated-gradients": integrated_gradients,
    "saliency": saliency,
    "lrp": layer_wise_relevance,
}

TITLES: Mapping[str, str] = {
    "grad-cam": "Grad-CAM",
    "hires-cam": "HiResCAM",
    "layer-cam": "LayerCAM",
    "grad-cam++": "Grad-CAM++",
    "integrated-gradients": "integrated gradients",
    "saliency": "saliency",
    "lrp": "LRP, ε-rule",
}
"""The methods' names in the literature, for people."""

OF_CAPTUM = frozenset({"integrated-gradients", "saliency", "lrp"})
"""What another library computes."""


def check_methods(names: Iterable[str]) -> None:
    """Checks what a recipe compares with, before any work.

    Raises:
        CatalogError: There is no such method.
        MissingEngineError: It needs a library that is not installed or does not load.
    """
    wanted = tuple(names)
    for name in wanted:
        if name not in METHODS:
            raise CatalogError(f"explain.compare: there is no method {name!r}", hint=nearest(name, METHODS))
    if OF_CAPTUM.intersection(wanted):
        from edgekit.compiler.explain import attributions

        attributions.load_library()


def _watched(question: Question) -> Features:
    from edgekit.compiler.explain.features import features_and_gradients

    return features_and_gradients(question.module, question.frame, question.score)


def _positions(values: NDArray[np.float32]) -> int:
    return int(values[0].size)
