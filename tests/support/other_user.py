"""What another user of the machine meets: runs a function in a process of one who owns nothing."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def other_user(work: Callable[[], Any]) -> Any:
    """What a function returns, or the error it raises, as another user."""
    here, there = multiprocessing.get_context("fork").Pipe()

    def child() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            there.send(work())
        except Exception as error:  # noqa: BLE001 - the test looks at it
            there.send(error)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    found = here.recv() if here.poll(60) else None
    process.join(20)
    return found


def let_in(folder: Path) -> None:
    """Lets every user get to a folder of the test, and read it."""
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
