"""A pruned network as files: the channel plan as JSON beside the weights as safetensors.

Rules this file keeps:

1. The files rebuild the pruned network from the unpruned architecture alone. Nothing is pickled, and nothing in the files is executed.
2. The plan in the files is relative to the unpruned network, however many steps it came from.
3. A plan or weights that are damaged, or do not fit the architecture, are refused; nothing is rebuilt partly.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.compiler.prune.apply import apply_plan
from edgekit.compiler.prune.channel_plan import ChannelPlan, compose
from edgekit.errors import ModelError, OutputError
from edgekit.schema.decode import decode, encode

if TYPE_CHECKING:
    import torch

PLAN = "plan.json"
WEIGHTS = "weights.safetensors"
MAX_PLAN_BYTES = 64 << 20
"""Largest plan that is read; the architectures in the tests take up to half a megabyte."""


def save(plan: ChannelPlan, module: torch.nn.Module, folder: Path, *, base: Path | None = None) -> None:
    """Writes the plan and the weights of the network that it leaves; each file appears whole or not at all.

    Args:
        plan: Relative to the network that it was made from.
        module: The pruned network.
        folder: Where `plan.json` and `weights.safetensors` go; it is made.
        base: Folder of the network that the plan was made from. Where that was pruned itself, its plan and this one are written as one; a folder without a plan
            is that of an unpruned network.

    Raises:
        ModelError: The plan does not follow the base's.
        OutputError: The files cannot be written.
    """
    from safetensors.torch import save as serialize

    if base is not None and (base / PLAN).exists():
        plan = compose(read(base), plan)
    # A copy of each: safetensors refuses tensors that share memory, as tied weights do.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    text = json.dumps(encode(plan), indent=None, separators=(",", ":"), ensure_ascii=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / WEIGHTS, serialize(tensors))
        _write(folder / PLAN, text.encode())
    except OSError as error:
        raise OutputError(f"the pruned network cannot be written to {folder}: {error.strerror}", hint="is the disk full?") from error


def load(build_unpruned: Callable[[], torch.nn.Module], folder: Path) -> torch.nn.Module:
    """Rebuilds a pruned network.

    Args:
        build_unpruned: Makes the unpruned architecture; its weights do not matter.
        folder: What `save` wrote.

    Returns:
        The pruned network in evaluation mode; its outputs are those of the saved one, bit for bit.

    Raises:
        ModelError: Plan or weights are missing, damaged, or of another architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    module = apply_plan(build_unpruned(), read(folder))
    path = folder / WEIGHTS
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is not a safetensors file: {error}", hint="the file is missing or damaged; prune again") from error
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise ModelError(f"{path} does not fit the pruned architecture", hint="plan and weights must be of the same network") from error
    return module.eval()


def read(folder: Path) -> ChannelPlan:
    """Reads a plan.

    Raises:
        ModelError: It is missing, damaged or no plan.
    """
    path = folder / PLAN
    try:
        if path.stat().st_size > MAX_PLAN_BYTES:
            raise ModelError(f"{path} is larger than {MAX_PLAN_BYTES >> 20} MiB, which no channel plan is")
        table = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(f"the channel plan {path} cannot be read: {error.strerror}", hint="prune again") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON", hint="the file is damaged; prune again") from error
    return decode(ChannelPlan, table, where=str(path), error=ModelError)


def _write(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
