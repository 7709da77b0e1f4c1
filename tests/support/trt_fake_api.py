"""Classes with exactly the names that a manifest lists, for a `tensorrt` that is none.

Rules this file keeps:

1. What the manifest does not list is not there: reading it, writing it and passing it by name fail as with the real module (AttributeError, TypeError).
2. What the manifest lists and the fake does not model raises NotImplementedError: a test never passes on an answer that nobody thought about.
3. Every call and every setting of a property is put down, in order.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFESTS = Path(__file__).with_name("trt_manifests")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One use of the module.

    Attributes:
        name: "Builder.create_network"; "Builder" for a construction, "IBuilderConfig.max_aux_streams=" where a property was set.
        arguments: By the names in the manifest; those that were left out are not there.
    """

    name: str
    arguments: dict[str, Any]


@functools.cache
def manifest(version: str) -> dict[str, Any]:
    """The API of a version, "10.3" for example."""
    found: dict[str, Any] = json.loads((MANIFESTS / f"{version}.json").read_text())
    return found


def versions() -> tuple[str, ...]:
    """The versions that there is a manifest of, the oldest first."""
    return tuple(sorted((path.stem for path in MANIFESTS.glob("*.json")), key=lambda name: [int(part) for part in name.split(".")]))


class FakeEnum:
    """One value of an enum of the bindings: has a name and a number, equals only itself and cannot be combined with `|`."""

    __slots__ = ("name", "value")
    __members__: Mapping[str, FakeEnum]

    def __init__(self, value: int) -> None:
        match = [member for member in type(self).__members__.values() if member.value == value]
        if not match:
            raise ValueError(f"{value} is not a {type(self).__name__}")
        self.name, self.value = match[0].name, value

    def __int__(self) -> int:
        return self.value

    def __index__(self) -> int:
        return self.value

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.value == self.value

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.value))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self.name}: {self.value}>"

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


class FakeObject:
    """An object of the bindings; what it is about is in `_`, a dictionary that only the fake looks at."""

    __slots__ = ("_",)


Method = Callable[..., Any]


def always(value: Any) -> Method:
    """Something that gives the same answer however it is asked."""

    def answer(*_arguments: Any, **_keywords: Any) -> Any:
        return value

    return answer


def make_enum(name: str, entry: Mapping[str, Any]) -> type[FakeEnum]:
    """The class of an enum with all its values."""
    made = type(name.rpartition(".")[2], (FakeEnum,), {"__slots__": ()})
    members = {}
    for key, value in entry["values"].items():
        member = made.__new__(made)
        member.name, member.value = key, value
        members[key] = member
        setattr(made, key, member)
    made.__members__ = members
    return made


def make_class(
    name: str, entry: Mapping[str, Any], bases: tuple[type, ...], behaviour: Mapping[str, Method], record: Callable[[Call], None]
) -> type:
    """The class of the objects of one kind.

    Args:
        name: As in the manifest.
        entry: What the manifest says of it.
        bases: Classes already made that it derives from; FakeObject where none.
        behaviour: By name, what its methods do and, as "name" and "name=", what its properties answer and check.
        record: Takes every call.
    """
    space: dict[str, Any] = {"__slots__": (), "__init__": _constructor(name, entry, behaviour, record)}
    for method, overloads in entry["methods"].items():
        if method != "__init__":
            space[method] = _method(name, method, overloads, behaviour.get(method), record)
    for item, access in entry["properties"].items():
        space[item] = _property(name, item, access, behaviour, record)
    return type(name, bases, space)


def bind(name: str, overloads: list[list[str]], arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by their names, by the first of the ways to call that they fit.

    Raises:
        TypeError: They fit none.
    """
    for parameters in overloads:
        names = [parameter.rstrip("=") for parameter in parameters]
        given = dict(zip(names, arguments, strict=False))
        needed = {parameter for parameter in parameters if not parameter.endswith("=")}
        fits = len(arguments) <= len(names) and not set(given) & set(keywords) and set(keywords) <= set(names)
        if fits and needed <= set(given) | set(keywords):
            return given | dict(keywords)
    raise TypeError(f"{name}(): incompatible function arguments. Supported: {overloads}; given: {arguments} {dict(keywords)}")


def _constructor(name: str, entry: Mapping[str, Any], behaviour: Mapping[str, Method], record: Callable[[Call], None]) -> Method:
    def construct(self: Any, *arguments: Any, **keywords: Any) -> None:
        if "__init__" not in entry["methods"]:
            raise TypeError(f"{name}: No constructor defined!")
        given = bind(name, entry["methods"]["__init__"], arguments, keywords)
        record(Call(name=name, arguments=given))
        self._ = {}
        if "__init__" in behaviour:
            behaviour["__init__"](self, **given)

    return construct


def _method(owner: str, method: str, overloads: list[list[str]], does: Method | None, record: Callable[[Call], None]) -> Method:
    def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
        given = bind(f"{owner}.{method}", overloads, arguments, keywords)
        record(Call(name=f"{owner}.{method}", arguments=given))
        if does is None:
            raise NotImplementedError(f"the fake does not model {owner}.{method}")
        return does(self, **given)

    return call


def _property(owner: str, item: str, access: str, behaviour: Mapping[str, Method], record: Callable[[Call], None]) -> property:
    def read(self: Any) -> Any:
        if item in behaviour:
            return behaviour[item](self)
        if item in self._:
            return self._[item]
        raise NotImplementedError(f"the fake does not model {owner}.{item}")

    def write(self: Any, value: Any) -> None:
        record(Call(name=f"{owner}.{item}=", arguments={"value": value}))
        if f"{item}=" not in behaviour:
            raise NotImplementedError(f"the fake does not model setting {owner}.{item}")
        behaviour[f"{item}="](self, value)

    return property(read, write if access == "rw" else None)
