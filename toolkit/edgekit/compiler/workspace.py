"""The stage cache: an interrupted compile resumes, and a repeated one costs only what changed.

Rules this file keeps:

1. A stage's result is a folder named after the digest of everything it depends on: content hashes, options, library versions, and edgekit's own code.
2. It is built under a temporary name and renamed when it is whole, so an interrupted stage leaves nothing that looks like a result.
3. Every file of a result is hashed when it is made and checked when it is reused; a damaged result is built again, and that is said.
4. A fresh and a cached result are opened and checked by the same code (`ensures`).
5. A stage that keeps checkpoints (`resumes`) works in a folder of a fixed name that an interruption leaves, so that the next run goes on in it; a
   lock keeps two compiles out of the same one. The folder is renamed like any other when the result is whole.
6. Of several processes (`processes.py`) one makes the result, and the others open it; a stage they make together (`collective`) is made by all.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from edgekit.compiler.processes import Processes
from edgekit.compiler.progress import Progress
from edgekit.errors import OutputError

T = TypeVar("T")

_RECORD = "stage.json"
_RESULT_CODE = ("compiler", "imaging", "runtime", "schema")


class Stage(ABC, Generic[T]):
    """One step of the pipeline: what it depends on, what it makes, and what it promises."""

    name: ClassVar[str]
    resumes: ClassVar[bool] = False
    """Whether an interrupted `apply` goes on in its folder; it then finds there what it had written."""
    collective: ClassVar[bool] = False
    """Whether every process takes part in `apply`; only the first may write into the folder. Such a stage also resumes."""

    @property
    def repeatable(self) -> bool:
        """Whether `requires` tells everything; a stage that runs the user's own code cannot know, and is never taken from the cache."""
        return True

    @abstractmethod
    def requires(self) -> Mapping[str, object]:
        """Everything the result depends on, JSON-ready; edgekit's own code is added."""

    @abstractmethod
    def apply(self, folder: Path, progress: Progress) -> None:
        """Makes the result's files in a folder: an empty one, or one that it left when it was interrupted."""

    @abstractmethod
    def ensures(self, folder: Path) -> T:
        """Opens the result and checks what the stage promises.

        Raises:
            EdgekitError: The promise is broken; says what the user should change.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    """What a stage cost: for the report."""

    name: str
    cached: bool
    seconds: float


class Workspace:
    """A folder of stage results."""

    def __init__(self, root: Path, progress: Progress, processes: Processes | None = None) -> None:
        """Makes the folder.

        Raises:
            OutputError: It cannot be made or written.
        """
        self._root = root
        self._progress = progress
        self._processes = processes or Processes()
        self.records: list[StageRecord] = []
        self._depth = 0
        try:
            root.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=root).close()
        except OSError as error:
            raise OutputError(
                f"the work folder {root} cannot be written: {error.strerror}", hint="choose another with --workdir"
            ) from error

    @property
    def root(self) -> Path:
        """Where the results are."""
        return self._root

    def run(self, stage: Stage[T], *, label: str = "") -> T:
        """Returns a stage's result, from the cache where it is there and whole."""
        title = f"{stage.name} {label}".strip()
        folder = self._root / f"{stage.name}-{digest({'code': code_digest(), **stage.requires()})[:24]}"
        start = time.perf_counter()
        # Every process must come to the same answer, before the first one changes it.
        cached = folder.is_dir() and stage.repeatable
        if cached and not _is_whole(folder):
            self._progress.note(f"the cached result of {title} is damaged and is made again")
            cached = False
        self._processes.wait()
        self._progress.begin(title, cached=cached)
        if not cached and (stage.collective or self._processes.is_main):
            self._depth += 1
            try:
                self._build(stage, folder)
            finally:
                self._depth -= 1
        self._processes.wait()
        result = stage.ensures(folder)
        seconds = time.perf_counter() - start
        if not self._depth:  # what a stage runs inside is part of it
            self.records.append(StageRecord(name=title, cached=cached, seconds=seconds))
        self._progress.end()
        return result

    def _build(self, stage: Stage[T], folder: Path) -> None:
        try:
            with self._unfinished(stage, folder) as unfinished:
                stage.apply(unfinished, self._progress)
                self._processes_finish(stage)
                if self._processes.is_main:
                    _seal(unfinished, folder)
        except OSError as error:
            if error.errno is None:
                raise
            raise OutputError(f"{stage.name}: {error.strerror}: {error.filename or self._root}", hint="is the disk full?") from error

    def _processes_finish(self, stage: Stage[T]) -> None:
        # The first process must not rename the folder while another still reads a checkpoint in it.
        if stage.collective:
            self._processes.wait()

    @contextlib.contextmanager
    def _unfinished(self, stage: Stage[T], folder: Path) -> Iterator[Path]:
        """Where a stage makes its result: removed when it fails, unless the stage can go on in it."""
        if stage.resumes or stage.collective:
            path = folder.with_name(f".{folder.name}.unfinished")
            self._make(path)
            with _locked(path) if self._processes.is_main else contextlib.nullcontext():
                yield path
            return
        try:
            path = Path(tempfile.mkdtemp(prefix=f".{stage.name}-", dir=self._root))
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def _make(self, path: Path) -> None:
        try:
            path.mkdir(exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(f"the work folder {self._root} cannot be written: {error.strerror}", hint="choose another with --workdir")


def _seal(unfinished: Path, folder: Path) -> None:
    """Records every file of a result and gives it its name."""
    files = {str(path.relative_to(unfinished)): file_digest(path) for path in sorted(unfinished.rglob("*")) if path.is_file()}
    (unfinished / _RECORD).write_text(json.dumps(files, indent=1, sort_keys=True))
    if folder.exists():  # another compile was faster
        shutil.rmtree(folder)
    unfinished.replace(folder)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps other compiles out of a folder while this one works in it; of several processes of one compile, the first holds the lock."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise OutputError(
            f"another compile works in {folder.parent}, on the same stage", hint="wait for it, or choose another folder with --workdir"
        ) from error
    finally:
        os.close(opened)


def digest(value: object) -> str:
    """sha256 of a JSON-ready value, as 64 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file, as 64 hex digits."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()


@cache
def code_digest() -> str:
    """sha256 over the source that results depend on: other code may give another result."""
    package = Path(__file__).resolve().parents[1]
    found = hashlib.sha256()
    for path in sorted(path for part in _RESULT_CODE for path in (package / part).rglob("*.py")):
        found.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def _is_whole(folder: Path) -> bool:
    try:
        files = json.loads((folder / _RECORD).read_text())
        return all(file_digest(folder / name) == expected for name, expected in files.items())
    except (OSError, ValueError, AttributeError):
        return False
