"""The program of the child process that decodes with GDCM (see `dicom_gdcm`); it imports nothing of edgekit.

Rules this file keeps:

1. A request is a JSON line and the compressed frame, a reply is the length of the decoded frame (8 bytes, little endian) and the frame.
2. Whatever goes wrong ends the process: the parent reads that as "cannot be decoded".
"""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import Any


def decode(request: dict[str, Any], data: bytes) -> bytes:
    """Decodes one frame to native little-endian samples, colour by pixel.

    Args:
        request: `rows`, `columns`, `samples`, `bits_allocated`, `precision`, `signed`, `photometric` and `syntax`, as in `PixelData`.
        data: One compressed frame.

    Returns:
        The samples; their number is for the parent to check.
    """
    import gdcm

    fragment, fragments = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
    fragment.SetByteStringValue(data)
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((request["columns"], request["rows"], 1))
    image.SetDataElement(element)
    photometric = gdcm.PhotometricInterpretation.GetPIType(request["photometric"])
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(photometric))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(request["syntax"])))
    bits = request["precision"]
    image.SetPixelFormat(gdcm.PixelFormat(request["samples"], request["bits_allocated"], bits, bits - 1, request["signed"]))
    # GDCM hands bytes out as text.
    return bytes(image.GetBuffer().encode("utf-8", "surrogateescape"))


def main() -> None:
    """Answers requests on standard input until it is closed."""
    answers = os.fdopen(os.dup(1), "wb")
    # What the C library prints must not get between the answers.
    os.dup2(2, 1)
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        frame = decode(request, sys.stdin.buffer.read(request["length"]))
        answers.write(struct.pack("<Q", len(frame)) + frame)
        answers.flush()


if __name__ == "__main__":
    main()
