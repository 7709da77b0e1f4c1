"""What is known about a device: one TOML in `targets/` each."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.catalog import files
from edgekit.errors import CatalogError
from edgekit.schema.decode import decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing the profile relies on, and where it was read or measured."""

    statement: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A device profile.

    Attributes:
        name: Name of the file, without `.toml`.
        title: For people.
        architectures: `platform.machine()` in lower case of the machines it stands for.
        engine: Name of the runtime's engine.
        settings: The engine's configuration keys; pinned in every bundle made for this target.
        channel_multiple: Pruned channel counts are multiples of this, so that the engine's vector units are full.
        facts: What the profile relies on.
    """

    name: str
    title: str
    architectures: tuple[str, ...]
    engine: str
    settings: dict[str, str]
    channel_multiple: int = 1
    facts: tuple[Fact, ...] = ()

    def __post_init__(self) -> None:
        if not self.architectures:
            raise ValueError("architectures is empty")
        if not 1 <= self.channel_multiple <= 256:
            raise ValueError(f"channel_multiple must be between 1 and 256, not {self.channel_multiple}")


def load_target(name: str) -> Target:
    """Reads a target by its name.

    Raises:
        CatalogError: The name is unknown, or its file is wrong.
    """
    path = files.find("targets", name)
    return decode(Target, {"name": name, **files.read_toml(path)}, where=str(path), error=CatalogError)
