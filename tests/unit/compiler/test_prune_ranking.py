"""Which units go: shares, blocks, limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.compiler.prune.ranking import Candidate, block_of, can_lose, choose


def candidate(name="a", scores=(), **changes):
    fields = {"name": name, "kind": "k", "scores": tuple(scores), "original": len(scores), "width": 1, "block": 1, "least": 1}
    return Candidate(**{**fields, **changes})


@st.composite
def networks(draw):
    """Some structures of random sizes, widths and scores."""
    found = []
    for number in range(draw(st.integers(1, 5))):
        scores = draw(st.lists(st.floats(0, 10), min_size=1, max_size=40))
        found.append(
            candidate(
                f"s{number}",
                scores,
                kind=draw(st.sampled_from("xy")),
                width=draw(st.sampled_from([1, 1, 8, 64])),
                block=draw(st.sampled_from([1, 2, 8, 16])),
                least=draw(st.integers(1, 4)),
            )
        )
    return found


def test_the_lowest_go():
    """Of one structure with blocks of one, the share with the lowest scores goes."""
    assert choose([candidate(scores=[5, 1, 4, 2, 3])], 0.4, "global") == {"a": (1, 3)}


def test_structures_compete_in_their_scope():
    """Across the network the poorer structure pays; within kinds each pays its share."""
    poor, rich = candidate("poor", [1, 2, 3, 4], kind="x"), candidate("rich", [5, 6, 7, 8], kind="y")
    assert choose([poor, rich], 0.25, "global") == {"poor": (0, 1)}
    assert choose([poor, rich], 0.25, "isomorphic") == {"poor": (0,), "rich": (0,)}


def test_a_share_counts_channels():
    """A unit of eight channels takes eight times as much of the share as one of one."""
    wide, narrow = candidate("wide", [1, 9], width=8), candidate("narrow", [2] * 16)
    assert choose([wide, narrow], 8 / 32, "global") == {"wide": (0,)}


def test_what_went_before_counts():
    """A share of the original channels that is already gone takes nothing more."""
    half = candidate(scores=[1, 2], original=4)
    assert choose([half], 0.5, "global") == {}
    assert choose([half], 0.75, "global") == {"a": (0,)}


def test_equal_scores_are_taken_in_order():
    """Ties go by the order of structures and units, and not by chance."""
    assert choose([candidate("b", [1, 1]), candidate("a", [1, 1])], 0.25, "global") == {"b": (0,)}


@given(networks(), st.sampled_from(["global", "isomorphic"]), st.floats(0, 1))
def test_what_is_left_is_whole_blocks(candidates, scope, ratio):
    """A structure that loses units keeps a multiple of its block, and never less than it must."""
    gone = choose(candidates, ratio, scope)
    for one in candidates:
        left = len(one.scores) - len(gone.get(one.name, ()))
        assert left == len(one.scores) or (left % one.block == 0 and left >= max(one.least, one.block))


@given(networks(), st.sampled_from(["global", "isomorphic"]), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_takes_the_same_and_more(candidates, scope, one, other):
    """What a share takes, every larger share takes too."""
    less, more = (choose(candidates, ratio, scope) for ratio in sorted((one, other)))
    assert all(set(units) <= set(more.get(name, ())) for name, units in less.items())


@given(networks(), st.sampled_from(["global", "isomorphic"]))
def test_the_ends(candidates, scope):
    """A share of nothing takes nothing, and a share of everything takes all that may go."""
    assert choose(candidates, 0, scope) == {}
    widths = {one.name: one.width for one in candidates}
    taken = sum(len(units) * widths[name] for name, units in choose(candidates, 1, scope).items())
    assert taken == sum(can_lose(one) for one in candidates)


@given(networks(), st.floats(0, 1))
def test_the_share_is_met_to_a_block(candidates, ratio):
    """Across the network, what goes is within half a block of the share, unless no more may go."""
    gone = choose(candidates, ratio, "global")
    widths = {one.name: one.width for one in candidates}
    taken = sum(len(units) * widths[name] for name, units in gone.items())
    wanted = ratio * sum(one.original * one.width for one in candidates)
    largest = max(one.width * max(one.block, len(one.scores) % one.block) for one in candidates)
    assert taken <= wanted + largest / 2 + 1e-6
    assert taken >= min(wanted, sum(can_lose(one) for one in candidates)) - largest / 2 - 1e-6


@pytest.mark.parametrize(("width", "round_to", "block"), [(1, 16, 16), (8, 16, 2), (24, 16, 2), (16, 16, 1), (3, 8, 8), (64, 1, 1)])
def test_blocks_are_multiples_of_the_rounding(width, round_to, block):
    """A block's channels are the smallest common multiple of a unit's width and the rounding."""
    assert block_of(width, round_to) == block
