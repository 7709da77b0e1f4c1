"""Turns untrusted tables (TOML, JSON) into frozen dataclasses, and back.

Rules this file keeps:

1. A key the dataclass does not have is refused, with the nearest one it has: a misspelt `max_flip` must not silently mean the default.
2. A value of the wrong type is refused; nothing is coerced except an integer where a float is asked for.
3. The message names the place as a path (`input.resize[1]`), because that is what the author has to edit.
4. `__post_init__` of the dataclass checks what a type cannot say, by raising `ValueError`; it comes out as the same kind of error.
5. A message stays short, however large or deep the value is that it complains about.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, cast

from edgekit.errors import EdgekitError, nearest

T = TypeVar("T")

MAX_SHOWN = 60
"""Characters of a value or a key that a message quotes."""
MAX_MESSAGE = 400
"""Characters of what a message says about a place."""
MAX_INTEGER_BITS = 64
"""As in TOML."""
MAX_DEPTH = 32
"""Deepest nesting of a value that is taken as it is; encoding and digesting it must not run out of stack."""


def decode(kind: type[T], table: object, *, where: str, error: type[EdgekitError]) -> T:
    """Decodes a table into the dataclass `kind`.

    Args:
        kind: A dataclass whose fields are annotated with str, int, float, bool, Literal, Optional, `tuple[X, ...]`, a fixed `tuple[X, Y]`,
            `dict[str, X]`, object (any plain value: tables, lists, texts, finite numbers, truth values), or further dataclasses.
        table: What a TOML or JSON reader returned.
        where: The file the table came from, for the message.
        error: The kind of error to raise, by who must act.

    Raises:
        EdgekitError: Of the given kind, naming file and path, when the table does not fit.
    """
    return cast("T", _Decoder(where, error).value(kind, table, ""))


def encode(value: object) -> Any:
    """Turns a dataclass made by `decode` back into plain dicts, lists and scalars (JSON-ready; `None` is kept)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


class _Decoder:
    def __init__(self, where: str, error: type[EdgekitError]) -> None:
        self._where = where
        self._error = error

    def fail(self, path: str, what: str, hint: str = "") -> EdgekitError:
        place = f"{self._where}: {path}: " if path else f"{self._where}: "
        return self._error(place + _shortened(what, MAX_MESSAGE), hint=hint)

    def value(self, kind: Any, value: object, path: str) -> object:
        if kind is object:
            return self._plain(value, path)
        origin = typing.get_origin(kind)
        if origin in (Union, types.UnionType):
            return self._union(kind, value, path)
        if origin is Literal:
            return self._literal(kind, value, path)
        if origin is tuple:
            return self._tuple(kind, value, path)
        if origin is dict:
            return self._dict(kind, value, path)
        if dataclasses.is_dataclass(kind):
            return self._dataclass(cast("type", kind), value, path)
        return self._scalar(kind, value, path)

    def _dataclass(self, kind: type, value: object, path: str) -> object:
        if not isinstance(value, Mapping):
            raise self.fail(path, f"expected a table, found {_name(value)}")
        hints = _hints(kind)
        fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
        for key in value:
            if key not in fields:
                raise self.fail(_join(path, str(key)), "unknown key", hint=nearest(str(key)[:MAX_SHOWN], fields))
        filled: dict[str, object] = {}
        for name, field in fields.items():
            if name in value:
                filled[name] = self.value(hints[name], value[name], _join(path, name))
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise self.fail(path, f"the key {name!r} is missing", hint=f"known keys: {', '.join(fields)}")
        try:
            return kind(**filled)
        except ValueError as error:
            raise self.fail(path, str(error)) from error

    def _union(self, kind: Any, value: object, path: str) -> object:
        members = typing.get_args(kind)
        if value is None and type(None) in members:
            return None
        others = [member for member in members if member is not type(None)]
        if len(others) != 1:
            raise TypeError(f"decode supports only Optional unions, not {kind}")
        return self.value(others[0], value, path)

    def _literal(self, kind: Any, value: object, path: str) -> object:
        allowed = typing.get_args(kind)
        # True equals 1, and 1.0 too: the type must be the same.
        if not any(type(value) is type(known) and value == known for known in allowed):
            asked = value if isinstance(value, str) else ""
            raise self.fail(path, f"{_name(value)} is not known here", hint=nearest(asked[:MAX_SHOWN], map(str, allowed)))
        return value

    def _tuple(self, kind: Any, value: object, path: str) -> object:
        if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
            raise self.fail(path, f"expected a list, found {_name(value)}")
        members = typing.get_args(kind)
        if len(members) == 2 and members[1] is Ellipsis:
            return tuple(self.value(members[0], item, f"{path}[{index}]") for index, item in enumerate(value))
        if len(value) != len(members):
            raise self.fail(path, f"expected {len(members)} values, found {len(value)}")
        return tuple(self.value(member, item, f"{path}[{index}]") for index, (member, item) in enumerate(zip(members, value, strict=True)))

    def _dict(self, kind: Any, value: object, path: str) -> object:
        if not isinstance(value, Mapping):
            raise self.fail(path, f"expected a table, found {_name(value)}")
        _, item_kind = typing.get_args(kind)
        return {str(key): self.value(item_kind, item, _join(path, str(key))) for key, item in value.items()}

    def _scalar(self, kind: Any, value: object, path: str) -> object:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = _float(value)
        if type(value) is not kind:
            raise self.fail(path, f"expected {kind.__name__}, found {_name(value)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise self.fail(path, f"expected a finite number, found {value}")
        if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
            raise self.fail(path, f"expected an integer of at most {MAX_INTEGER_BITS} bits, found {_name(value)}")
        return value

    def _plain(self, value: object, path: str, depth: int = 0) -> object:
        """Checks a value of no stated type: what TOML and JSON both have, so that it can be encoded again."""
        if value is None:
            return None
        if isinstance(value, (str, bool, int, float)):
            return self._scalar(type(value), value, path)
        if depth > MAX_DEPTH:
            raise self.fail(path, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, Mapping):
            return {str(key): self._plain(item, _join(path, str(key)), depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._plain(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
        raise self.fail(path, f"expected a table, a list, a text, a number or true or false, found {_name(value)}")


@functools.lru_cache(maxsize=256)
def _hints(kind: type) -> dict[str, Any]:
    """Types of a dataclass's fields; evaluating their texts costs more than the rest of decoding, and some tables come once a frame."""
    return typing.get_type_hints(kind)


def _join(path: str, key: str) -> str:
    key = _shortened(key, MAX_SHOWN)
    return f"{path}.{key}" if path else key


def _float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _name(value: object) -> str:
    """The type of a value and as much of it as fits; never the whole of something large or deep."""
    kind = type(value).__name__
    if isinstance(value, str):
        return f"{kind} {value[:MAX_SHOWN]!r}" + (" …" if len(value) > MAX_SHOWN else "")
    if isinstance(value, int) and value.bit_length() > 200:
        return f"{kind} of {value.bit_length()} bits"
    if isinstance(value, (Mapping, Sequence)):
        return f"{kind} of {len(value)}"
    return _shortened(f"{kind} {value!r}", MAX_SHOWN)


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length] + " …"
