"""Where a data manifest keeps what: the names of its columns, as the recipe's `[data]` states them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Names of the columns of a data manifest; the defaults are what `edgekit init` writes.

    Attributes:
        file: Path of the frame, relative to the folder of the manifest.
        label: The label, or several separated by ``;`` or ``|`` for multilabel.
        split: train, calib, val or test; rows of any other split are ignored.
        group: The patient or video; splits and intervals never cut through one.
        mask: Path of a lesion mask; None where there is none.
    """

    file: str = "file"
    label: str = "label"
    split: str = "split"
    group: str = "patient_or_video_id"
    mask: str | None = None

    def __post_init__(self) -> None:
        if any(not name.strip() for name in self.named()):
            raise ValueError("the name of a column is empty")
        if len(set(self.named())) != len(self.named()):
            raise ValueError(f"one column cannot serve twice: {list(self.named())}")

    def named(self) -> tuple[str, ...]:
        """Every column that is read, in the order file, label, split, group, mask."""
        names = (self.file, self.label, self.split, self.group)
        return names if self.mask is None else (*names, self.mask)
