"""Finds every name of TensorRT that a source file uses, and what each use stands behind.

Rules this file keeps:

1. The type of an object is taken from annotations (`engine: trt.ICudaEngine`), from constructors, and from what the manifests say that calls return.
2. Where no type is known, a member's name that belongs to one class of TensorRT alone says the class. A name that TensorRT shares with the package itself
   ("name", "log") is then left out; types make the scan see it.
3. A use stands behind a gate when `….has("Class.member")` was asked before: by an `if`, an `and` or a conditional expression around it, or by
   `if not ….has(…): return` above it.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from trt_fake_api import bind, manifest, versions

MODULE = "tensorrt"
_GATE = "has"


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One use of a name.

    Attributes:
        name: "BuilderFlag.FP16", "Builder", "volume".
        line: In the file.
        gates: The names that were asked for before.
        call: Number of positional arguments and names of the others, where it is called; None where it is not.
    """

    name: str
    line: int
    gates: frozenset[str]
    call: tuple[int, tuple[str, ...]] | None = None


def exists(name: str, version: str) -> bool:
    """Whether a version has a name."""
    api = manifest(version)
    if name in api["classes"] or name in api["functions"] or name in api["constants"] or name == "__version__":
        return True
    kind, _, member = name.rpartition(".")
    return member in _members(kind, version)


def accepts(use: Use, version: str) -> bool:
    """Whether a version has a way to call the name like this; True where it is not called."""
    api = manifest(version)
    kind, _, member = use.name.rpartition(".")
    if use.call is None:
        return True
    if use.name in api["classes"]:
        overloads = _methods(use.name, version).get("__init__")
    else:
        overloads = _methods(kind, version).get(member) if kind else api["functions"].get(use.name)
    if overloads is None:
        return False
    try:
        bind(use.name, overloads, (None,) * use.call[0], dict.fromkeys(use.call[1]))
    except TypeError:
        return False
    return True


def _members(kind: str, version: str) -> set[str]:
    classes = manifest(version)["classes"]
    lines = [classes[name] for name in (kind, *classes.get(kind, {"bases": []})["bases"]) if name in classes]
    return {name for entry in lines for group in ("methods", "properties", "values", "attributes") for name in entry[group]}


def _methods(kind: str, version: str) -> dict[str, Any]:
    classes = manifest(version)["classes"]
    found: dict[str, Any] = {}
    for name in reversed((kind, *classes.get(kind, {"bases": []})["bases"])):
        found |= classes.get(name, {"methods": {}})["methods"]
    return found


@functools.cache
def _returned() -> Mapping[str, str]:
    """Class and member, with a dot between, → the class of its value, of any version."""
    every = [(kind, entry) for version in versions() for kind, entry in manifest(version)["classes"].items()]
    return {f"{kind}.{member}": value for kind, entry in every for member, value in entry["returns"].items()}


@functools.cache
def _owners() -> Mapping[str, frozenset[str]]:
    """Member → the classes that have it, in any version."""
    found: dict[str, set[str]] = {}
    for version in versions():
        for kind, entry in manifest(version)["classes"].items():
            for member in (*entry["methods"], *entry["properties"]):
                found.setdefault(member, set()).add(kind)
    return {member: frozenset(kinds) for member, kinds in found.items()}


def own_names(trees: Mapping[str, ast.Module]) -> frozenset[str]:
    """Names of functions and attributes that the package itself defines (rule 2)."""
    found = set()
    for node in (node for tree in trees.values() for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            found.add(node.attr)
    return frozenset(found)


def scan(trees: Mapping[str, ast.Module], own: frozenset[str]) -> dict[str, list[Use]]:
    """Every use in the files, by file.

    Args:
        trees: File name → its parsed text; functions of one may be called in another.
        own: What `own_names` found.
    """
    returns = {}
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.returns is not None:
                returns[node.name] = node.returns
    return {name: _File(returns, own).read(tree) for name, tree in trees.items()}


@dataclass(slots=True)
class _File:
    """The scan of one file.

    Attributes:
        returns: Function → what its annotation says it returns.
        own: See `own_names`.
        module: What the file calls TensorRT.
        uses: What was found.
    """

    returns: Mapping[str, ast.expr]
    own: frozenset[str]
    module: str = ""
    uses: list[Use] = field(default_factory=list)

    def read(self, tree: ast.Module) -> list[Use]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self.module = next((item.asname or item.name for item in node.names if item.name == MODULE), self.module)
        self._block(tree.body, {}, frozenset())
        return self.uses

    def _block(self, body: list[ast.stmt], types: dict[str, str], gates: frozenset[str]) -> None:
        """Statements in order, so that what one assigns or rules out holds for the next."""
        for node in body:
            if isinstance(node, ast.FunctionDef):
                inner = dict(types)
                for item in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                    self._declare(item.arg, item.annotation, inner)
                self._expressions(node.decorator_list, types, gates)
                self._block(node.body, inner, gates)
            elif isinstance(node, ast.ClassDef):
                self._expressions(node.bases, types, gates)
                self._block(node.body, dict(types), gates)
            elif isinstance(node, ast.If):
                self._visit(node.test, types, gates)
                self._block(node.body, types, gates | _asked(node.test))
                self._block(node.orelse, types, gates | _denied(node.test))
                if node.body and isinstance(node.body[-1], ast.Return | ast.Raise | ast.Continue):
                    gates = gates | _denied(node.test)
            else:
                self._statement(node, types, gates)

    def _statement(self, node: ast.stmt, types: dict[str, str], gates: frozenset[str]) -> None:
        for _, value in ast.iter_fields(node):
            parts = value if isinstance(value, list) else [value]
            self._expressions([part for part in parts if isinstance(part, ast.expr)], types, gates)
            self._block([part for part in parts if isinstance(part, ast.stmt)], types, gates)
            for part in parts:
                if isinstance(part, ast.ExceptHandler):
                    self._block(part.body, types, gates)
                elif isinstance(part, ast.withitem):
                    self._visit(part.context_expr, types, gates)
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            self._assign(node.targets[0], node.value, types)
        elif isinstance(node, ast.AnnAssign):
            self._declare(ast.unparse(node.target), node.annotation, types)

    def _assign(self, target: ast.expr, value: ast.expr, types: dict[str, str]) -> None:
        if isinstance(target, ast.Tuple):
            declared = self.returns.get(_called(value))
            kinds = declared.slice.elts if isinstance(declared, ast.Subscript) and isinstance(declared.slice, ast.Tuple) else []
            for item, kind in zip(target.elts, kinds, strict=False):
                self._declare(ast.unparse(item), kind, types)
        elif kind := self._type(value, types):
            types[ast.unparse(target)] = kind

    def _declare(self, name: str, annotation: ast.expr | None, types: dict[str, str]) -> None:
        types.pop(name, None)
        for node in ast.walk(annotation) if annotation is not None else ():
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == self.module:
                types[name] = node.attr

    def _expressions(self, nodes: Iterable[ast.expr], types: dict[str, str], gates: frozenset[str]) -> None:
        for node in nodes:
            self._visit(node, types, gates)

    def _visit(self, node: ast.expr, types: dict[str, str], gates: frozenset[str]) -> None:
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
            for part in node.values:
                self._visit(part, types, gates)
                gates = gates | _asked(part)
            return
        if isinstance(node, ast.IfExp):
            self._visit(node.test, types, gates)
            self._visit(node.body, types, gates | _asked(node.test))
            self._visit(node.orelse, types, gates | _denied(node.test))
            return
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            self._attribute(node.func, types, gates, node)
            self._visit(node.func.value, types, gates)
            self._expressions([*node.args, *(item.value for item in node.keywords)], types, gates)
            return
        if isinstance(node, ast.Attribute):
            self._attribute(node, types, gates, None)
        for child in ast.iter_child_nodes(node):
            parts = [child.iter, *child.ifs] if isinstance(child, ast.comprehension) else [child]
            self._expressions([part for part in parts if isinstance(part, ast.expr)], types, gates)

    def _attribute(self, node: ast.Attribute, types: dict[str, str], gates: frozenset[str], call: ast.Call | None) -> None:
        name = self._name(node, types)
        if not name:
            return
        arguments = None
        plain = (
            call is not None and not any(isinstance(item, ast.Starred) for item in call.args) and all(item.arg for item in call.keywords)
        )
        # `Base.__init__(self, …)` has the object as its first argument, which the manifest leaves out.
        if call is not None and plain and not node.attr.startswith("__"):
            arguments = (len(call.args), tuple(str(item.arg) for item in call.keywords))
        self.uses.append(Use(name=name, line=node.lineno, gates=gates, call=arguments))

    def _name(self, node: ast.Attribute, types: dict[str, str]) -> str:
        """The name of TensorRT that an attribute is; empty where it is none."""
        owner = node.value
        if ast.unparse(owner) == self.module:
            return node.attr
        kind = self._class(owner, types) or self._type(owner, types)
        if kind:
            return f"{kind}.{node.attr}"
        owners = _owners().get(node.attr, frozenset())
        unmistakable = "_" in node.attr and node.attr not in self.own and not node.attr.startswith("_")
        return f"{next(iter(owners))}.{node.attr}" if len(owners) == 1 and unmistakable else ""

    def _class(self, node: ast.expr, types: dict[str, str]) -> str:
        """The class that an expression names: `trt.BuilderFlag`, `trt.ILogger.Severity`."""
        if isinstance(node, ast.Attribute):
            name = self._name(node, types) if ast.unparse(node).startswith(f"{self.module}.") else ""
            return name if any(name in manifest(version)["classes"] for version in versions()) else ""
        return ""

    def _type(self, node: ast.expr, types: dict[str, str]) -> str:
        """The class of the object that an expression gives; empty where it is not known."""
        if (known := types.get(ast.unparse(node))) is not None:
            return known
        if isinstance(node, ast.Call):
            if kind := self._class(node.func, types):
                return kind
            if isinstance(node.func, ast.Attribute) and (name := self._name(node.func, types)):
                return _returned().get(name, "")
            scratch: dict[str, str] = {}
            self._declare("value", self.returns.get(_called(node)), scratch)
            return scratch.get("value", "")
        if isinstance(node, ast.Attribute) and (name := self._name(node, types)):
            return _returned().get(name, "")
        return ""


def _called(node: ast.expr) -> str:
    """The last part of the name of the function that is called; empty where nothing is."""
    return ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""


def _asked(test: ast.expr) -> frozenset[str]:
    """The gates that are known to be open where a test was true."""
    return frozenset(_gates(test, ast.And))


def _denied(test: ast.expr) -> frozenset[str]:
    """The gates that are known to be open where a test was false: `not ….has(…)`."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or):
        return frozenset(gate for part in test.values for gate in _denied(part))
    return _asked(test.operand) if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not) else frozenset()


def _gates(test: ast.expr, operator: type[ast.boolop]) -> Iterator[str]:
    if isinstance(test, ast.BoolOp) and isinstance(test.op, operator):
        for part in test.values:
            yield from _gates(part, operator)
    elif isinstance(test, ast.Call) and isinstance(test.func, ast.Attribute) and test.func.attr == _GATE:
        yield from (str(item.value) for item in test.args[:1] if isinstance(item, ast.Constant))
