"""Several classifiers on one bundle, for a folder of frames: each has its share of the cores and answers frames of its own, from reading to overlay.

One frame at a time on all cores is what a scanner wants, and leaves cores idle while a file is read and decoded. Here a frame takes longer and more of them are
answered.

Rules this file keeps:

1. Each classifier is opened as ever, with the settings that were proven but for the number of threads. All have the same engine and threads, and one of them is tried on
   the golden frames before any answers: how sums are split among threads may round otherwise.
2. Results come in the order of the items, and no more than a few are waiting: a folder of a million files needs the memory of what a few give.
3. Where the results are no longer wanted, as after Ctrl-C, nothing new is begun, and work that looks at `stopping` ends early.
"""

from __future__ import annotations

import dataclasses
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from edgekit.bundle.manifest import EngineSpec
from edgekit.bundle.reader import Bundle, open_bundle
from edgekit.errors import TargetError
from edgekit.runtime import selftest
from edgekit.runtime.classifier import Classifier

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_WORKERS = 64
_WAITING = 2
"""Results a worker that may wait to be taken."""
_THREADS = {
    # Pinned, every worker would sit on the first core.
    "openvino": lambda threads: {"INFERENCE_NUM_THREADS": str(threads), "NUM_STREAMS": "1", "ENABLE_CPU_PINNING": "NO"},
    "onnxruntime": lambda threads: {"INTRA_OP_NUM_THREADS": str(threads)},
}


class Pool:
    """Classifiers that share the cores of this machine. It may be used as a context manager, which closes them.

    Args:
        path: The bundle.
        workers: How many, 1 to `MAX_WORKERS`.

    Raises:
        TargetError: The bundle's engine does not run on cores, or does not reproduce the golden frames with so few threads; or as `Classifier`.
        BundleError: As `open_bundle`.
    """

    def __init__(self, path: Path, workers: int) -> None:
        if not 1 <= workers <= MAX_WORKERS:
            raise TargetError(f"{workers} workers are not between 1 and {MAX_WORKERS}", hint="as many as there are cores")
        bundle = _shared(open_bundle(path), max(1, cores() // workers))
        self._open: queue.SimpleQueue[Classifier] = queue.SimpleQueue()
        self.workers = workers
        self.stopping = threading.Event()
        with ExitStack() as opened:
            self.classifiers = [opened.enter_context(Classifier(bundle)) for _ in range(workers)]
            _try(bundle, self.classifiers)
            self._close = opened.pop_all()
        for classifier in self.classifiers:
            self._open.put(classifier)

    def __enter__(self) -> Pool:  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes every classifier."""
        self._close.close()

    def map(self, work: Callable[[Classifier, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """What a function gives for each item, in their order.

        Args:
            work: Called in some thread with a classifier that nobody else uses meanwhile. What it raises comes out in its turn, and ends the rest. Work that
                takes long looks at `stopping`.
            items: Taken one by one, as results are.
        """
        self.stopping.clear()
        with ThreadPoolExecutor(self.workers, thread_name_prefix="edgekit-pool") as threads:
            waiting: deque[Future[Result]] = deque()
            try:
                for item in items:
                    waiting.append(threads.submit(self._do, work, item))
                    if len(waiting) >= _WAITING * self.workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                self.stopping.set()
                for future in waiting:
                    future.cancel()

    def _do(self, work: Callable[[Classifier, Item], Result], item: Item) -> Result:
        classifier = self._open.get()
        try:
            return work(classifier, item)
        finally:
            self._open.put(classifier)


def cores() -> int:
    """Hardware threads that this process may use."""
    # Linux alone has affinities.
    affinity = getattr(os, "sched_getaffinity", None)
    return (os.cpu_count() or 1) if affinity is None else len(affinity(0))


def _shared(bundle: Bundle, threads: int) -> Bundle:
    """The bundle with engines that use so many threads each."""
    specs: Sequence[EngineSpec] = bundle.manifest.engines
    usable = [
        dataclasses.replace(spec, settings={**spec.settings, **_THREADS[spec.name](threads)})
        for spec in specs
        if spec.name in _THREADS and spec.settings.get("DEVICE", "CPU") == "CPU"
    ]
    if len(usable) < len(specs):
        others = ", ".join(spec.name for spec in specs if spec.name not in _THREADS) or "another device than the CPU"
        raise TargetError(f"{bundle.path} runs on {others}, which answers one frame at a time", hint="leave out the number of jobs")
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, engines=tuple(usable)))


def _try(bundle: Bundle, classifiers: Sequence[Classifier]) -> None:
    classifier = classifiers[0]
    names = sorted({one.engine_name for one in classifiers})
    if len(names) > 1:
        raise TargetError(f"{bundle.path}: the workers came to different engines, {' and '.join(names)}", hint="edgekit doctor")
    spec = next(spec for spec in bundle.manifest.engines if spec.name == classifier.engine_name)
    golden = selftest.read_golden(bundle, spec)
    found = selftest.compare(bundle.manifest, spec, golden, selftest.answer_clip(classifier.engine, golden.frames))
    if found.status != "PASS":
        raise TargetError(f"{bundle.path}: with fewer threads {spec.name} fails its golden frames: {found.reason}", hint="use one job")
