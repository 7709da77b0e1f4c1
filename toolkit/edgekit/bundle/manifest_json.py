"""The manifest as text: strict JSON in, the same bytes out for the same manifest.

Rules this file keeps:

1. Sizes, depth and text are bounded before anything else looks at the values or repeats them in a message.
2. A repeated key, a number that no field can hold, and text that cannot be printed are refused, as unknown keys are.
"""

from __future__ import annotations

import json
import math
import re

from edgekit.bundle.limits import DEFAULT_LIMITS, Limits
from edgekit.bundle.manifest import FORMAT_VERSION, MANIFEST_NAME, Manifest
from edgekit.errors import BundleError
from edgekit.schema.decode import decode, encode

# Control characters, line separators, text-direction overrides and lone surrogates: they would let a bundle write on the operator's terminal.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_COMPILE_AGAIN = "edgekit does not write such a manifest; compile the bundle again"


def parse(data: bytes | memoryview, *, where: str, limits: Limits = DEFAULT_LIMITS) -> Manifest:
    """Reads a manifest strictly.

    Args:
        data: The bytes of `manifest.json`.
        where: The bundle, for the message.
        limits: Size, depth and length of text.

    Raises:
        BundleError: Not UTF-8 JSON, a repeated or unknown key, a wrong type, a number no field can hold, text that is not printable,
            places that contradict each other, or a `format_version` this edgekit does not know.
    """
    place = f"{where}: {MANIFEST_NAME}"
    table = _load(data, place, limits)
    if isinstance(table, dict) and "format_version" in table and table["format_version"] != FORMAT_VERSION:
        raise BundleError(
            f"{where}: format version {table['format_version']!r} is not one this edgekit reads ({FORMAT_VERSION})",
            hint="update edgekit on this machine, or compile the bundle again with this edgekit",
        )
    try:
        manifest = decode(Manifest, table, where=place, error=BundleError)
    except BundleError as error:
        raise BundleError(error.message, hint=error.hint or _COMPILE_AGAIN) from error
    if not manifest.members:
        raise BundleError(f"{place}: members is empty", hint="this is a draft; `edgekit compile` writes whole bundles")
    return manifest


def serialize(manifest: Manifest) -> bytes:
    """Writes a manifest; the same manifest gives the same bytes (sorted keys, UTF-8, two-space indent, final newline)."""
    text = json.dumps(encode(manifest), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8")


def _load(data: bytes | memoryview, place: str, limits: Limits) -> object:
    if len(data) > limits.max_manifest_bytes:
        raise BundleError(f"{place} has {len(data)} bytes, more than {limits.max_manifest_bytes}", hint=_COMPILE_AGAIN)
    try:
        table: object = json.loads(
            bytes(data).decode("utf-8"),
            object_pairs_hook=_no_repeats,
            parse_constant=_no_constants,
            parse_int=_bounded_int,
            parse_float=_bounded_float,
        )
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{place} is not valid JSON: {error}", hint="the bundle is damaged; copy it again") from error
    try:
        _check_json(table, limits, 1)
    except ValueError as error:
        raise BundleError(f"{place}: {error}", hint=_COMPILE_AGAIN) from error
    return table


def _check_json(value: object, limits: Limits, depth: int) -> None:
    """Bounds depth and text before anything else looks at the values or repeats them in a message."""
    if isinstance(value, str):
        if len(value) > limits.max_text_characters:
            raise ValueError(f"a text of {len(value)} characters, longer than {limits.max_text_characters}")
        if _UNPRINTABLE.search(value):
            raise ValueError(f"the text {ascii(value)[:80]} has characters that cannot be printed")
    if not isinstance(value, (dict, list)):
        return
    if depth > limits.max_manifest_depth:
        raise ValueError(f"tables and lists are nested deeper than {limits.max_manifest_depth}")
    for item in [*value, *value.values()] if isinstance(value, dict) else value:
        _check_json(item, limits, depth + 1)


def _no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key is repeated")
    return table


def _no_constants(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _bounded_int(text: str) -> int:
    # A huge number would cost time to read and overflow where a float is asked for; 19 digits and a sign hold every 64-bit one.
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise ValueError(f"the whole number {text[:24]} ({len(text)} characters) is not one a field can hold")
    return int(text)


def _bounded_float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"the number {text[:40]} is not one a field can hold")
    return value
