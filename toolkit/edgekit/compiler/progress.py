"""How long work tells that it is alive; the command line draws it, a library caller may ignore it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What a stage tells while it works."""

    def begin(self, stage: str, *, cached: bool) -> None:
        """A stage starts; `cached` when its result was found."""

    def step(self, done: int, total: int) -> None:
        """`done` of `total` steps of the current stage are finished."""

    def note(self, text: str) -> None:
        """Something was decided that the user should know."""

    def end(self) -> None:
        """The current stage is finished."""


class Silent:
    """Tells nothing."""

    def begin(self, stage: str, *, cached: bool) -> None:
        pass

    def step(self, done: int, total: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def end(self) -> None:
        pass
