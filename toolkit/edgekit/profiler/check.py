"""One thing that was looked at on a device, and what came of it.

PASS: it was looked at and is as it must be; where there is no bound, it was measured. FAIL: it was looked at and is not. NOT RUN: it was not looked at, and
the reason says why. Nothing is implied: what is not in a report was not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

PASS, FAIL, NOT_RUN = "PASS", "FAIL", "NOT RUN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check.

    Attributes:
        name: What was looked at, then of which engine: "golden-frames tensorrt-int8".
        status: "PASS", "FAIL" or "NOT RUN".
        value: What was found; None where nothing was.
        bound: What it is compared with; None where nothing is demanded.
        reason: Why it is not PASS, or what else there is to say.
    """

    name: str
    status: str
    value: float | str | None = None
    bound: float | str | None = None
    reason: str = ""

    def line(self) -> str:
        """For people."""
        shown = f"{self.value:.4g}" if isinstance(self.value, float) else self.value
        limit = f"{self.bound:.4g}" if isinstance(self.bound, float) else self.bound
        parts = [
            f"{self.status:<7}  {self.name}",
            *([f": {shown}"] if shown is not None else []),
            *([f" ({limit} allowed)" if isinstance(self.bound, float) else f" ({limit})"] if limit is not None else []),
            *([f"; {self.reason}"] if self.reason else []),
        ]
        return "".join(parts)
