"""What `edgekit run` opens beside its inputs, and closes in any case: the bundle on an engine, its health, the local page, the log."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.cli.console import tell

if TYPE_CHECKING:
    from edgekit.runtime.classifier import Classifier
    from edgekit.runtime.health import Health
    from edgekit.runtime.pool import Pool
    from edgekit.runtime.structured_log import EventLog
    from edgekit.runtime.supervisor import Supervised


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What was opened.

    Attributes:
        classifier: Who answers; one of the pool's where there is one.
        health: Who records.
        on_engine: Who is told which engine gave an answer.
        pool: Who answers several files at the same time; None where one is answered after the other.
    """

    classifier: Classifier | Supervised
    health: Health
    on_engine: Callable[[str], None]
    pool: Pool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What is to be opened.

    Attributes:
        bundle: The bundle.
        supervise: Whether its engine runs in a process of its own, watched.
        frame_limit_ms: A frame that is not answered in this time has hung it.
        port: Where health is served on the loopback; None for nowhere.
        log: The file that events are added to; None for no log.
        jobs: Classifiers that share the cores; 1 for one that has them all.
    """

    bundle: Path
    supervise: bool
    frame_limit_ms: float
    port: int | None
    log: Path | None
    jobs: int = 1

    @contextlib.contextmanager
    def running(self) -> Iterator[Opened]:
        """Opens everything.

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
            pool = self._pool(stack)
            classifier = self._classifier(recorder) if pool is None else pool.classifiers[0]
            stack.callback(classifier.close)
            if events is not None:
                events.started(bundle_digest=classifier.bundle_digest, engine=classifier.engine_name)
                stack.callback(lambda: events.stopped(recorder.snapshot()))
            self._serve(stack, recorder)
            yield Opened(classifier=classifier, health=recorder, on_engine=_nobody if events is None else events.engine, pool=pool)

    def _pool(self, stack: contextlib.ExitStack) -> Pool | None:
        if self.jobs == 1:
            return None
        from edgekit.runtime.pool import Pool

        return stack.enter_context(Pool(self.bundle, self.jobs))

    def _classifier(self, recorder: Health) -> Classifier | Supervised:
        from edgekit.runtime.classifier import load
        from edgekit.runtime.supervisor import DEFAULT, Supervised

        if not self.supervise:
            return load(self.bundle)
        first_ms = max(DEFAULT.first_frame_limit_ms, self.frame_limit_ms)
        options = replace(DEFAULT, frame_limit_ms=self.frame_limit_ms, first_frame_limit_ms=first_ms)
        return Supervised(self.bundle, options=options, on_restart=recorder.restarted)

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
