"""Do some patients pay for the compression: flips by the values of the manifest's further columns (view, probe, site, sex …).

Rules this file keeps:

1. A column is used when it has 2 to `MOST_VALUES` different values among the frames, and one of them is of several groups: a name for each frame,
   each patient or each video is an identifier, no subgroup. A column that is not used is named with the reason: nobody shall think that it was.
2. An empty cell is a value of its own, `NOT_STATED`: whose column is not filled in is a subgroup too.
3. The upper bound of the share of flips is the exact one-sided 97.5 % bound (Clopper & Pearson 1934) over the subgroup's groups where they have
   several frames, else over its frames.

A subgroup without a flip is not proven to be spared; its upper bound says how many there could be. With many subgroups one of them is above its limit by
chance more easily than all frames together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekit.evaluation.exact import clopper_pearson
from edgekit.evaluation.intervals import CONFIDENCE
from edgekit.evaluation.paired import Flips

MOST_VALUES = 12
NOT_STATED = "(not stated)"


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedColumn:
    """A column that makes no subgroups.

    Attributes:
        column: Its name in the data manifest.
        reason: Why, in words that follow the name; quotes no value.
    """

    column: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subgroup:
    """The frames with one value of one column.

    Attributes:
        column: Name of the column in the data manifest.
        value: Its value, without spaces around it.
        frames: Frames with it.
        groups: Patients or videos they come from.
        flips: Frames whose answer changed.
        harmful: Of these, right on the reference and wrong on the device.
        helpful: The other way round.
        upper: Upper bound of the share of flips (rule 3).
    """

    column: str
    value: str
    frames: int
    groups: int
    flips: int
    harmful: int
    helpful: int
    upper: float

    @property
    def rate(self) -> float:
        """Share of the frames whose answer changed."""
        return self.flips / self.frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Subgroups:
    """What the further columns gave.

    Attributes:
        found: By column in the manifest's order, then by value.
        skipped: The columns that make no subgroups, in the manifest's order.
    """

    found: tuple[Subgroup, ...] = ()
    skipped: tuple[SkippedColumn, ...] = ()


def find_subgroups(flips: Flips, extra: Sequence[Mapping[str, str]], groups: Sequence[str]) -> Subgroups:
    """Counts flips in every subgroup.

    Args:
        flips: Of the same frames.
        extra: The further columns of each frame; all with the same keys, or empty where the manifest has none.
        groups: The patient or video of each frame.
    """
    if not extra:
        return Subgroups()
    if not len(extra) == len(groups) == flips.frames:
        raise ValueError(f"{len(extra)} rows and {len(groups)} groups for {flips.frames} frames")
    result, skipped = [], []
    for column in extra[0]:
        values = [row[column].strip() or NOT_STATED for row in extra]
        if reason := _no_subgroups(values, groups):
            skipped.append(SkippedColumn(column=column, reason=reason))
            continue
        result += [
            _subgroup(column, value, flips, [i for i, found in enumerate(values) if found == value], groups)
            for value in sorted(set(values))
        ]
    return Subgroups(found=tuple(result), skipped=tuple(skipped))


def _no_subgroups(values: Sequence[str], groups: Sequence[str]) -> str:
    # Rule 1: why these values make no subgroups; empty where they do.
    stated = {value for value in values if value != NOT_STATED}
    distinct = len(set(values))
    if distinct < 2:
        return "the same in every frame"
    # As many pairs as values: no value is of two groups.
    pairs = {(value, group) for value, group in zip(values, groups, strict=True) if value in stated}
    if len(pairs) == len(stated):
        return "names frames, patients or videos: no value is of two groups"
    return f"{distinct} values, more than {MOST_VALUES}" if distinct > MOST_VALUES else ""


def _subgroup(column: str, value: str, flips: Flips, frames: Sequence[int], groups: Sequence[str]) -> Subgroup:
    members = set(frames)
    changed = members.intersection(flips.indices)
    touched = {groups[index] for index in frames}
    clustered = len(touched) < len(frames)
    trials = len(touched) if clustered else len(frames)
    # Where groups have several frames, the share of the frames is taken as if it had been seen on that many independent patients.
    upper = clopper_pearson(len(changed) / len(frames) * trials, trials, confidence=CONFIDENCE)[1]
    return Subgroup(
        column=column,
        value=value,
        frames=len(frames),
        groups=len(touched),
        flips=len(changed),
        harmful=len(members.intersection(flips.harmful)),
        helpful=len(members.intersection(flips.helpful)),
        upper=upper,
    )
