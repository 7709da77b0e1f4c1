"""Reads a `.pt2` archive of torch.export without trusting it, and writes a new one that holds only what was checked.

`torch.export.load` trusts its archive. It unpickles weights, constants and sample inputs, evaluates size expressions, imports modules that a tree
specification names, resolves operators by attribute access from `torch`, and writes names from the archive into Python source that it executes. So
PyTorch never sees the file itself.

Rules this file keeps:

1. Only the members that torch.export.save writes for one model, each once, uncompressed, in one folder. Nothing in them is a pickle; the sample
   inputs, which always are one and which nobody needs, are replaced by nothing.
2. JSON is parsed once, here, and written again from what was parsed: PyTorch cannot read another document out of the same bytes.
3. Every text that becomes Python source is an identifier; every operator is an ATen operator that takes tensors and numbers (`aten::from_file`
   and `aten::save` take a file's name); the call takes one tensor and returns one.
4. What PyTorch evaluates or only shows (guards, traces, metadata) is left out; symbolic sizes, custom objects and nested graphs are refused.

Does not prove that the model is harmless to its user: it may still answer anything, slowly, or make PyTorch run out of memory.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from pathlib import Path
from typing import Any, TypeVar

from edgekit.errors import ModelError

MAX_MEMBERS = 20_000
MAX_ARCHIVE_BYTES = 4_000_000_000
MAX_MARK_BYTES = 4096
"""Largest member that is neither JSON nor a tensor: versions, byte order."""

HINT = "save it again with torch.export.save from a model with static shapes on the CPU, or give safetensors and an architecture"

_FOLDER = "model"
_MODEL = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_CONFIGS = {"data/weights/model_weights_config.json": "weight", "data/constants/model_constants_config.json": "tensor"}
_TENSOR = re.compile(r"data/(weights/weight|constants/tensor)_\d+", re.ASCII)
_MARK = re.compile(r"archive_format|archive_version|byteorder|version|\.data/[a-z_]+", re.ASCII)

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_DOTTED = re.compile(r"(?!__)[\w-]+(\.(?!__)[\w-]+)*", re.ASCII)
_OPERATOR = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)", re.ASCII)
_NUMERIC = re.compile(r"((Optional|List)\[)*(Tensor|int|float|bool|number|complex|Device)\]*")
_TEXT = re.compile(r"(Optional\[)?str\]?")
# Operators whose text is a mode, never the name of anything outside the graph.
_OPERATORS_WITH_TEXT = frozenset(
    {"conv1d", "conv2d", "conv3d", "div", "div_", "einsum", "gelu", "gelu_", "meshgrid", "pad", "scatter_reduce"}
)

# A name that belongs to a parameter or a module may have dots; every other text is an identifier.
_DOTTED_KEYS = frozenset({"parameter_name", "buffer_name", "tensor_constant_name", "fqn"})
_QUOTED_KEYS = frozenset({"as_string", "as_strings", "torch_version"})
_REFUSED_KEYS = {
    "as_expr": "symbolic sizes",
    "expr_str": "symbolic sizes",
    "as_custom_obj": "custom objects",
    "custom_obj": "custom objects",
    "as_operator": "operators as values",
    "as_graph": "nested graphs",
    "as_string_to_argument": "dictionaries of arguments",
    "buffer_mutation": "buffers that change with every frame",
}

# Of batch normalization and dropout; any other value than false makes an answer depend on chance or on the frames before it.
_TRAINING_SWITCHES = frozenset({"training", "train"})

_LEAF: dict[str, object] = {"type": None, "context": None, "children_spec": []}
_ONE_TENSOR_IN = [
    1,
    {
        "type": "builtins.tuple",
        "context": "null",
        "children_spec": [
            {"type": "builtins.tuple", "context": "null", "children_spec": [_LEAF]},
            {"type": "builtins.dict", "context": "[]", "children_spec": []},
        ],
    },
]
_ONE_TENSOR_OUT = [1, _LEAF]

Kind = TypeVar("Kind", dict[str, Any], list[Any], str)


def checked(path: Path) -> bytes:
    """Returns a new archive, equal to the file in everything that matters to the model and free of what PyTorch would execute.

    Raises:
        ModelError: The file is no archive of one torch.export program, or holds something that could execute code.
    """
    if not path.is_file():
        raise ModelError(f"the model {path} is not there", hint='model.source = "pt2:PATH" is relative to the recipe')
    size = path.stat().st_size
    if size > MAX_ARCHIVE_BYTES:
        raise ModelError(f"{path} is larger than {MAX_ARCHIVE_BYTES} bytes")
    clean = io.BytesIO()
    try:
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(clean, "w", zipfile.ZIP_STORED) as output:
            for name, member in _members(path, archive, size).items():
                with archive.open(member) as file:
                    # Asked for by size: what a header leaves out is never unpacked.
                    data = file.read(member.file_size)
                output.writestr(f"{_FOLDER}/{name}", _checked_member(path, name, data))
    except (zipfile.BadZipFile, OSError, RuntimeError, EOFError, NotImplementedError, ValueError) as error:
        raise ModelError(f"{path} is not a .pt2 archive: {error}", hint=HINT) from error
    return clean.getvalue()


def _members(path: Path, archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Name without the folder to member (rule 1)."""
    entries = archive.infolist()
    if len(entries) > MAX_MEMBERS:
        raise ModelError(f"{path} has more than {MAX_MEMBERS} members", hint=HINT)
    members: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        folder, _, name = entry.filename.partition("/")
        if not (name in (_MODEL, _SAMPLES) or name in _CONFIGS or _TENSOR.fullmatch(name) or _MARK.fullmatch(name)):
            raise ModelError(f"{path} holds {entry.filename[:80]!r}, which could execute code and is not loaded", hint=HINT)
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise ModelError(f"{path}: {name} is compressed or encrypted, which torch.export.save never does", hint=HINT)
        if folder != entries[0].filename.partition("/")[0] or name in members:
            raise ModelError(f"{path} holds {name} twice or in several folders", hint=HINT)
        members[name] = entry
    # Members are stored one after the other, so together they cannot be larger than the file.
    if sum(entry.file_size for entry in entries) > size:
        raise ModelError(f"{path} unpacks to more than it holds", hint=HINT)
    missing = [name for name in (_MODEL, *_CONFIGS) if name not in members]
    if missing:
        raise ModelError(f"{path} is not a .pt2 archive of torch.export: it has no {missing[0]}", hint=HINT)
    return members


def _checked_member(path: Path, name: str, data: bytes) -> bytes:
    if name == _SAMPLES:
        return b""
    if _TENSOR.fullmatch(name):
        return data
    if name != _MODEL and name not in _CONFIGS:
        if len(data) > MAX_MARK_BYTES:
            raise ModelError(f"{path}: {name} is larger than {MAX_MARK_BYTES} bytes", hint=HINT)
        return data
    try:
        table = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: {name} is not JSON: {str(error)[:200]}", hint=HINT) from error
    if name == _MODEL:
        _check_program(path, table)
    else:
        _check_payload(path, table, _CONFIGS[name])
    return json.dumps(table).encode()


def _check_payload(path: Path, table: object, kind: str) -> None:
    """A table of tensors: parameter name to where its bytes are."""
    elements = 0
    config = _part(path, table, "config", dict)
    for name, entry in config.items():
        if _part(path, config, name, dict).get("use_pickle") is not False:
            raise ModelError(f"{path} holds a pickle, which could execute code, and is not loaded", hint=HINT)
        if not _DOTTED.fullmatch(name) or not re.fullmatch(rf"{kind}_\d+", _part(path, entry, "path_name", str), re.ASCII):
            raise ModelError(f"{path} holds a tensor of the name {name[:80]!r} that is not where tensors are", hint=HINT)
        meta = _part(path, entry, "tensor_meta", dict)
        sizes = [size.get("as_int") if isinstance(size, dict) else None for size in _part(path, meta, "sizes", list)]
        if not all(type(size) is int and size >= 0 for size in sizes):
            raise ModelError(f"{path}: the size of {name} is not static", hint=HINT)
        elements += math.prod(sizes)  # type: ignore[arg-type]  # checked to be integers just above
        _check_texts(path, entry)
    # A tensor without bytes is made of zeros, so the archive's size does not bound it.
    if elements > MAX_ARCHIVE_BYTES:
        raise ModelError(f"{path} declares more than {MAX_ARCHIVE_BYTES} numbers", hint=HINT)


def _check_program(path: Path, table: object) -> None:
    """Checks the program, and takes out in place what is not needed (rule 4)."""
    module = _part(path, table, "graph_module", dict)
    graph = _part(path, module, "graph", dict)
    calls = _part(path, module, "module_call_graph", list)
    root = next((call for call in calls if isinstance(call, dict) and call.get("fqn") == ""), None)
    signature = _part(path, root, "signature", dict)
    if not (_is_tree(signature, "in_spec", _ONE_TENSOR_IN) and _is_tree(signature, "out_spec", _ONE_TENSOR_OUT)):
        raise ModelError(
            f"{path} does not take one tensor and return one",
            hint="export the model with one frame as its only argument, returning the logits alone",
        )
    signature.update(in_spec=json.dumps(_ONE_TENSOR_IN), out_spec=json.dumps(_ONE_TENSOR_OUT), forward_arg_names=None)
    module.update(module_call_graph=[root], metadata={}, treespec_namedtuple_fields={})
    if isinstance(table, dict):
        table.update(guards_code=[])
    for node in _part(path, graph, "nodes", list):
        _check_operator(path, _part(path, node, "target", str))
        for argument in _part(path, node, "inputs", list):
            if isinstance(argument, dict) and argument.get("name") in _TRAINING_SWITCHES and argument.get("arg") != {"as_bool": False}:
                raise ModelError(f"{path} was exported in training mode", hint="call model.eval() before torch.export.export")
        node["metadata"] = {}
    _check_texts(path, table)


def _is_tree(signature: dict[str, Any], key: str, expected: object) -> bool:
    try:
        return bool(json.loads(signature[key]) == expected)
    except (KeyError, TypeError, ValueError, RecursionError):
        return False


def _check_operator(path: Path, target: str) -> None:
    """Refuses what is not an ATen operator on tensors and numbers (rule 3)."""
    import torch

    found = _OPERATOR.fullmatch(target)
    name, overload = (found[1], found[2]) if found else ("", "")
    packet = getattr(torch.ops.aten, name, None) if name else None
    operator = getattr(packet, overload, None) if isinstance(packet, torch._ops.OpOverloadPacket) else None  # noqa: SLF001 - no public name
    if not isinstance(operator, torch._ops.OpOverload):  # noqa: SLF001
        raise ModelError(f"{path} calls {target[:80]!r}, which is not an ATen operator", hint=HINT)
    for argument in operator._schema.arguments:  # noqa: SLF001
        kind = str(argument.type)
        if not _NUMERIC.fullmatch(kind) and not (_TEXT.fullmatch(kind) and name in _OPERATORS_WITH_TEXT):
            raise ModelError(f"{path} calls {target[:80]!r}, which takes {argument.name}, neither a tensor nor a number", hint=HINT)


def _check_texts(path: Path, table: object) -> None:
    """Walks a JSON document without recursion and refuses every key and text that has no business there (rules 3 and 4)."""
    stack: list[tuple[str, object]] = [("", table)]
    while stack:
        key, item = stack.pop()
        if isinstance(item, dict):
            for name, value in item.items():
                if name in _REFUSED_KEYS:
                    raise ModelError(f"{path} has {_REFUSED_KEYS[name]}", hint=HINT)
                if not _IDENTIFIER.fullmatch(name):
                    raise ModelError(f"{path} uses the name {name[:80]!r}, which is no identifier", hint=HINT)
                stack.append((name, value))
        elif isinstance(item, list):
            stack.extend((key, value) for value in item)
        elif isinstance(item, str) and not _is_harmless(key, item):
            raise ModelError(f"{path} uses {item[:80]!r} as {key}, which is no identifier", hint=HINT)


def _is_harmless(key: str, text: str) -> bool:
    if key in _QUOTED_KEYS or text == "":
        return True
    if key in ("target", "in_spec", "out_spec"):  # compared with what they must be, in `_check_program`
        return True
    return (_DOTTED if key in _DOTTED_KEYS else _IDENTIFIER).fullmatch(text) is not None


def _part(path: Path, table: object, key: str, kind: type[Kind]) -> Kind:
    value = table.get(key) if isinstance(table, dict) else None
    if not isinstance(value, kind):
        raise ModelError(f"{path} is not a .pt2 archive of torch.export: {key[:80]} is missing or of another type", hint=HINT)
    return value
