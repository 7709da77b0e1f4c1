"""What `edgekit run` opens beside its inputs, and closes in any case: the bundle on an engine, its health, the local page, the log."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.cli.console import tell

if TYPE_CHECKING:
    from edgekit.runtime.classifier import Classifier
    from edgekit.runtime.health import Health
    from edgekit.runtime.structured_log import EventLog
    from edgekit.runtime.supervisor import Supervised


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What is to be opened.

    Attributes:
        bundle: The bundle.
        supervise: Whether its engine runs in a process of its own, watched.
        port: Where health is served on the loopback; None for nowhere.
        log: The file that events are added to; None for no log.
    """

    bundle: Path
    supervise: bool
    port: int | None
    log: Path | None

    @contextlib.contextmanager
    def running(self) -> Iterator[tuple[Classifier | Supervised, Health, Callable[[str], None]]]:
        """Opens everything.

        Yields:
            Who answers, who records, and who is to be told which engine gave an answer.

        Raises:
            EdgekitError: The bundle, the port or the log cannot be had; before any frame.
        """
        from edgekit.runtime.health import Health
        from edgekit.runtime.structured_log import EventLog

        events = None if self.log is None else EventLog.to_file(self.log)
        recorder = Health() if events is None else Health(events=events.record)
        with contextlib.ExitStack() as stack:
            if events is not None:
                stack.callback(_close, events)
            classifier = self._classifier(recorder)
            stack.callback(classifier.close)
            if events is not None:
                events.started(bundle_digest=classifier.bundle_digest, engine=classifier.engine_name)
                stack.callback(lambda: events.stopped(recorder.snapshot()))
            self._serve(stack, recorder)
            yield classifier, recorder, _nobody if events is None else events.engine

    def _classifier(self, recorder: Health) -> Classifier | Supervised:
        from edgekit.runtime.classifier import load
        from edgekit.runtime.supervisor import Supervised

        return Supervised(self.bundle, on_restart=recorder.restarted) if self.supervise else load(self.bundle)

    def _serve(self, stack: contextlib.ExitStack, recorder: Health) -> None:
        from edgekit.runtime.endpoint import serve

        if self.port is not None:
            endpoint = stack.enter_context(serve(self.port, recorder))
            tell(f"health: http://127.0.0.1:{endpoint.port}/health and /metrics")


def _nobody(_engine: str) -> None:
    """There is no log."""


def _close(events: EventLog) -> None:
    events.close()
    if events.lost:
        tell(f"warning: {events.lost} lines of the log could not be written: {events.problem}")
