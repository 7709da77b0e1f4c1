"""What a container says of its length, checked on containers made by hand."""

from __future__ import annotations

import io

import pytest

from edgekit.imaging import containers


def box(size: int, kind: bytes = b"free", body: int = 0) -> bytes:
    return size.to_bytes(4, "big") + kind + bytes(body)


def riff(size: int, kind: bytes = b"AVI ", body: int = 0) -> bytes:
    return b"RIFF" + size.to_bytes(4, "little") + kind + bytes(body)


EBML, SEGMENT = b"\x1a\x45\xdf\xa3\x82ab", b"\x18\x53\x80\x67"

CASES = {
    "mp4 whole": (containers.mp4_bytes, box(12, body=4) + box(8), 20),
    "mp4 cut in a box": (containers.mp4_bytes, box(12, body=4) + box(50), 62),
    "mp4 with a box of 64 bits": (containers.mp4_bytes, box(1, body=0) + (30).to_bytes(8, "big") + bytes(14), 30),
    "mp4 with a box to the end": (containers.mp4_bytes, box(8) + box(0, body=100), 116),
    "mp4 with a box of no size": (containers.mp4_bytes, box(8) + box(7), None),
    "mp4 with a box of 64 bits and no size": (containers.mp4_bytes, box(1) + (15).to_bytes(8, "big"), None),
    "avi whole": (containers.avi_bytes, riff(14, body=10), 22),
    "avi cut": (containers.avi_bytes, riff(100, body=10), 108),
    "avi of odd length without its padding": (containers.avi_bytes, riff(13, body=9), 21),
    "avi of several parts, the last cut": (containers.avi_bytes, riff(14, body=10) + riff(90, b"AVIX"), 120),
    "avi with something behind it": (containers.avi_bytes, riff(14, body=10) + b"x" * 50, 22),
    "avi never finished": (containers.avi_bytes, riff(0, body=100), None),
    "matroska whole": (containers.matroska_bytes, EBML + SEGMENT + b"\x84abcd", 16),
    "matroska cut": (containers.matroska_bytes, EBML + SEGMENT + b"\x40\x20abcd", 45),
    "matroska of unknown size": (containers.matroska_bytes, EBML + SEGMENT + b"\x01" + b"\xff" * 7 + b"abcd", 23),
    "matroska with a void before its segment": (containers.matroska_bytes, EBML + b"\xec\x82ab" + SEGMENT + b"\x84abcd", 20),
    "matroska that is none": (containers.matroska_bytes, b"\x1a\x45\xdf\xa3\x00" + bytes(20), None),
    "matroska whose header has no size": (containers.matroska_bytes, b"\x1a\x45\xdf\xa3\xff" + bytes(20), None),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_the_length_is_what_the_container_says(case):
    """To the byte; None where it says nothing that can be."""
    measure, data, expected = CASES[case]
    assert measure(io.BytesIO(data), len(data)) == expected
