"""Prints the names of a TensorRT bindings package as JSON: `python trt_introspect.py PACKAGE`.

Rules this file keeps:

1. Names only: of classes, their members and their parameters. No documentation text, nothing else of the package.
2. It runs by itself in the interpreter of the bindings, so it imports nothing but the standard library.
3. Nothing is constructed: over stub libraries every constructor fails.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from types import ModuleType
from typing import Any

# Special methods that are part of how the objects are used.
_SPECIAL = ("__init__", "__len__", "__getitem__", "__enter__", "__exit__")
_OPENING, _CLOSING = "([{<", ")]}>"


def main(package: str) -> None:
    """Prints {"version", "classes", "functions", "constants"}."""
    module = importlib.import_module(package)
    members = {name: value for name, value in vars(module).items() if not name.startswith("_") and not isinstance(value, ModuleType)}
    classes = {name: value for name, value in members.items() if isinstance(value, type)}
    classes |= {
        f"{outer}.{name}": value for outer, kind in classes.items() for name, value in vars(kind).items() if _is_nested(value, outer)
    }
    functions = {name: value for name, value in members.items() if callable(value) and name not in classes}
    # An alias is told as a class of its own; where it is a base, the alphabetically first name stands for it.
    names = {value: name for name, value in sorted(classes.items(), reverse=True)}
    constants = {name: type(value).__name__ for name, value in members.items() if name not in classes and name not in functions}
    document = {
        "version": module.__version__,
        "classes": {name: _class(value, names) for name, value in sorted(classes.items())},
        "functions": {name: _overloads(value) for name, value in sorted(functions.items())},
        "constants": dict(sorted(constants.items())),
    }
    json.dump(document, sys.stdout)


def _class(kind: type, names: dict[type, str]) -> dict[str, Any]:
    own = {name: value for name, value in vars(kind).items() if not name.startswith("_") or name in _SPECIAL}
    values = {name: int(value) for name, value in getattr(kind, "__members__", {}).items()}
    properties = {name: "r" if value.fset is None else "rw" for name, value in own.items() if isinstance(value, property)}
    methods = {name: _overloads(value) for name, value in own.items() if callable(value) and not isinstance(value, type)}
    # Without a constructor of its own a class of the bindings only comes out of calls.
    if methods.get("__init__") == [["args", "kwargs"]]:
        del own["__init__"], methods["__init__"]
    rest = set(own) - set(values) - set(properties) - set(methods)
    return {
        "bases": [names[base] for base in kind.__mro__[1:] if base in names],
        "methods": dict(sorted(methods.items())),
        "properties": dict(sorted(properties.items())),
        "returns": dict(sorted(_returns(own, names).items())),
        "values": values,
        "attributes": {name: _kind(own[name], names) for name in sorted(rest)},
    }


def _returns(own: dict[str, Any], names: dict[type, str]) -> dict[str, str]:
    """The classes of the package that methods and properties answer with, by the last part of their names."""
    found = {}
    for name, value in own.items():
        text = inspect.getdoc(value.fget if isinstance(value, property) else value) or ""
        match = re.search(r"\) -> (?:[\w.:]*[.:])?(\w+)\s*$", text, re.MULTILINE)
        if match and match[1] in names.values() and not name.startswith("__"):
            found[name] = match[1]
    return found


def _is_nested(value: object, outer: str) -> bool:
    return isinstance(value, type) and value.__qualname__.startswith(f"{outer}.")


def _kind(value: object, names: dict[type, str]) -> str:
    """What a class attribute is: "class X" where it is a class itself, else the name of its class."""
    return f"class {names.get(value, value.__name__)}" if isinstance(value, type) else names.get(type(value), type(value).__name__)


def _overloads(function: Any) -> list[list[str]]:
    """Parameters of each way to call it, `self` left out; a parameter that may be left out ends in "="."""
    text = inspect.getdoc(function) or ""
    name = getattr(function, "__name__", "")
    lines = [
        match for match in re.findall(rf"^(?:\d+\. )?{re.escape(name)}(\(.*\)) -> .*$", text, re.MULTILINE) if match != "(*args, **kwargs)"
    ]
    if not lines:
        return [_python_parameters(function)]
    return [[parameter for parameter in map(_parameter, _split(line[1:-1])) if parameter != "self"] for line in lines]


def _python_parameters(function: Any) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [item.name + ("" if item.default is item.empty else "=") for item in parameters if item.name not in ("self", "this")]


def _split(text: str) -> list[str]:
    """The text at its commas, those in brackets left alone; `->` is no bracket."""
    parts, depth = [""], 0
    for character in text.replace("->", "  "):
        depth += (character in _OPENING) - (character in _CLOSING)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _parameter(text: str) -> str:
    name = re.match(r"[*\w]+", text)
    # A default may be shown as `<Severity.INFO: 2>`, so it is looked for after the type.
    return (name.group(0) if name else text) + ("=" if " = " in text else "")


if __name__ == "__main__":
    main(sys.argv[1])
