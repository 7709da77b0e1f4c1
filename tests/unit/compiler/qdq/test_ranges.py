"""Ranges of activations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdq_builders import Sketch, frames, node, plain, quantize_linear, run

from edgekit.compiler.progress import Silent
from edgekit.compiler.quantize.qdq import ranges
from edgekit.compiler.quantize.qdq.ranges import Scale, Seen, choose, half_up, observe, round_with
from edgekit.errors import ModelError

METHODS = ("extremes", "least-error")
magnitudes = st.floats(1e-6, 1e6)


def seen_of(values):
    values = np.asarray(values, dtype=np.float32)
    return Seen(float(values.min()), float(values.max()), [values.ravel()])


@given(low=magnitudes, high=magnitudes, unsigned=st.booleans(), method=st.sampled_from(METHODS))
def test_zero_is_an_integer(low, high, unsigned, method):
    """0 comes back as exactly 0, whatever the range: padding and ReLU make zeros."""
    scale = choose(seen_of([-low, high]), method, unsigned=unsigned, half=False)
    assert round_with(np.zeros(1), scale)[0] == 0
    assert (0 <= scale.zero_point <= 255) if unsigned else scale.zero_point == 0
    assert scale.scale == float(np.float32(scale.scale)) > 0


@given(low=magnitudes, high=magnitudes, signs=st.sampled_from([(-1, 1), (1, 1), (-1, -1)]), unsigned=st.booleans())
def test_extremes_keep_everything_to_half_a_step(low, high, signs, unsigned):
    """What was seen comes back within half a step, and a step for the moved zero point, also where 0 is far outside of it."""
    ends = signs[0] * low, signs[1] * high
    scale = choose(seen_of(ends), "extremes", unsigned=unsigned, half=False)
    values = np.linspace(*ends, 101)
    assert np.abs(round_with(values, scale) - values).max() <= (1.0 if unsigned else 0.5) * scale.scale * (1 + 1e-5)


def test_a_value_that_is_never_negative_uses_every_step():
    """uint8 behind a ReLU has its zero point at 0 and 255 steps above it."""
    scale = choose(seen_of([0.0, 5.1]), "extremes", unsigned=True, half=False)
    assert (scale.zero_point, scale.unsigned) == (0, True)
    assert scale.scale == pytest.approx(5.1 / 255)


@pytest.mark.parametrize("unsigned", [True, False])
def test_one_outlier_does_not_take_everybodys_precision(unsigned):
    """With one value far out, the least-error range has a smaller error on the sample than the extremes have."""
    values = np.append(np.abs(np.random.default_rng(0).normal(size=2_000_000)), 100.0).astype(np.float32)
    errors = {}
    for method in METHODS:
        scale = choose(seen_of(values), method, unsigned=unsigned, half=False)
        errors[method] = ((round_with(values, scale) - values) ** 2).mean()
    assert errors["least-error"] < 0.5 * errors["extremes"]


@pytest.mark.parametrize("share", [0.0, 0.9, 0.995])
def test_the_least_error_is_that_of_the_values(share):
    """The chosen range is within a tenth of the best candidate's error on the values themselves, also where most of them are exactly 0."""
    random = np.random.default_rng(1)
    values = np.abs(random.normal(size=40000)) * (random.random(40000) >= share)
    found = choose(seen_of(values), "least-error", unsigned=True, half=False)

    def error(scale):
        return ((round_with(values, scale) - values) ** 2).mean()

    best = min(error(choose(seen_of(values * part), "extremes", unsigned=True, half=False)) for part in ranges.CANDIDATES)
    assert error(found) <= 1.1 * best


@given(st.lists(st.floats(1e-9, 6e4), min_size=1, max_size=8))
def test_a_float16_scale_is_exact_and_never_smaller(scales):
    """The result is a float16, not below what was asked for, and the nearest such."""
    wanted = np.array(scales)
    found = half_up(wanted)
    assert (found.astype(np.float16).astype(np.float64) == found).all()
    assert (found >= wanted).all()
    below = np.nextafter(found.astype(np.float16), np.float16(0)).astype(np.float64)
    assert ((below < wanted) | (below == 0)).all()


def test_a_scale_that_float16_cannot_hold_is_refused():
    """Infinity would be a silent wrong answer."""
    with pytest.raises(ModelError, match="larger than float16"):
        half_up(np.array([70000.0]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("unsigned", [True, False])
@pytest.mark.parametrize("half", [True, False])
def test_a_value_that_is_always_zero(method, unsigned, half):
    """It has a positive scale, and 0 stays 0."""
    scale = choose(seen_of(np.zeros(5)), method, unsigned=unsigned, half=half)
    assert scale.scale > 0
    assert round_with(np.zeros(3), scale).tolist() == [0, 0, 0]


@given(
    values=st.lists(st.floats(-100, 100), min_size=1, max_size=20),
    scale=st.floats(1e-3, 10),
    zero_point=st.integers(0, 255),
    unsigned=st.booleans(),
)
def test_rounding_is_that_of_onnx(values, scale, zero_point, unsigned):
    """Half to even, and saturated: the numpy model of QuantizeLinear and DequantizeLinear."""
    zero, kind = (zero_point, np.uint8) if unsigned else (0, np.int8)
    integers = quantize_linear(np.array(values), scale, zero, kind).astype(np.float64)
    found = round_with(np.array(values), Scale(scale=scale, zero_point=zero, unsigned=unsigned))
    assert np.array_equal(found, (integers - zero) * scale)


def blown_up(at):
    """A network that is not finite on the frames that are white everywhere."""
    s = Sketch()
    s.add("Exp", [s.add("Mul", ["planes", s.constant("steep", np.full(1, 100.0))], "scaled")], "power")
    s.head(s.relu(s.conv(s.relu(s.conv("power", "stem", 16, 1)), "last", 16, 16)), 16)
    tensors = np.zeros((3, 8, 8, 1), np.uint8)
    tensors[at] = 255
    return s.model(), tensors


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_value_that_is_not_finite_is_refused_on_whatever_frame(at):
    """Also where a frame before or after it is fine."""
    model, tensors = blown_up(at)
    with pytest.raises(ModelError, match="not finite"):
        observe(model, [node(model, "power").outputs[0]], tensors, Silent())


def test_values_that_are_no_numbers_are_refused():
    """NaN compares with nothing, and is seen all the same."""
    s = Sketch()
    s.add("Log", [s.add("Add", ["planes", s.constant("half", np.full(1, 0.5))], "shifted")], "logarithm")
    s.head(s.relu(s.conv(s.conv("logarithm", "stem", 16, 1), "last", 16, 16)), 16)
    model = s.model()
    tensors = np.full((2, 8, 8, 1), 200, np.uint8)
    tensors[1, 0, 0] = 0
    with pytest.raises(ModelError, match="not finite"):
        observe(model, [node(model, "logarithm").outputs[0]], tensors, Silent())


def test_what_is_seen_is_what_the_graph_computes():
    """Extremes are over all frames and positions, and the sample is of the values."""
    model, tensors = plain().model(), frames(5)
    value = node(model, "middle_relu").outputs[0]
    (expected,) = run(model, tensors, ["middle_relu"])
    found = observe(model, [value], tensors, Silent())["middle_relu"]
    assert found.low == pytest.approx(expected.min(), abs=1e-5)
    assert found.high == pytest.approx(expected.max(), abs=1e-5)
    assert np.concatenate(found.samples).size == expected.size


@pytest.mark.parametrize("shape", [(1, 1024, 7, 7), (1, 1024, 8, 8), (1, 96, 56, 56), (1, 2048, 7, 7), (1, 197, 768)])
def test_a_sample_visits_every_column_and_row(shape):
    """The border of a map, where its padding is felt, must not stand for all of it."""
    seen = Seen(np.inf, -np.inf, [])
    for axis in range(2, len(shape)):
        positions = np.broadcast_to(np.arange(shape[axis], dtype=np.float32).reshape((-1,) + (1,) * (len(shape) - 1 - axis)), shape)
        seen.samples.clear()
        seen.look(positions)
        assert set(seen.samples[0]) == set(range(shape[axis]))
        assert ranges.SAMPLES / 2 <= seen.samples[0].size <= 3 * ranges.SAMPLES


def test_a_group_has_one_scale_for_all_that_its_members_reach():
    """The largest of either decides."""
    groups = {"a": "a", "b": "a", "c": "c"}
    values = {name: type("V", (), {"name": name})() for name in groups}
    seen = {"a": seen_of([-1, 1]), "b": seen_of([-4, 2]), "c": seen_of([0, 1])}
    found = ranges.scales_of({values[name]: values[first] for name, first in groups.items()}, seen, "extremes", unsigned=False, half=False)
    assert found[values["a"]] == found[values["b"]]
    assert found[values["a"]].scale == pytest.approx(4 / 127)
    assert found[values["c"]].scale == pytest.approx(1 / 127)
