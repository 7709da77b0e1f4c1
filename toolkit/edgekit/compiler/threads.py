"""Keeps PyTorch's idle threads asleep.

PyTorch's OpenMP threads spin for a while after each operation. Beside another engine in the same process, or on a machine with other work, they then take the
cores from those that have something to do: a compile was seen to take twenty times as long on two busy cores.
"""

from __future__ import annotations

import os


def let_idle_threads_sleep() -> None:
    """Sets OpenMP's wait policy, unless the user has; works only before PyTorch is first imported."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
