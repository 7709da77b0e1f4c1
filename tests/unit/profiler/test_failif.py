"""Limits: what is read, what is judged, and that nothing passes in silence."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import EdgekitError, RegressionError
from edgekit.profiler import failif

DOCUMENT = {
    "latency_ms": {"p50": 2.5, "p99": None, "max": 9.0, "samples": 412},
    "peak_memory_mib": 80.0,
    "warmup": {"steady": True, "reason": "", "window_medians_ms": [1.0]},
    "broken": float("nan"),
    "unavailable": {"latency_ms.p99": "p99 needs 662 samples after the warm-up, there are 412"},
}


@pytest.mark.parametrize(
    ("expression", "path", "operator", "number"),
    [
        ("latency_ms.p99 > 20", "latency_ms.p99", ">", 20.0),
        ("latency_ms.p99>=20.5", "latency_ms.p99", ">=", 20.5),
        ("  a.b_c.d-e  <=  -1e-3 ", "a.b_c.d-e", "<=", -0.001),
        ("samples != 0", "samples", "!=", 0.0),
        ("x == +3", "x", "==", 3.0),
        ("x<.5".replace(".", "0."), "x", "<", 0.5),
    ],
)
def test_an_expression_is_a_path_an_operator_and_a_number(expression, path, operator, number):
    """Spaces do not matter."""
    assert failif.parse(expression) == failif.Limit(path=path, operator=operator, number=number)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "latency_ms.p99",
        "> 20",
        "p99 > 20ms",
        "p99 => 20",
        "p99 = 20",
        "p99 > nan",
        "p99 > inf",
        "p99 > 1 or 1",
        "a..b > 1",
        "a > b",
        "p99 > ٣",
        "a > 1\n> 2",
    ],
)
def test_anything_else_is_refused_with_an_example(expression):
    """A unit, an unknown operator and a name for a number are not guessed at."""
    with pytest.raises(EdgekitError, match="cannot read the limit") as caught:
        failif.parse(expression)
    assert "latency_ms.p99 > 20" in caught.value.hint


@given(st.text(max_size=40))
def test_no_text_makes_anything_but_a_limit_or_an_error(text):
    """The parser never lets another exception out."""
    with contextlib.suppress(EdgekitError):
        assert isinstance(failif.parse(text), failif.Limit)


def test_a_misspelt_path_is_refused_before_measuring_where_the_paths_are_known():
    """The hint has the nearest one."""
    with pytest.raises(EdgekitError, match=r"no figure 'latency_ms\.p98'") as caught:
        failif.parse("latency_ms.p98 > 3", known=["latency_ms.p99", "peak_memory_mib"])
    assert "'latency_ms.p99'" in caught.value.hint


@pytest.mark.parametrize(
    ("expression", "is_broken"),
    [
        ("latency_ms.p50 > 2.4", True),
        ("latency_ms.p50 > 2.5", False),
        ("latency_ms.p50 >= 2.5", True),
        ("latency_ms.p50 < 2.6", True),
        ("latency_ms.p50 <= 2.4", False),
        ("latency_ms.samples == 412", True),
        ("latency_ms.samples != 412", False),
        ("warmup.steady == 0", False),
        ("warmup.steady == 1", True),
    ],
)
def test_a_limit_says_when_to_fail(expression, is_broken):
    """Exit code 4 comes with the error; a limit that holds says nothing."""
    limits = [failif.parse(expression)]
    if not is_broken:
        failif.check(limits, DOCUMENT)
        return
    with pytest.raises(RegressionError) as caught:
        failif.check(limits, DOCUMENT)
    assert caught.value.exit_code == 4


def test_every_broken_limit_is_reported_with_its_figure():
    """Two broken, one kept: the message has the two."""
    limits = [failif.parse(text) for text in ("latency_ms.p50 > 1", "latency_ms.max > 100", "peak_memory_mib > 64")]
    with pytest.raises(RegressionError) as caught:
        failif.check(limits, DOCUMENT)
    assert "latency_ms.p50 is 2.5, must not be > 1" in caught.value.message
    assert "peak_memory_mib is 80, must not be > 64" in caught.value.message
    assert "latency_ms.max" not in caught.value.message


def test_a_figure_that_is_not_known_never_passes():
    """A p99 of too few samples is an error with its reason, exit code 1; so is NaN."""
    with pytest.raises(EdgekitError, match="needs 662 samples") as caught:
        failif.check([failif.parse("latency_ms.p99 > 20")], DOCUMENT)
    assert caught.value.exit_code == 1
    with pytest.raises(EdgekitError, match="broken is not known"):
        failif.check([failif.parse("broken > 20")], DOCUMENT)


def test_a_broken_limit_goes_before_one_that_cannot_be_judged():
    """The regression is what a pipeline must see; the other is in the hint."""
    limits = [failif.parse("latency_ms.p99 > 20"), failif.parse("latency_ms.p50 > 1")]
    with pytest.raises(RegressionError) as caught:
        failif.check(limits, DOCUMENT)
    assert "needs 662 samples" in caught.value.hint


@pytest.mark.parametrize("path", ["latency_ms.p98", "latency_ms", "warmup.reason", "warmup.window_medians_ms", "unavailable.latency_ms"])
def test_a_path_without_a_figure_is_an_error(path):
    """A misspelt path, a group, a text and a list are no figures; a broken limit beside it does not hide that."""
    with pytest.raises(EdgekitError, match=re.escape(f"no figure '{path}'")) as caught:
        failif.check([failif.parse("latency_ms.p50 > 1"), failif.parse(f"{path} > 1")], DOCUMENT)
    assert caught.value.exit_code == 1
    assert "available: " in caught.value.hint


def test_a_figure_without_end_breaks_a_limit_from_above():
    """A p99 that falls on frames which were never answered is null, and above 20 all the same; below 20 it is not."""
    document = {"paced": {"p99": None, "p95": None}, "without_end": ["paced.p99"], "unavailable": {"paced.p95": "too few"}}
    with pytest.raises(RegressionError, match=r"paced\.p99 is without end, must not be > 20"):
        failif.check([failif.parse("paced.p99 > 20")], document)
    failif.check([failif.parse("paced.p99 < 20")], document)
    with pytest.raises(EdgekitError, match="cannot be judged") as raised:
        failif.check([failif.parse("paced.p95 > 20")], document)
    assert not isinstance(raised.value, RegressionError)


def test_a_part_that_was_not_asked_for_names_its_option():
    """Where a figure of it is meant; a slip of the pen in a part that was asked for has the nearest names."""
    with pytest.raises(EdgekitError, match="paced is measured only with --fps") as raised:
        failif.parse("paced.p99 > 1", known=["latency_ms.p99"], options={"paced": "--fps"})
    assert raised.value.hint == "give --fps too"
    with pytest.raises(EdgekitError, match="there is no figure"):
        failif.parse("paced.p98 > 1", known=["paced.p99"], options={"paced": "--fps"})
