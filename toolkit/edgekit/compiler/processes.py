"""One compile in several processes, as `torchrun` and `accelerate launch` start them: all train together, one does everything else.

Rules this file keeps:

1. Without a launcher there is one process, and nothing of PyTorch's is imported here.
2. Every process walks through the same stages in the same order. The first makes what is not training; the others wait for it and read its result.
3. A process that fails ends; the launcher ends the others, and the same command resumes.
"""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import dataclass

from edgekit.errors import CatalogError

# The first process may measure and quantize for long while the others wait.
_LONGEST_WAIT = dt.timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """This process and how many there are.

    Attributes:
        rank: Number of this process, from 0.
        count: Processes in all.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that makes what is not training."""
        return self.rank == 0

    def wait(self) -> None:
        """Returns when every process has come here."""
        if self.count > 1:
            import torch
            from accelerate import PartialState

            # Without being told so, it takes processes without a GPU for single ones, and would not wait.
            PartialState(cpu=not torch.cuda.is_available(), timeout=_LONGEST_WAIT).wait_for_everyone()


def launched() -> Processes:
    """What the launcher's environment says.

    Raises:
        CatalogError: It says something that no launcher says.
    """
    found = {name: os.environ.get(name) for name in ("WORLD_SIZE", "RANK")}
    if not found["WORLD_SIZE"]:
        return Processes()
    try:
        count, rank = int(found["WORLD_SIZE"] or ""), int(found["RANK"] or "0" if found["WORLD_SIZE"] == "1" else found["RANK"] or "")
    except ValueError as error:
        raise CatalogError(
            f"WORLD_SIZE and RANK are {found['WORLD_SIZE']!r} and {found['RANK']!r}, not a launcher's numbers",
            hint="start several processes with torchrun or accelerate launch; unset both variables for one",
        ) from error
    return Processes(rank=rank, count=count) if count > 1 else Processes()
