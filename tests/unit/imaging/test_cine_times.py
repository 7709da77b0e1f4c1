"""When the frames of a cine are shown: what the object says, and nothing where it says nothing usable."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_builders import CANARY, dicom_bytes

from edgekit.imaging import frames

CINE = np.arange(4 * 6 * 8, dtype=np.uint8).reshape(4, 6, 8)
TIME, VECTOR = 0x00181063, 0x00181065

CASES = {
    "frame time": ({"FrameTime": "40", "FrameIncrementPointer": TIME}, [0, 0.04, 0.08, 0.12]),
    "frame time without a pointer": ({"FrameTime": "40"}, [0, 0.04, 0.08, 0.12]),
    "vector": ({"FrameTimeVector": ["0", "10", "30", "20"], "FrameIncrementPointer": VECTOR}, [0, 0.01, 0.04, 0.06]),
    "vector without a pointer": ({"FrameTimeVector": ["0", "10", "30", "20"]}, [0, 0.01, 0.04, 0.06]),
    "the pointer decides for the vector": (
        {"FrameTime": "40", "FrameTimeVector": ["0", "10", "30", "20"], "FrameIncrementPointer": VECTOR},
        [0, 0.01, 0.04, 0.06],
    ),
    "the pointer decides for the time": (
        {"FrameTime": "40", "FrameTimeVector": ["0", "10", "30", "20"], "FrameIncrementPointer": TIME},
        [0, 0.04, 0.08, 0.12],
    ),
    "cine rate": ({"CineRate": "20"}, [0, 0.05, 0.1, 0.15]),
    "nothing": ({}, [None] * 4),
    "a time of zero": ({"FrameTime": "0"}, [None] * 4),
    "a negative time": ({"FrameTime": "-40"}, [None] * 4),
    "a vector that is too short": ({"FrameTimeVector": ["0", "10"]}, [None] * 4),
    "a vector that goes back": ({"FrameTimeVector": ["0", "10", "-5", "10"]}, [None] * 4),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_times_are_the_objects(tmp_path, case):
    """And they change no pixel."""
    attributes, expected = CASES[case]
    path = tmp_path / "cine.dcm"
    path.write_bytes(dicom_bytes(CINE, **attributes))
    found = list(frames.read(path))
    np.testing.assert_array_equal([frame.pixels for frame in found], CINE)
    assert [frame.time_s if frame.time_s is None else round(frame.time_s, 9) for frame in found] == expected


def test_a_time_that_is_no_number_is_no_time(tmp_path):
    """It decides no pixel, so the picture is read; nothing of the object's text is printed."""
    path = tmp_path / "cine.dcm"
    data = dicom_bytes(CINE, FrameTime="40.000")
    path.write_bytes(data.replace(b"40.000", f"{CANARY}"[:6].encode()))
    assert [frame.time_s for frame in frames.read(path)] == [None] * 4
