"""When the frames of a DICOM cine are to be shown, as the object says (PS3.3 C.7.6.5 and C.7.6.6).

Rules this file keeps:

1. Frame Increment Pointer decides between Frame Time and Frame Time Vector; without it Frame Time comes first, then the vector, then Cine Rate.
2. Times are for playing, and decide no pixel. What is not usable (zero, negative, too few, no number, frames that are more than a day or less than a microsecond apart) is
   no time, and whoever plays the cine has to name a rate.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from edgekit.errors import DataError
from edgekit.imaging.dicom_attributes import Attributes

_FRAME_TIME, _FRAME_TIME_VECTOR = 0x00181063, 0x00181065
_MS_A_SECOND = 1000
_USABLE_S = (1e-6, 86_400.0)


def frame_times(attributes: Attributes, frames: int) -> Iterator[float | None]:
    """The times of an object's frames.

    Args:
        attributes: The object.
        frames: Number of Frames.

    Yields:
        Seconds after the first frame, one for each frame at least; None where the object does not say.
    """
    period_s = _positive(attributes, "FrameTime")
    vector = _vector(attributes, frames)
    pointed = attributes.value("FrameIncrementPointer")
    tags = [int(tag) for tag in pointed] if isinstance(pointed, Sequence) and not isinstance(pointed, str) else [pointed]
    if vector is not None and (period_s is None or _FRAME_TIME_VECTOR in tags) and _FRAME_TIME not in tags:
        # The first entry is the first frame's own delay, 0 by the standard.
        yield from (after / _MS_A_SECOND for after in itertools.accumulate([0.0, *vector[1:]]))
        return
    if period_s is not None:
        period_s /= _MS_A_SECOND
    elif rate := _positive(attributes, "CineRate"):
        period_s = 1 / rate
    if period_s is not None and not _usable(period_s):
        period_s = None
    yield from (None if period_s is None else index * period_s for index in itertools.count())


def _positive(attributes: Attributes, keyword: str) -> float | None:
    try:
        found = attributes.number(keyword)
    except DataError:  # rule 2
        return None
    return found if found is not None and math.isfinite(found) and found > 0 else None


def _vector(attributes: Attributes, frames: int) -> list[float] | None:
    try:
        found = attributes.value("FrameTimeVector")
    except DataError:  # rule 2
        return None
    if not isinstance(found, Sequence) or isinstance(found, str) or len(found) != frames:
        return None
    try:
        values = [float(value) for value in found]
    except (TypeError, ValueError):  # rule 2
        return None
    usable = all(_usable(value / _MS_A_SECOND) for value in values[1:])
    return values if usable and frames > 1 else None


def _usable(seconds: float) -> bool:
    return _USABLE_S[0] <= seconds <= _USABLE_S[1]
