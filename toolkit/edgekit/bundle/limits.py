"""How large a bundle may be: every limit the reader and the writer keep, in one place.

Rules this file keeps:

1. The unit is in the name, and a test goes one past each limit.
2. The writer keeps the same limits as the reader, so a bundle that was written can be read.
3. No limit can be raised beyond what a ZIP without its 64-bit extension can say.
"""

from __future__ import annotations

from dataclasses import dataclass

_ZIP_SIZE_BYTES = 2**32 - 1
_ZIP_COUNT = 2**16 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is refused before memory or time is spent on it.

    Attributes:
        max_bundle_bytes: Size of the file. A 25 million parameter network in float32 is 100 MB; a bundle is read into memory whole.
        max_members: Members of the archive, the manifest included.
        max_name_bytes: Length of a member's name.
        max_manifest_bytes: Size of `manifest.json`.
        max_manifest_depth: Tables and lists inside each other in `manifest.json`, counting the outermost.
        max_text_characters: Length of a key or a text in `manifest.json`.
        max_array_dimensions: Dimensions of an array member.
    """

    max_bundle_bytes: int = 512 * 2**20
    max_members: int = 64
    max_name_bytes: int = 96
    max_manifest_bytes: int = 2**20
    max_manifest_depth: int = 8
    max_text_characters: int = 2000
    max_array_dimensions: int = 8

    def __post_init__(self) -> None:
        for name, ceiling in (("max_bundle_bytes", _ZIP_SIZE_BYTES), ("max_members", _ZIP_COUNT), ("max_name_bytes", _ZIP_COUNT)):
            if not 0 < getattr(self, name) < ceiling:
                raise ValueError(f"{name} must be between 1 and {ceiling - 1}, what a plain ZIP can say")


DEFAULT_LIMITS = Limits()
"""What the device and the compiler use; tests pass smaller ones."""
