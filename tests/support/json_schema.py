"""As much of JSON Schema 2020-12 as the profile's schema uses; a keyword it does not know is an error, so that no rule is skipped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
_KNOWN = {"$schema", "title", "description", "type", "properties", "required", "additionalProperties", "items", "minItems", "maxItems"} | {
    "minimum",
    "anyOf",
    "enum",
    "const",
}


def problems(value: Any, schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Every way in which a value breaks a schema, with its path."""
    unknown = set(schema) - _KNOWN
    if unknown:
        raise ValueError(f"{path}: the checker does not know {sorted(unknown)}")
    yield from _choices(value, schema, path)
    if "type" in schema and not _is(value, schema["type"]):
        yield f"{path}: {value!r} is no {schema['type']}"
        return
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{path}: {value!r} is below {schema['minimum']}"
    if isinstance(value, dict):
        yield from _members(value, schema, path)
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{path}: {len(value)} items"
        for index, item in enumerate(value):
            yield from problems(item, schema.get("items", {}), f"{path}[{index}]")


def _choices(value: Any, schema: dict[str, Any], path: str) -> Iterator[str]:
    if "anyOf" in schema and not any(not list(problems(value, option, path)) for option in schema["anyOf"]):
        yield f"{path}: {value!r} is none of the alternatives"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is not one of {schema['enum']}"
    if "const" in schema and value != schema["const"]:
        yield f"{path}: {value!r} is not {schema['const']!r}"


def _is(value: Any, kind: str) -> bool:
    if kind in {"number", "integer"}:
        return isinstance(value, int if kind == "integer" else (int, float)) and not isinstance(value, bool)
    return isinstance(value, _TYPES[kind])


def _members(value: dict[str, Any], schema: dict[str, Any], path: str) -> Iterator[str]:
    named, more = schema.get("properties", {}), schema.get("additionalProperties", True)
    yield from (f"{path}.{key}: is missing" for key in schema.get("required", []) if key not in value)
    for key, item in value.items():
        if key in named:
            yield from problems(item, named[key], f"{path}.{key}")
        elif more is False:
            yield f"{path}.{key}: is not described"
        elif isinstance(more, dict):
            yield from problems(item, more, f"{path}.{key}")
