"""What a compressed picture says about itself, read from its first bytes without decoding anything.

Rules this file keeps:

1. Nothing is allocated for pixels here: the size is known, and can be refused, before a decoder sees the file.
2. Only bytes are looked at, so the answer is the same whichever decoder is installed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

# ITU-T T.81 table B.1: every start-of-frame marker; F7 is JPEG-LS (ITU-T T.87). C4, C8 and CC are not frames.
_START_OF_FRAME = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7})
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_PIXELS_OR_END = frozenset({0xD9, 0xDA})

# ITU-T T.800 A.5.1: start of codestream, then the size segment, which must come second.
_JPEG2000_START = b"\xff\x4f\xff\x51"
_JPEG2000_BOXES_BYTES = 4096
"""How far into a JPEG 2000 file the codestream may begin, when somebody left the file format's boxes around it."""

_PNG_HEADER_END = 29


@dataclass(frozen=True, slots=True, kw_only=True)
class Codestream:
    """Size of a compressed picture: `rows` × `columns` of `components` samples with `precision` bits each."""

    rows: int
    columns: int
    components: int
    precision: int


def jpeg(data: bytes) -> Codestream | None:
    """Reads the start-of-frame segment of a JPEG or JPEG-LS picture (ITU-T T.81 B.2.2); None when there is none before the pixels."""
    position = 2
    if data[:2] != b"\xff\xd8":
        return None
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF or marker in _WITHOUT_LENGTH:
            position += 1 if marker == 0xFF else 2
            continue
        if marker in _PIXELS_OR_END:
            return None
        if marker in _START_OF_FRAME:
            if position + 10 > len(data):
                return None
            precision, rows, columns, components = struct.unpack_from(">BHHB", data, position + 4)
            return Codestream(rows=rows, columns=columns, components=components, precision=precision)
        position += 2 + int(struct.unpack_from(">H", data, position + 2)[0])
    return None


def jpeg2000(data: bytes) -> Codestream | None:
    """Reads the size segment of a JPEG 2000 codestream (ITU-T T.800 A.5.1); None when there is none."""
    start = data.find(_JPEG2000_START, 0, _JPEG2000_BOXES_BYTES)
    if start < 0 or start + 43 > len(data):
        return None
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    components, depth = struct.unpack_from(">H", data, start + 40)[0], data[start + 42]
    return Codestream(rows=bottom - top, columns=right - left, components=components, precision=(depth & 0x7F) + 1)


def png(data: bytes) -> Codestream | None:
    """Reads the header chunk of a PNG (ISO/IEC 15948 11.2.2), which must come first; `precision` is its bit depth, before a palette."""
    if len(data) < _PNG_HEADER_END or data[12:16] != b"IHDR":
        return None
    columns, rows, depth, colour = struct.unpack_from(">IIBB", data, 16)
    components = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 0)
    return Codestream(rows=rows, columns=columns, components=components, precision=depth)
