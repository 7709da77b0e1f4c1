"""What a video file says about its own length, so that one that was cut off is told from one that is whole.

FFmpeg answers a file that ends too early like one that ends: with no more frames. A cine that lost its end while it was copied would be
classified as if nothing were missing. The three containers say how many bytes belong to them, and that is compared with the file before anything is decoded.

Rules this file keeps:

1. Only sizes are read, never what is in a box, chunk or element. Each step moves on by at least eight bytes, so every file ends.
2. What a container leaves open (a Matroska segment of unknown size, an MP4 box that goes to the end of the file) is taken as it is: such a file may have
   been cut off without a sign.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

# ISO/IEC 14496-12, 4.2.2: a size of 1 means that 64 bits follow, 0 that the box goes to the end of the file.
_LARGE_BOX, _BOX_TO_END = 1, 0
# RFC 9559 5.1 and RFC 8794 4 and 6.2: identifiers with their length marker; a size whose bits are all 1 is unknown.
_EBML_HEADER, _SEGMENT = 0x1A45DFA3, 0x18538067


def mp4_bytes(file: BinaryIO, length: int) -> int | None:
    """Bytes that the boxes of an MP4 or MOV ask for (ISO/IEC 14496-12, 4.2).

    Args:
        file: The file; its position is changed.
        length: Bytes of the file.

    Returns:
        Where the last box ends; more than `length` where the file was cut off. None where the boxes are no boxes.
    """
    at = 0
    while at + 8 <= length:
        file.seek(at)
        head = file.read(16)
        size, smallest = int.from_bytes(head[:4], "big"), 8
        if size == _LARGE_BOX:
            size, smallest = int.from_bytes(head[8:16], "big"), 16
        if size == _BOX_TO_END:
            return length
        if size < smallest:
            return None
        at += size
    return at


def avi_bytes(file: BinaryIO, length: int) -> int | None:
    """Bytes that the RIFF chunks of an AVI ask for; arguments and result as `mp4_bytes`. What follows that is no RIFF chunk is left alone."""
    at = 0
    while at + 12 <= length:
        file.seek(at)
        head = file.read(12)
        if head[:4] != b"RIFF":
            break
        size = int.from_bytes(head[4:8], "little")
        if size < 4:
            # The writer fills it in at the end: this one never came so far.
            return None
        at += 8 + size + size % 2
    # The last chunk may lack its padding byte.
    return length if at == length + 1 else max(at, 1)


def matroska_bytes(file: BinaryIO, length: int) -> int | None:
    """Bytes that the segment of a Matroska or WebM file asks for (RFC 8794, RFC 9559); arguments and result as `mp4_bytes`."""
    at = 0
    while at + 8 <= length:
        file.seek(at)
        head = file.read(12)
        identifier = _vint(head, 4, keep_marker=True)
        if identifier is None:
            return None
        size = _vint(head[identifier[1] :], 8, keep_marker=False)
        if size is None:
            return None
        start = at + identifier[1] + size[1]
        if size[0] == (1 << 7 * size[1]) - 1:
            return length if identifier[0] == _SEGMENT else None
        at = start + size[0]
        if identifier[0] == _SEGMENT:
            return at
    return None if at < length else at


def _vint(data: bytes, longest: int, *, keep_marker: bool) -> tuple[int, int] | None:
    """A variable-size integer (RFC 8794, 4) and its bytes; None where there is none of at most `longest` bytes."""
    if not data or not data[0]:
        return None
    count = 9 - data[0].bit_length()
    if count > longest or count > len(data):
        return None
    value = int.from_bytes(data[:count], "big")
    return (value if keep_marker else value & ((1 << 7 * count) - 1)), count


Measure = Callable[[BinaryIO, int], int | None]
