"""Array members: the plain part of NumPy's `.npy` format, without its reader.

`np.load` evaluates the header as a Python literal and allocates what it asks for. Here the header must be the text that `np.save` writes
for a little-endian number array, and the size it claims must be the size that is there.

Source: "NPY format", version 1.0, https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html.

Rules this file keeps:

1. Format version 1.0, C order, one of the types of `_TYPES`; no objects, no records, no empty arrays.
2. Size is checked with whole numbers before anything is allocated: the product of the shape times the item size equals the bytes that follow.
"""

from __future__ import annotations

import io
import math
import re
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.limits import DEFAULT_LIMITS, Limits

_PREAMBLE = struct.Struct("<8sH")
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(rb"\{'descr': '([|<][a-z][0-9])', 'fortran_order': (True|False), 'shape': \(([0-9, ]*)\), \} *\n")
_SIDE = rb"[1-9][0-9]{0,17}"
_SHAPE = re.compile(rb"%b,|%b(?:, %b)+" % (_SIDE, _SIDE, _SIDE))
_TYPES = {b"|u1": np.uint8, b"|i1": np.int8, b"<i4": np.int32, b"<i8": np.int64, b"<f4": np.float32, b"<f8": np.float64}


def dump_array(array: NDArray[Any]) -> bytes:
    """Encodes an array as an `.npy` member.

    Args:
        array: Of a type this file knows, with at least one element; written in C order and little-endian.

    Raises:
        ValueError: When the array is none that `parse_array` reads.
    """
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(array.shape)
    stream = io.BytesIO()
    np.lib.format.write_array(stream, plain, version=(1, 0), allow_pickle=False)
    content = stream.getvalue()
    parse_array(memoryview(content))
    return content


def parse_array(data: memoryview, limits: Limits = DEFAULT_LIMITS) -> NDArray[Any]:
    """Decodes an `.npy` member.

    Args:
        data: The member's bytes.
        limits: Number of dimensions.

    Returns:
        An aligned, writable copy: a member begins anywhere in the file, and not every engine takes an unaligned float.

    Raises:
        ValueError: Says what is wrong with the array.
    """
    if len(data) < _PREAMBLE.size or data[: len(_MAGIC)] != _MAGIC:
        raise ValueError("it is not an .npy array of format version 1.0")
    _, length = _PREAMBLE.unpack_from(data)
    start = _PREAMBLE.size + length
    header = _HEADER.fullmatch(bytes(data[_PREAMBLE.size : start]))
    if header is None or start > len(data):
        raise ValueError("its .npy header is not the one numpy.save writes for numbers")
    name, fortran_order, shape_text = header.groups()
    if name not in _TYPES or fortran_order == b"True":
        raise ValueError(f"arrays of type {name.decode()!r} in {'Fortran' if fortran_order == b'True' else 'C'} order are not read")
    shape = _shape(shape_text, limits)
    dtype = np.dtype(_TYPES[name]).newbyteorder("<")
    claimed, present = math.prod(shape) * dtype.itemsize, len(data) - start
    if claimed != present:
        raise ValueError(f"its header claims {claimed} bytes of data, but it has {present}")
    return np.frombuffer(data, dtype=dtype, offset=start).reshape(shape).astype(_TYPES[name])


def _shape(text: bytes, limits: Limits) -> tuple[int, ...]:
    if not _SHAPE.fullmatch(text):
        raise ValueError(f"the shape ({text.decode()[:40]}) is not one of a filled array")
    shape = tuple(int(side) for side in text.split(b",") if side.strip())
    if len(shape) > limits.max_array_dimensions:
        raise ValueError(f"it has {len(shape)} dimensions, more than {limits.max_array_dimensions}")
    return shape
