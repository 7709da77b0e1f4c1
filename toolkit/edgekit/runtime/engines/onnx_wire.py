"""What an ONNX file asks for, read from its bytes without any library: a device has none that would say it before an engine acts on it.

An ONNX file is a protobuf message (onnx/onnx.proto; protobuf.dev, "Encoding"): fields with a number and a wire type, nested by length. Only the fields that can hold
what is looked for are opened.

Rules this file keeps:

1. The weights are in the file: external data could name any path of the device.
2. Operators are ONNX's own, at any depth, and there are no functions: anything else is code from somewhere.
3. What is no protobuf message is refused here. Whether it is a good model is the engine's question.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgekit.errors import BundleError

STANDARD_DOMAINS = (b"", b"ai.onnx")
MAX_DEPTH = 32
"""Messages inside messages; a graph in a graph takes three."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Kind of message to field number to the kind of message in it.
_INSIDE: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
# Kind of message to field number to why it is refused, where it is there at all.
_REFUSED: Mapping[str, Mapping[int, str]] = {
    "model": {20: "it has training information", 25: "it has functions of its own"},
    "tensor": {13: "it keeps weights in another file"},
}
_NODE_DOMAIN, _TENSOR_LOCATION = 7, 14


def check_self_contained(data: memoryview) -> None:
    """Refuses an ONNX file that asks for anything outside itself.

    Args:
        data: The file.

    Raises:
        BundleError: It does, or is no ONNX file.
    """
    try:
        reason = _refusal(data, "model", 0)
    except ValueError as error:
        raise BundleError(f"the model is not an ONNX file: {error}", hint="the bundle is damaged; copy it again") from error
    if reason:
        raise BundleError(f"the model is refused: {reason}", hint="compile the bundle again; edgekit writes no such model")


def _refusal(message: memoryview, kind: str, depth: int) -> str:
    if depth > MAX_DEPTH:
        raise ValueError(f"messages are nested deeper than {MAX_DEPTH}")
    inside, refused = _INSIDE[kind], _REFUSED.get(kind, {})
    for field, value in _fields(message):
        reason = refused.get(field, "")
        if kind == "tensor" and field == _TENSOR_LOCATION and value:
            reason = "it keeps weights in another file"
        elif kind == "node" and field == _NODE_DOMAIN and _content(value) not in STANDARD_DOMAINS:
            reason = f"it has operators of the domain {_content(value)[:80].decode('ascii', 'backslashreplace')!r}"
        elif field in inside:
            reason = reason or _refusal(_message(value), inside[field], depth + 1)
        if reason:
            return reason
    return ""


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of every field: whole numbers as such, all else as bytes."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        wire = key & 7
        if wire == _VARINT:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(wire, -1)
        if wire == _BYTES:
            length, place = _varint(message, place)
        if length < 0 or place + length > len(message) or not key >> 3:
            raise ValueError(f"a field of the wire type {wire} at byte {place} does not fit")
        yield key >> 3, message[place : place + length]
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for count in range(10):
        if place + count >= len(message):
            raise ValueError("it ends in the middle of a number")
        byte = message[place + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, place + count + 1
    raise ValueError(f"the number at byte {place} has no end")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number stands where a message is expected")  # noqa: TRY004 - of the file, not of an argument
    return value


def _content(value: int | memoryview) -> bytes:
    return bytes(_message(value))
