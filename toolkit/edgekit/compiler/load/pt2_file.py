"""A model from a `.pt2` archive of torch.export: `pt2:PATH`.

`torch.export.load` trusts its archive: it unpickles constants, weights and sample inputs (with a fallback that executes code), evaluates size expressions as
Python, and resolves operator names by attribute access from `torch`. So the archive is read here first, and what is handed to PyTorch is a new archive
that holds only what was checked.

Rules this file keeps:

1. Only members of known names are kept; any payload marked as pickled, and any custom object, is refused.
2. The sample inputs, which are always a pickle and which nobody needs, are replaced by nothing.
3. Every operator of the graph is an ATen operator or `getitem`; no other name is ever resolved.
4. Symbolic sizes are refused: a device takes one static frame, and the expressions are evaluated by PyTorch.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.catalog.recipe import ModelSpec
from edgekit.compiler.load.torch_model import TorchModel
from edgekit.errors import ModelError
from edgekit.schema.model_io import InputSpec

if TYPE_CHECKING:
    import torch

MAX_MEMBERS = 20_000
MAX_ARCHIVE_BYTES = 4_000_000_000

_MEMBER = re.compile(
    r"(archive_format|archive_version|byteorder|version|\.data/[a-z_]+|models/[\w-]+\.json"
    r"|data/(weights|constants)/([\w-]+_config\.json|weight_\d+|tensor_\d+)|data/sample_inputs/[\w-]+\.pt)"
)
_SAMPLE = re.compile(r"data/sample_inputs/[\w-]+\.pt")
_OPERATOR = re.compile(r"(torch\.ops\.aten\.\w+\.\w+|_operator\.getitem)")
_HINT = "save it again with torch.export.save from a model with static shapes, or give safetensors and an architecture"


def open_pt2(argument: str, model: ModelSpec, spec: InputSpec) -> TorchModel:
    """`pt2:PATH`."""
    import torch

    if model.weights is not None:
        raise ModelError("a .pt2 archive holds its own weights; remove model.weights")
    path = Path(argument)
    clean = _checked_archive(path)
    try:
        program = torch.export.load(io.BytesIO(clean))
        module = program.module(check_guards=False)
    except Exception as error:  # PyTorch raises many kinds for a damaged archive
        raise ModelError(
            f"{path} cannot be loaded: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", hint=_HINT
        ) from error
    return TorchModel(_Evaluated(module), spec, labels=len(model.labels), binary=model.task == "binary")


def _checked_archive(path: Path) -> bytes:
    if not path.is_file():
        raise ModelError(f"the model {path} is not there", hint='model.source = "pt2:PATH" is relative to the recipe')
    if path.stat().st_size > MAX_ARCHIVE_BYTES:
        raise ModelError(f"{path} is larger than {MAX_ARCHIVE_BYTES} bytes")
    clean = io.BytesIO()
    try:
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(clean, "w", zipfile.ZIP_STORED) as output:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS or sum(member.file_size for member in members) > MAX_ARCHIVE_BYTES:
                raise ModelError(f"{path} unpacks to more than {MAX_ARCHIVE_BYTES} bytes")
            for member in members:
                output.writestr(member.filename, _checked_member(path, member.filename, archive.read(member)))
    except (zipfile.BadZipFile, OSError, RuntimeError, EOFError, NotImplementedError) as error:
        raise ModelError(f"{path} is not a .pt2 archive: {error}", hint=_HINT) from error
    return clean.getvalue()


def _checked_member(path: Path, name: str, data: bytes) -> bytes:
    # Members stand in one folder named after the file.
    inner = name.partition("/")[2]
    if not _MEMBER.fullmatch(inner):
        raise ModelError(f"{path} holds {inner or name!r}, which could execute code and is not loaded", hint=_HINT)
    if _SAMPLE.fullmatch(inner):
        return b""
    if inner.endswith(".json"):
        try:
            table = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{path}: {inner} is not JSON: {error}", hint=_HINT) from error
        _check_table(path, table)
    return data


def _check_table(path: Path, table: Any) -> None:
    """Walks a JSON document without recursion and refuses what PyTorch would execute."""
    stack = [table]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        if not isinstance(item, dict):
            continue
        if item.get("use_pickle"):
            raise ModelError(f"{path} holds a pickle, which could execute code, and is not loaded", hint=_HINT)
        if "expr_str" in item or "as_expr" in item or "as_custom_obj" in item:
            raise ModelError(f"{path} has symbolic sizes or custom objects", hint=_HINT)
        if "target" in item and "inputs" in item and not _OPERATOR.fullmatch(str(item["target"])):
            raise ModelError(f"{path} calls {str(item['target'])[:80]!r}, which is not an ATen operator", hint=_HINT)
        stack.extend(item.values())


def _Evaluated(module: torch.nn.Module) -> torch.nn.Module:  # noqa: N802 - makes a module class lazily, since torch is imported lazily
    import torch

    class Evaluated(torch.nn.Module):
        """An exported program, which has no train and eval modes and is fixed to its batch."""

        edgekit_fixed_batch = True

        def __init__(self) -> None:
            super().__init__()
            self.program = module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.program(x)
            return result

        def train(self, mode: bool = True) -> Evaluated:  # noqa: FBT001, FBT002, ARG002
            return self

    return Evaluated()
