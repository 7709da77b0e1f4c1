"""The engine cache: what may be used, what is refused and why, and what is never left behind."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

import pytest
from other_user import as_root, let_in, other_user

from edgekit.errors import OutputError, TargetError
from edgekit.runtime.engines import cache_files, choice_file, engine_cache
from edgekit.runtime.engines.cache_keys import DeviceKey, Entry, EntryKey, Unusable
from edgekit.runtime.engines.choice_file import Choice
from edgekit.runtime.engines.engine_cache import EngineCache

DEVICE = DeviceKey(
    tensorrt="10.3.0",
    cuda_runtime="12.6",
    cuda_driver="12.6",
    compute_capability="8.7",
    gpu="Orin",
    multiprocessors=8,
    module="p3767-0003",
    l4t="36.4.3",
)
KEY = EntryKey(kind="tensorrt-int8", model_sha256="a" * 64, options={"WORKSPACE_MIB": "512"}, device=DEVICE)
BUNDLE = "b" * 64
PLAN = bytes(range(256)) * 4


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "cache")


@pytest.fixture
def filled(cache):
    cache.store(KEY, PLAN, {"build_seconds": 1.5})
    return cache


def plan_of(cache, key=KEY):
    return cache.folder / f"{key.name}.plan"


def sidecar_of(cache, key=KEY):
    return cache.folder / f"{key.name}.json"


def test_what_is_stored_comes_back(filled):
    """An entry is the payload, its digest and what was told about its making; nothing but the two files is there."""
    found = filled.load(KEY)
    assert (found.payload, found.facts["build_seconds"], len(found.sha256)) == (PLAN, 1.5, 64)
    assert sorted(path.name for path in filled.folder.iterdir()) == [f"{KEY.name}.json", f"{KEY.name}.plan"]


CHANGES = {
    "kind": {"kind": "tensorrt-fp16"},
    "model": {"model_sha256": "c" * 64},
    "options": {"options": {"WORKSPACE_MIB": "513"}},
    **{
        field.name: {"device": dataclasses.replace(DEVICE, **{field.name: 99 if field.type == "int" else "99"})}
        for field in dataclasses.fields(DeviceKey)
    },
}


@pytest.mark.parametrize("part", CHANGES)
def test_every_part_of_the_key_counts(filled, part):
    """With any part of the key changed there is no entry, and the reason says what differs."""
    key = dataclasses.replace(KEY, **CHANGES[part])
    found = filled.load(key)
    assert isinstance(found, Unusable)
    if part in ("kind", "model"):
        assert found.reason == "it was not built here yet"
    elif part == "options":
        assert found.reason == "the one that is cached was built with other options"
    else:
        assert f"{part} " in found.reason
        assert "here 99" in found.reason


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


FAULTS = {
    "cut-short": (lambda cache: plan_of(cache).write_bytes(PLAN[:-1]), "has 1023 bytes, not the 1024"),
    "longer": (lambda cache: plan_of(cache).write_bytes(PLAN + b"x"), "has 1025 bytes"),
    "flipped": (lambda cache: plan_of(cache).write_bytes(PLAN[:-1] + b"x"), "not the one that was built"),
    "plan-gone": (lambda cache: plan_of(cache).unlink(), "cannot be read"),
    "plan-a-folder": (lambda cache: (plan_of(cache).unlink(), plan_of(cache).mkdir()), "Is a directory"),
    "plan-a-pipe": (lambda cache: (plan_of(cache).unlink(), os.mkfifo(plan_of(cache))), "not a regular file"),
    "plan-a-link": (
        lambda cache: (plan_of(cache).rename(cache.folder / "x"), plan_of(cache).symlink_to(cache.folder / "x")),
        "cannot be read",
    ),
    "plan-open-to-others": (lambda cache: plan_of(cache).chmod(0o602), "others than its owner may write"),
    "plan-open-to-the-group": (lambda cache: plan_of(cache).chmod(0o620), "others than its owner may write"),
    "sidecar-gone": (lambda cache: sidecar_of(cache).unlink(), "it was not built here yet"),
    "sidecar-open-to-others": (lambda cache: sidecar_of(cache).chmod(0o622), "others than its owner may write"),
    "sidecar-no-json": (lambda cache: sidecar_of(cache).write_text("{"), "is damaged"),
    "sidecar-a-list": (lambda cache: sidecar_of(cache).write_text("[]"), "is damaged"),
    "sidecar-not-utf8": (lambda cache: sidecar_of(cache).write_bytes(b"\xff\xfe\x00"), "is damaged"),
    "sidecar-too-deep": (lambda cache: sidecar_of(cache).write_text("[" * 100_000), "is damaged"),
    "sidecar-huge": (lambda cache: sidecar_of(cache).write_text(" " * (2**20 + 1)), "more than the 1048576"),
    "sidecar-of-another-key": (lambda cache: edit(sidecar_of(cache), key={"kind": "tensorrt-int8"}), "key is not the one"),
    "sidecar-without-digest": (lambda cache: edit(sidecar_of(cache), sha256=None), "not the one that was built"),
    "sidecar-without-size": (lambda cache: edit(sidecar_of(cache), size_bytes=None), "not the None"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_entry_with_a_fault_is_not_handed_out(filled, fault):
    """Whatever is wrong with either file, there is a reason and no payload; storing again mends it."""
    spoil, says = FAULTS[fault]
    spoil(filled)
    found = filled.load(KEY)
    assert isinstance(found, Unusable), fault
    assert says in found.reason
    if fault != "plan-a-folder":
        filled.store(KEY, PLAN, {})
        assert isinstance(filled.load(KEY), Entry)


def test_an_entry_under_the_name_of_another_is_not_handed_out(filled):
    """Files that were renamed to the name of another key are refused: the key in the sidecar counts."""
    other = dataclasses.replace(KEY, model_sha256="d" * 64)
    plan_of(filled).rename(plan_of(filled, other))
    sidecar_of(filled).rename(sidecar_of(filled, other))
    assert filled.load(other).reason == "the entry's key is not the one its name says"


def test_a_file_of_another_user_is_refused(filled, monkeypatch):
    """Files and folders that belong to neither this user nor root are not used."""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    if os.getuid() == 0:
        assert isinstance(filled.load(KEY), Entry)
        os.chown(plan_of(filled), 4321, -1)
        assert "belongs to another user (uid 4321)" in filled.load(KEY).reason
        os.chown(filled.folder, 4321, -1)
    with pytest.raises(TargetError, match="belongs to another user"):
        filled.load(KEY)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777, 0o722])
def test_a_folder_that_others_may_write_to_is_refused(filled, mode):
    """Nothing in such a folder is looked at, and nothing is written there."""
    filled.folder.chmod(mode)
    for call in (
        lambda: filled.load(KEY),
        lambda: filled.store(KEY, PLAN, {}),
        lambda: filled.load_choice(BUNDLE, DEVICE),
        lambda: filled.locked(KEY).__enter__(),
    ):
        with pytest.raises(TargetError, match="others than its owner may write") as caught:
            call()
        assert "EDGEKIT_ENGINE_CACHE" in caught.value.hint
    filled.folder.chmod(0o755)
    assert isinstance(filled.load(KEY), Entry)


def test_a_folder_below_one_that_everybody_may_write_to_is_refused(filled):
    """Who may rename the folder may put another one in its place; the sticky bit forbids that."""
    above = filled.folder.parent
    above.chmod(0o777)
    with pytest.raises(TargetError, match="everybody may write to"):
        filled.load(KEY)
    above.chmod(0o1777)
    assert isinstance(filled.load(KEY), Entry)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    """A folder that is none is an error with a way out, at reading and at writing."""
    (tmp_path / "cache").write_text("")
    cache = EngineCache(tmp_path / "cache")
    with pytest.raises(TargetError, match="not a folder"):
        cache.load(KEY)
    with pytest.raises(OutputError, match="cannot be made"):
        cache.store(KEY, PLAN, {})


def test_looking_makes_nothing(cache):
    """Loading from a cache that is not there leaves it so."""
    assert cache.load(KEY) == Unusable(reason="no engine was built here yet")
    assert isinstance(cache.load_choice(BUNDLE, DEVICE), Unusable)
    assert not cache.folder.exists()


@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_a_write_that_breaks_off_leaves_nothing(filled, monkeypatch, at):
    """Where a write fails, no half-written file is left, and what was there before still is."""

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if at == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OutputError, match="No space left on device"):
        filled.store(KEY, b"another", {})
    monkeypatch.undo()
    assert not list(filled.folder.glob(".*"))
    assert filled.load(KEY).payload == PLAN
    filled.store(KEY, b"another", {})
    assert filled.load(KEY).payload == b"another"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OutputError("No space left on device")], ids=["interrupted", "full"])
def test_the_sidecar_comes_last(filled, monkeypatch, error):
    """A store that ends between the two files leaves a plan that nobody may use, until one is stored again: no entry is made of two builds."""
    real = cache_files.write

    def interrupted(path, content):
        if path.suffix == ".json":
            raise error
        real(path, content)

    with monkeypatch.context() as breaking:
        breaking.setattr(cache_files, "write", interrupted)
        with pytest.raises(type(error)):
            filled.store(KEY, PLAN[::-1], {})
    assert plan_of(filled).read_bytes() == PLAN[::-1]
    assert isinstance(filled.load(KEY), Unusable)
    filled.store(KEY, PLAN[::-1], {})
    assert filled.load(KEY).payload == PLAN[::-1]


CHOICE = Choice(
    order=("tensorrt-fp16",),
    refused={"tensorrt-int8": "it differs"},
    entries={"tensorrt-int8": KEY.name, "tensorrt-fp16": "tensorrt-fp16-x"},
    plans={"tensorrt-int8": "1" * 64, "tensorrt-fp16": "2" * 64},
    tried=({"engine": "tensorrt-int8", "latency_ms": 1.5},),
)


def test_a_choice_comes_back(filled):
    """What was chosen for a bundle on a device is known there, and for no other bundle."""
    filled.store_choice(BUNDLE, DEVICE, CHOICE)
    assert filled.load_choice(BUNDLE, DEVICE) == CHOICE
    assert "not built and tried on this device yet" in filled.load_choice("c" * 64, DEVICE).reason


def test_a_choice_of_another_device_does_not_count(filled):
    """After an update of the device its choices are told and not used."""
    filled.store_choice(BUNDLE, DEVICE, CHOICE)
    found = filled.load_choice(BUNDLE, dataclasses.replace(DEVICE, tensorrt="10.7.0"))
    assert found.reason == "the bundle's engines were tried with tensorrt 10.3.0, here 10.7.0"


@pytest.mark.parametrize(
    "changes",
    [
        {"order": "tensorrt-int8"},
        {"order": [1]},
        {"order": None},
        {"refused": []},
        {"refused": {"a": 1}},
        {"plans": {"a": 1}},
        {"tried": [1]},
        {"bundle": "c" * 64},
    ],
)
def test_a_damaged_choice_does_not_count(filled, changes):
    """A choice that is not one is as good as none."""
    filled.store_choice(BUNDLE, DEVICE, CHOICE)
    edit(filled.folder / choice_file.name(BUNDLE, DEVICE), **changes)
    assert isinstance(filled.load_choice(BUNDLE, DEVICE), Unusable)


def test_a_new_plan_takes_no_choice_away(filled):
    """A choice names the plan that it was made with and lets no other answer, so it stays, with what it says of the bundle's other engines."""
    filled.store_choice(BUNDLE, DEVICE, CHOICE)
    filled.store(KEY, b"another plan", {})
    assert filled.load_choice(BUNDLE, DEVICE) == CHOICE


def test_what_is_removed_is_gone(filled):
    """Both files go, and again is no error."""
    filled.remove(KEY)
    assert list(filled.folder.iterdir()) == []
    filled.remove(KEY)


def test_what_cannot_be_removed_is_one_error(filled, monkeypatch):
    """An entry of another user stays, and the error says which and what to do."""

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OutputError, match=f"{KEY.name} could not be removed from .*: Permission denied") as caught:
        filled.remove(KEY)
    assert engine_cache.ENVIRONMENT in caught.value.hint


@as_root
def test_another_user_cannot_remove_what_root_built(filled, open_path):
    """The system's refusal is an error with a hint, and the entry is whole."""
    found = other_user(lambda: filled.remove(KEY))
    assert isinstance(found, OutputError)
    assert isinstance(filled.load(KEY), Entry)


@pytest.mark.parametrize("digest", ["", "x" * 64, "../" * 20, "B" * 64])
def test_a_digest_is_a_digest(cache, digest):
    """The name of a choice's file cannot lead elsewhere."""
    with pytest.raises(TargetError, match="no digest of a bundle"):
        cache.store_choice(digest, DEVICE, CHOICE)


def test_a_kind_is_a_name(cache):
    """The name of an entry's files cannot lead elsewhere."""
    with pytest.raises(TargetError, match="no kind"):
        cache.store(dataclasses.replace(KEY, kind="../x"), PLAN, {})


def test_where_the_cache_is(monkeypatch, tmp_path):
    """The folder is the environment's, else below XDG's cache where that is absolute, else below the home folder."""
    monkeypatch.setenv("EDGEKIT_ENGINE_CACHE", str(tmp_path / "own"))
    assert engine_cache.default_folder() == tmp_path / "own"
    monkeypatch.setenv("EDGEKIT_ENGINE_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert engine_cache.default_folder() == tmp_path / "xdg" / "edgekit" / "engines"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert EngineCache().folder == tmp_path / "home" / ".cache" / "edgekit" / "engines"


def test_the_largest_payload_is_a_limit(filled, monkeypatch):
    """A plan that is larger than any is not read."""
    monkeypatch.setattr(engine_cache, "MAX_PAYLOAD_BYTES", 1023)
    assert "more than the 1023 it may have" in filled.load(KEY).reason


@pytest.fixture
def open_path(tmp_path):
    """Lets every user get to the test's folder."""
    let_in(tmp_path)


@as_root
def test_what_root_built_serves_another_user(cache, open_path):
    """Entries and choices of root are readable for the user of a service, whatever root's umask is, and no more than that."""
    before = os.umask(0o077)
    try:
        cache.store(KEY, PLAN, {})
        cache.store_choice(BUNDLE, DEVICE, CHOICE)
    finally:
        os.umask(before)
    assert {oct(path.stat().st_mode & 0o777) for path in cache.folder.iterdir()} == {"0o644"}
    assert cache.folder.stat().st_mode & 0o777 == 0o755
    assert other_user(lambda: cache.load(KEY).payload) == PLAN
    assert other_user(lambda: cache.load_choice(BUNDLE, DEVICE)) == CHOICE
    assert isinstance(other_user(lambda: cache.store(KEY, PLAN, {})), OutputError)


@as_root
def test_a_folder_that_this_user_may_not_look_into_holds_nothing(filled, open_path):
    """A folder that is closed to this user is no crash: there is no entry and no choice, and the reason says so."""
    filled.store_choice(BUNDLE, DEVICE, CHOICE)
    filled.folder.chmod(0o700)
    assert "Permission denied" in other_user(lambda: filled.load(KEY)).reason
    assert "Permission denied" in other_user(lambda: filled.load_choice(BUNDLE, DEVICE)).reason
    filled.folder.parent.chmod(0o700)
    found = other_user(lambda: filled.load(KEY))
    assert isinstance(found, TargetError)
    assert "Permission denied" in found.message


@pytest.mark.parametrize("what", ["sidecar", "plan", "choice"])
def test_a_file_that_cannot_be_opened_is_a_reason(filled, monkeypatch, what):
    """Whatever the system answers when a file is opened, it is a reason and no crash."""
    filled.store_choice(BUNDLE, DEVICE, CHOICE)
    closed = {"sidecar": sidecar_of(filled), "plan": plan_of(filled), "choice": filled.folder / choice_file.name(BUNDLE, DEVICE)}[what]
    real = os.open

    def refuse(path, *rest, **more):
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    found = filled.load_choice(BUNDLE, DEVICE) if what == "choice" else filled.load(KEY)
    assert isinstance(found, Unusable)
    assert "Permission denied" in found.reason


def test_what_a_user_writes_only_that_user_reads(cache, monkeypatch):
    """Without being root, files and folders are closed to others."""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    cache_files.make_folder(cache.folder)
    cache_files.write(cache.folder / "x", b"")
    assert (cache.folder.stat().st_mode & 0o777, (cache.folder / "x").stat().st_mode & 0o777) == (0o700, 0o600)


def test_a_choice_is_written_only_where_it_changed(filled, monkeypatch):
    """The same choice with other timings writes nothing; another one does."""
    filled.store_choice(BUNDLE, DEVICE, CHOICE)

    def refuse(*_, **__):
        raise OutputError("read-only")

    monkeypatch.setattr(cache_files, "probe", refuse)
    filled.store_choice(BUNDLE, DEVICE, dataclasses.replace(CHOICE, tried=({"latency_ms": 2.5},)))
    with pytest.raises(OutputError, match="read-only"):
        filled.store_choice(BUNDLE, DEVICE, dataclasses.replace(CHOICE, order=()))


def test_devices_keep_a_choice_each(filled):
    """The choice of another power mode does not take the place of this one's."""
    other = dataclasses.replace(DEVICE, multiprocessors=4)
    filled.store_choice(BUNDLE, DEVICE, CHOICE)
    filled.store_choice(BUNDLE, other, dataclasses.replace(CHOICE, order=()))
    assert (filled.load_choice(BUNDLE, DEVICE).order, filled.load_choice(BUNDLE, other).order) == (("tensorrt-fp16",), ())


def test_what_a_killed_process_left_is_removed(filled):
    """Old temporary files go when an entry is locked; young ones may be another process's work and stay."""
    old, young = filled.folder / ".edgekit-0.tmp", filled.folder / ".edgekit-1.tmp"
    for path in (old, young):
        path.write_bytes(b"")
    then = time.time() - cache_files.STALE_S - 60
    os.utime(old, (then, then))
    with filled.locked(KEY):
        assert (old.exists(), young.exists()) == (False, True)
