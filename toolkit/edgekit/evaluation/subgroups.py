"""Do some patients pay for the compression: flips by the values of the manifest's further columns (view, probe, site, sex …).

Rules this file keeps:

1. A column is used when it has 2 to `MOST_VALUES` different values among the frames and repeats them: a file name or an identifier is no subgroup.
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


def find_subgroups(flips: Flips, extra: Sequence[Mapping[str, str]], groups: Sequence[str]) -> tuple[Subgroup, ...]:
    """Counts flips in every subgroup.

    Args:
        flips: Of the same frames.
        extra: The further columns of each frame; all with the same keys, or empty where the manifest has none.
        groups: The patient or video of each frame.

    Returns:
        By column in the manifest's order, then by value.
    """
    if not extra:
        return ()
    if not len(extra) == len(groups) == flips.frames:
        raise ValueError(f"{len(extra)} rows and {len(groups)} groups for {flips.frames} frames")
    result = []
    for column in extra[0]:
        values = [row[column].strip() or NOT_STATED for row in extra]
        distinct = sorted(set(values))
        if 2 <= len(distinct) <= MOST_VALUES and len(distinct) < len(values):
            result += [
                _subgroup(column, value, flips, [i for i, found in enumerate(values) if found == value], groups) for value in distinct
            ]
    return tuple(result)


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
