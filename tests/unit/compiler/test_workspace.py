"""The stage cache: what is reused, what is made again, and that nothing half-made is left."""
# ruff: noqa: ARG002 - a stage is told more than these need

from __future__ import annotations

import dataclasses
import errno
import json
from typing import ClassVar

import pytest

from edgekit.compiler import workspace as w
from edgekit.compiler.progress import Silent
from edgekit.errors import DataError, OutputError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Copy(w.Stage[str]):
    """Writes its text, in two files, one in a folder; counts how often it is made."""

    name: ClassVar[str] = "copy"
    made: list
    text: str = "x"
    fault: BaseException | None = None
    once: bool = False

    @property
    def repeatable(self):
        return not self.once

    def requires(self):
        return {"text": self.text}

    def apply(self, folder, progress):
        self.made.append(self.text)
        (folder / "one.txt").write_text(self.text)
        if self.fault is not None:
            raise self.fault
        (folder / "inner").mkdir(exist_ok=True)
        (folder / "inner" / "two.txt").write_text(self.text)

    def ensures(self, folder):
        return (folder / "inner" / "two.txt").read_text()


class Told(Silent):
    """Remembers what was told."""

    def __init__(self):
        self.began = []
        self.notes = []

    def begin(self, stage, *, cached):
        self.began.append((stage, cached))

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def space(tmp_path, told):
    return w.Workspace(tmp_path / "deep" / "work", told)


def results(space):
    return sorted(path.name for path in space._root.iterdir())


def test_a_result_is_made_once(space, told):
    """The second run takes it from the cache, says so, and records both."""
    made = []
    assert [space.run(Copy(made=made), label="val") for _ in range(2)] == ["x", "x"]
    assert made == ["x"]
    assert told.began == [("copy val", False), ("copy val", True)]
    assert [(record.name, record.cached) for record in space.records] == [("copy val", False), ("copy val", True)]
    assert told.notes == []


def test_another_input_is_another_result(space):
    """Both stay."""
    made = []
    assert [space.run(Copy(made=made, text=text)) for text in "aba"] == ["a", "b", "a"]
    assert made == ["a", "b"]
    assert len(results(space)) == 2


def test_other_code_is_another_result(space, monkeypatch):
    """A result of an older edgekit is not taken for this one's."""
    made = []
    space.run(Copy(made=made))
    monkeypatch.setattr(w, "code_digest", lambda: "other")
    space.run(Copy(made=made))
    assert made == ["x", "x"]


def test_a_label_is_no_input(space):
    """It is for people."""
    made = []
    space.run(Copy(made=made), label="val")
    space.run(Copy(made=made), label="test")
    assert made == ["x"]


@pytest.mark.parametrize("fault", [RuntimeError("broken"), KeyboardInterrupt(), DataError("a bad frame"), OSError("no number")])
def test_an_interrupted_stage_leaves_nothing(space, fault):
    """The error comes out as it is, no folder is left, and the next run makes the result."""
    made = []
    with pytest.raises(type(fault)):
        space.run(Copy(made=made, fault=fault))
    assert results(space) == []
    assert space.run(Copy(made=made)) == "x"
    assert made == ["x", "x"]


def test_a_full_disk_is_said(space):
    """With the file that could not be written, and nothing left behind."""
    with pytest.raises(OutputError, match=r"copy: No space left on device: .*one\.txt") as caught:
        space.run(Copy(made=[], fault=OSError(errno.ENOSPC, "No space left on device", "one.txt")))
    assert "disk" in caught.value.hint
    assert results(space) == []


def flip(folder):
    (folder / "inner" / "two.txt").write_text("y")


def drop(folder):
    (folder / "one.txt").unlink()


def unrecord(folder):
    (folder / "stage.json").unlink()


def spoil_record(folder):
    (folder / "stage.json").write_text('{"one.txt": ')


def list_record(folder):
    (folder / "stage.json").write_text("[]")


def climb_record(folder):
    (folder / "stage.json").write_text(json.dumps({"one.txt": 3}))


@pytest.mark.parametrize("damage", [flip, drop, unrecord, spoil_record, list_record, climb_record])
def test_a_damaged_result_is_made_again(space, told, damage):
    """And that is said, since something is wrong with the disk or with who writes there."""
    made = []
    space.run(Copy(made=made))
    damage(space._root / results(space)[0])
    assert space.run(Copy(made=made)) == "x"
    assert made == ["x", "x"]
    assert told.notes == ["the cached result of copy is damaged and is made again"]
    assert told.began[-1] == ("copy", False)
    assert space.run(Copy(made=made)) == "x"
    assert made == ["x", "x"]


def test_a_stage_of_the_users_own_code_is_never_reused(space, told):
    """Only running it tells what it makes."""
    made = []
    assert [space.run(Copy(made=made, once=True)) for _ in range(2)] == ["x", "x"]
    assert made == ["x", "x"]
    assert [cached for _, cached in told.began] == [False, False]
    assert told.notes == []
    assert len(results(space)) == 1


def test_a_result_that_appears_meanwhile_is_replaced(space):
    """Another compile may have been faster; its result is the same."""
    made = []

    class Racing(Copy):
        def apply(self, folder, progress):
            super().apply(folder, progress)
            if len(made) == 1:
                space.run(Copy(made=made))

    assert space.run(Racing(made=made)) == "x"
    assert made == ["x", "x"]
    assert len(results(space)) == 1


def test_a_broken_promise_comes_out_of_fresh_and_cached_results(space):
    """Both are opened by the same code."""

    class Broken(Copy):
        def ensures(self, folder):
            raise DataError("no frames")

    for _ in range(2):
        with pytest.raises(DataError, match="no frames"):
            space.run(Broken(made=[]))


def test_a_work_folder_that_cannot_be_made_is_refused(tmp_path):
    """Before any work; a file is in its place here, since a superuser may write anywhere."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"the work folder .* cannot be written: ") as caught:
        w.Workspace(tmp_path / "file" / "work", Silent())
    assert "--workdir" in caught.value.hint
    with pytest.raises(OutputError, match="cannot be written: File exists"):
        w.Workspace(tmp_path / "file", Silent())


def test_a_work_folder_that_goes_away_is_said(space):
    """While compiling."""
    space._root.rmdir()
    with pytest.raises(OutputError, match="cannot be written: No such file"):
        space.run(Copy(made=[]))


def test_a_digest_depends_on_values_and_not_on_their_order():
    """Tables are the same in any order; lists are not, and 1 is not "1"."""
    assert w.digest({"a": 1, "b": [1, 2]}) == w.digest({"b": [1, 2], "a": 1})
    assert len({w.digest(value) for value in ({"a": [1, 2]}, {"a": [2, 1]}, {"a": ["1", 2]}, {"a": [1.5, 2]}, {"b": [1, 2]})}) == 5


def test_the_code_digest_covers_what_results_depend_on(tmp_path, monkeypatch):
    """A changed line in any of these packages changes it, a file beside them does not."""

    def digest_of(root):
        monkeypatch.setattr(w, "__file__", str(root / "compiler" / "workspace.py"))
        return w.code_digest.__wrapped__()

    for part in ("compiler", "imaging", "runtime", "schema", "report"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "code.py").write_text("a = 1\n")
    before = digest_of(tmp_path)
    (tmp_path / "report" / "code.py").write_text("a = 2\n")
    (tmp_path / "schema" / "notes.txt").write_text("a = 2\n")
    assert digest_of(tmp_path) == before
    seen = {before}
    for part in ("compiler", "imaging", "runtime", "schema"):
        (tmp_path / part / "code.py").write_text("a = 2\n")
        seen.add(digest_of(tmp_path))
    assert len(seen) == 5


class Training(Copy):
    """Counts on from the checkpoint it finds."""

    resumes: ClassVar[bool] = True

    def apply(self, folder, progress):
        checkpoint = folder / "checkpoint.txt"
        done = int(checkpoint.read_text()) if checkpoint.exists() else 0
        checkpoint.write_text(str(done + 1))
        super().apply(folder, progress)

    def ensures(self, folder):
        return (folder / "checkpoint.txt").read_text()


def test_a_stage_that_keeps_checkpoints_goes_on_in_them(space):
    """An interruption leaves its folder, under a name that is no result; the finished result leaves nothing else."""
    with pytest.raises(KeyboardInterrupt):
        space.run(Training(made=[], fault=KeyboardInterrupt()))
    (left,) = space._root.iterdir()
    assert left.name.startswith(".copy-")
    assert left.name.endswith(".unfinished")
    assert space.run(Training(made=[])) == "2"
    assert len(results(space)) == 1
    assert not left.exists()


def test_checkpoints_of_other_inputs_are_not_gone_on_with(space):
    """The folder is named after everything the result depends on."""
    with pytest.raises(KeyboardInterrupt):
        space.run(Training(made=[], fault=KeyboardInterrupt()))
    assert space.run(Training(made=[], text="y")) == "1"


def test_two_compiles_do_not_work_in_one_folder_of_checkpoints(space):
    """The second is told to wait; the first is not disturbed."""

    class Meanwhile(Training):
        def apply(self, folder, progress):
            with pytest.raises(OutputError, match=r"another compile works in .*, on the same stage"):
                space.run(Training(made=[]))
            super().apply(folder, progress)

    assert space.run(Meanwhile(made=[])) == "1"


class Ranks(w.Processes):
    """Two processes in turn, told apart by rank; waiting is counted."""

    def wait(self):
        pass


def test_one_of_several_processes_makes_a_result_and_the_others_open_it(tmp_path):
    """A result that the first one did not make is not made by another one."""
    made = []
    other = w.Workspace(tmp_path, Silent(), Ranks(rank=1, count=2))
    with pytest.raises(FileNotFoundError):
        other.run(Copy(made=made))
    assert made == []
    assert w.Workspace(tmp_path, Silent(), Ranks(rank=0, count=2)).run(Copy(made=made)) == "x"
    assert other.run(Copy(made=made)) == "x"
    assert made == ["x"]


def test_every_process_takes_part_in_a_collective_stage(tmp_path):
    """And only the first gives the result its name."""

    class Together(Training):
        collective: ClassVar[bool] = True

    made = []
    with pytest.raises(FileNotFoundError):
        w.Workspace(tmp_path, Silent(), Ranks(rank=1, count=2)).run(Together(made=made))
    assert made == ["x"]
    assert w.Workspace(tmp_path, Silent(), Ranks(rank=0, count=2)).run(Together(made=made)) == "2"


def test_what_a_stage_runs_inside_is_part_of_it(space):
    """The report's times add up: a trial of a search is not counted beside the search."""

    class Outer(Copy):
        def apply(self, folder, progress):
            space.run(Copy(made=[], text="inner"))
            super().apply(folder, progress)

    space.run(Outer(made=[]), label="outer")
    assert [record.name for record in space.records] == ["copy outer"]
