"""What is known about calibration: one TOML in `calibration/` each; which frames quantization sees, and how many."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.catalog import files
from edgekit.errors import CatalogError
from edgekit.schema.decode import decode

SPLITS = ("train", "calib")
"""Splits that calibration may look at. Never val, which chooses the settings, and never test, which proves them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A calibration recipe.

    Attributes:
        name: Name of the file, without `.toml`.
        title: For people.
        splits: Where frames are taken from, in this order, until `samples` are found.
        samples: Frames to take; all of the splits' where they hold fewer.
        minimum: Fewer frames than this are refused.
        seed: Of the draw.
        minimum_per_label: Fewer frames than this of a label (multilabel: no label present and absent that often) are refused as one-sided.
        max_flat: Largest share of frames that are black or of one grey level. In [0, 1).
    """

    name: str
    title: str
    splits: tuple[str, ...]
    samples: int
    minimum: int
    seed: int
    minimum_per_label: int = 4
    max_flat: float = 0.1

    def __post_init__(self) -> None:
        if not self.splits or any(split not in SPLITS for split in self.splits):
            raise ValueError(f"splits are chosen from {list(SPLITS)}, not {list(self.splits)}; val and test must stay unseen")
        if not 1 <= self.minimum <= self.samples:
            raise ValueError("minimum must be at least 1 and at most samples")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, but is {self.seed}")
        if not 1 <= self.minimum_per_label <= self.samples:
            raise ValueError(f"minimum_per_label must be at least 1 and at most samples, not {self.minimum_per_label}")
        if not 0 <= self.max_flat < 1:
            raise ValueError(f"max_flat is a share of the frames, at least 0 and below 1, not {self.max_flat}")


def load_calibration(name: str) -> Calibration:
    """Reads a calibration recipe by its name.

    Raises:
        CatalogError: The name is unknown, or its file is wrong.
    """
    path = files.find("calibration", name)
    return decode(Calibration, {"name": name, **files.read_toml(path)}, where=str(path), error=CatalogError)
