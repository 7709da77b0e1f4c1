"""Where an interrupted training goes on: one safetensors file after every epoch, with everything else as JSON in its header.

Rules this file keeps:

1. Tensors and JSON, no pickles. A checkpoint is read as strictly as any weights file.
2. It is written beside the old one, flushed to the disk and renamed: whenever the process or the machine stops, there is the old file or the new one, whole.
3. It belongs to one training (`key`): going on with another network, other data or other settings is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import ModelError, OutputError

if TYPE_CHECKING:
    import torch

FILE = "checkpoint.safetensors"
_ENTRY = "edgekit"
_FORMAT = 1
_AGAIN = "remove the folder to train from the start"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """The state after an epoch.

    Attributes:
        tensors: Name to tensor.
        document: JSON-ready; everything that is no tensor.
    """

    tensors: dict[str, torch.Tensor]
    document: dict[str, Any]


def write(folder: Path, key: str, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint in place of the last one.

    Raises:
        OutputError: It cannot be written.
    """
    import torch
    from safetensors.torch import save

    # A copy each: channels-last memory and tensors of two names cannot be written as they are.
    tensors = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in checkpoint.tensors.items()}
    header = json.dumps({"format": _FORMAT, "key": key, **checkpoint.document}, allow_nan=False)
    temporary = folder / f".{FILE}.new"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(save(tensors, metadata={_ENTRY: header}))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / FILE)
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
    except OSError as error:
        raise OutputError(f"the checkpoint in {folder} cannot be written: {error.strerror}", hint="is the disk full?") from error


def read(folder: Path, key: str) -> Checkpoint | None:
    """Reads the checkpoint of a training; None where it has not come to one.

    Raises:
        ModelError: The file is damaged, or belongs to another training.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            document = json.loads((file.metadata() or {})[_ENTRY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ModelError(f"the checkpoint {path} cannot be read: {type(error).__name__}", hint=_AGAIN) from error
    if document.get("format") != _FORMAT or document.get("key") != key:
        raise ModelError(f"the checkpoint {path} is of another training: network, teachers, data or settings differ", hint=_AGAIN)
    return Checkpoint(tensors=tensors, document=document)


def part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors under a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
