"""Slopes of activation functions, for the reverse pass over a head.

Each takes the input and the output of the operator, (1, elements), and gives the derivative of the one by the other in the same shape, in the definition of the ONNX
operator. Where a function has a kink, the derivative is that of the side that PyTorch takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekit.compiler import graph as g
from edgekit.compiler.explain.algebra import Algebra, Operand

if TYPE_CHECKING:
    import onnx_ir as ir

_LEAST_ROOT = 1e-3
"""A root is infinitely steep at 0: the slope is that of the nearest root of this size, so that map and offset stay numbers that add up."""

Slope = Callable[[Algebra, "ir.Node", Operand, Operand], Operand]


@dataclass(frozen=True, slots=True)
class Activation:
    """One operator: its slope, and whether it is a line wherever its input is held on one side of its kinks."""

    slope: Slope
    piecewise_linear: bool = False


def _number(value: float) -> Operand:
    return np.array([[value]], dtype=np.float64)


def _attribute(node: ir.Node, name: str, default: float) -> float:
    return node.attributes[name].as_float() if name in node.attributes else default


def _relu(algebra: Algebra, _: ir.Node, x: Operand, __: Operand) -> Operand:
    return algebra.above(x, _number(0))


def _leaky_relu(algebra: Algebra, node: ir.Node, x: Operand, _: Operand) -> Operand:
    alpha = _attribute(node, "alpha", 0.01)
    return algebra.add(algebra.multiply(algebra.above(x, _number(0)), _number(1 - alpha)), _number(alpha))


def _prelu(algebra: Algebra, node: ir.Node, x: Operand, _: Operand) -> Operand:
    alpha = g.constant(node.inputs[1])
    if alpha is None:
        raise ValueError("its slope is not constant")
    slope = np.asarray(alpha, dtype=np.float64).reshape(1, -1)
    return algebra.add(algebra.multiply(algebra.above(x, _number(0)), 1 - slope), slope)


def _inside(algebra: Algebra, x: Operand, low: float | None, high: float | None) -> Operand:
    """1 strictly between two bounds, 0 elsewhere."""
    masks = []
    if low is not None:
        masks.append(algebra.above(x, _number(low)))
    if high is not None:
        masks.append(algebra.above(_number(high), x))
    return masks[0] if len(masks) == 1 else algebra.multiply(*masks)


def _clip(algebra: Algebra, node: ir.Node, x: Operand, _: Operand) -> Operand:
    bounds = []
    for name, value in zip(("min", "max"), (*node.inputs[1:], None, None), strict=False):
        constant = g.constant(value)
        if value is not None and constant is None:
            raise ValueError("its bounds are not constant")
        given = node.attributes[name].as_float() if name in node.attributes else None
        bounds.append(given if constant is None else float(constant.item()))
    if bounds == [None, None]:
        raise ValueError("it has no bounds")
    return _inside(algebra, x, *bounds)


def _hard_sigmoid(algebra: Algebra, node: ir.Node, x: Operand, _: Operand) -> Operand:
    alpha, beta = _attribute(node, "alpha", 0.2), _attribute(node, "beta", 0.5)
    return algebra.multiply(_inside(algebra, x, -beta / alpha, (1 - beta) / alpha), _number(alpha))


def _hard_swish(algebra: Algebra, _: ir.Node, x: Operand, __: Operand) -> Operand:
    """0 below −3, 1 above 3, (2x + 3) / 6 between (Howard et al. 2019)."""
    between = algebra.divide(algebra.add(algebra.multiply(x, _number(2)), _number(3)), _number(6))
    return algebra.add(algebra.multiply(_inside(algebra, x, -3, 3), between), algebra.above(x, _number(3)))


def _sigmoid(algebra: Algebra, _: ir.Node, __: Operand, y: Operand) -> Operand:
    return algebra.multiply(y, algebra.subtract(_number(1), y))


def _tanh(algebra: Algebra, _: ir.Node, __: Operand, y: Operand) -> Operand:
    return algebra.subtract(_number(1), algebra.multiply(y, y))


def _erf(algebra: Algebra, _: ir.Node, x: Operand, __: Operand) -> Operand:
    return algebra.multiply(algebra.exponential(algebra.multiply(algebra.multiply(x, x), _number(-1))), _number(2 / math.sqrt(math.pi)))


def _gelu(algebra: Algebra, node: ir.Node, x: Operand, _: Operand) -> Operand:
    """Φ(x) + x · φ(x), or the same of its tanh approximation (Hendrycks & Gimpel 2016)."""
    square = algebra.multiply(x, x)
    if "approximate" in node.attributes and node.attributes["approximate"].as_string() == "tanh":
        root, cubic = math.sqrt(2 / math.pi), 0.044715
        inner = algebra.multiply(algebra.multiply(x, algebra.add(algebra.multiply(square, _number(cubic)), _number(1))), _number(root))
        bent = algebra.tanh(inner)
        rise = algebra.multiply(algebra.add(algebra.multiply(square, _number(3 * cubic)), _number(1)), _number(root))
        steep = algebra.multiply(algebra.subtract(_number(1), algebra.multiply(bent, bent)), rise)
        return algebra.multiply(algebra.add(algebra.add(bent, _number(1)), algebra.multiply(x, steep)), _number(0.5))
    share = algebra.multiply(algebra.add(algebra.error_function(algebra.multiply(x, _number(math.sqrt(0.5)))), _number(1)), _number(0.5))
    density = algebra.multiply(algebra.exponential(algebra.multiply(square, _number(-0.5))), _number(1 / math.sqrt(2 * math.pi)))
    return algebra.add(share, algebra.multiply(x, density))


def _power(algebra: Algebra, node: ir.Node, x: Operand, _: Operand) -> Operand:
    exponent = g.constant(node.inputs[1])
    if exponent is None or exponent.size != 1:
        raise ValueError("its exponent is not one constant")
    power = float(exponent.item())
    base = algebra.at_least(x, _LEAST_ROOT**2) if 0 < power < 1 else x
    return algebra.multiply(algebra.power(base, power - 1), _number(power))


def _square_root(algebra: Algebra, _: ir.Node, __: Operand, y: Operand) -> Operand:
    return algebra.divide(_number(0.5), algebra.at_least(y, _LEAST_ROOT))


def _softplus(algebra: Algebra, _: ir.Node, x: Operand, __: Operand) -> Operand:
    return algebra.sigmoid(x)


def _exponential(_: Algebra, __: ir.Node, ___: Operand, y: Operand) -> Operand:
    return y


def _elu(algebra: Algebra, node: ir.Node, x: Operand, y: Operand) -> Operand:
    """1 above 0, α eˣ = y + α below."""
    above = algebra.above(x, _number(0))
    below = algebra.multiply(algebra.subtract(_number(1), above), algebra.add(y, _number(_attribute(node, "alpha", 1.0))))
    return algebra.add(above, below)


def _negative(_: Algebra, __: ir.Node, ___: Operand, ____: Operand) -> Operand:
    return _number(-1.0)


ACTIVATIONS: dict[str, Activation] = {
    "Clip": Activation(_clip, piecewise_linear=True),
    "Elu": Activation(_elu),
    "Erf": Activation(_erf),
    "Exp": Activation(_exponential),
    "Gelu": Activation(_gelu),
    "HardSigmoid": Activation(_hard_sigmoid, piecewise_linear=True),
    "HardSwish": Activation(_hard_swish),
    "LeakyRelu": Activation(_leaky_relu, piecewise_linear=True),
    "Neg": Activation(_negative, piecewise_linear=True),
    "PRelu": Activation(_prelu, piecewise_linear=True),
    "Pow": Activation(_power),
    "Relu": Activation(_relu, piecewise_linear=True),
    "Sigmoid": Activation(_sigmoid),
    "Softplus": Activation(_softplus),
    "Sqrt": Activation(_square_root),
    "Tanh": Activation(_tanh),
}
"""ONNX operator to its slope."""
