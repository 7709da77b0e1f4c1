"""How `edgekit run --jobs N` answers files: several at the same time, each as a clip of its own; printed in the order of the files.

The lines of a file are kept until it is its turn: those of a few files are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.cli.run_clips import Live, Runner, Together
from edgekit.cli.run_output import Kept, Overlays, Printed, Printer
from edgekit.runtime.temporal import DEFAULT_TOP_K

if TYPE_CHECKING:
    from edgekit.cli.run_service import Opened
    from edgekit.runtime.classifier import Classifier
    from edgekit.runtime.pool import Pool

Item = tuple[Path, "Overlays | None"]


class Jobs:
    """Answers files on a pool.

    Args:
        opened: What was opened, with a pool.
        printer: Prints what became of the files.
        overlays: Draws it; None for no overlays.
        as_json: As `Printer`'s.
    """

    def __init__(self, opened: Opened, printer: Printer, overlays: Overlays | None, *, as_json: bool) -> None:
        if opened.pool is None:
            raise ValueError("there is no pool")
        self._opened, self._pool = opened, opened.pool
        self.printer, self._overlays, self._as_json = printer, overlays, as_json

    def run(self, _name: str, paths: list[Path]) -> int:
        """Answers the files of one input.

        Returns:
            How many files or frames could not be answered.
        """
        failed = 0
        for printed, failures in self._pool.map(self._one, self._items(paths)):
            for what in printed:
                self.printer.put(what)
            failed += failures
        return failed

    def _items(self, paths: list[Path]) -> Iterator[Item]:
        for path in paths:
            yield path, None if self._overlays is None else self._overlays.reserved(str(path))

    def _one(self, classifier: Classifier, item: Item) -> tuple[list[Printed], int]:
        path, overlays = item
        kept = _Interruptible(classifier, self._pool, as_json=self._as_json)
        together = Together(top_k=DEFAULT_TOP_K)
        runner = Runner(classifier, self._opened.health, kept, overlays, live=Live(), together=together, on_engine=self._opened.on_engine)
        failed = runner.run(str(path), [path])
        return kept.printed, failed


class _UnwantedError(Exception):
    """Nobody waits for the lines of this file any more."""


class _Interruptible(Kept):
    """Ends the file where the run has ended: a video of an hour must not keep Ctrl-C waiting."""

    def __init__(self, classifier: Classifier, pool: Pool, *, as_json: bool) -> None:
        super().__init__(classifier, as_json=as_json)
        self._pool = pool

    def _put(self, what: Printed) -> None:
        if self._pool.stopping.is_set():
            raise _UnwantedError
        super()._put(what)
