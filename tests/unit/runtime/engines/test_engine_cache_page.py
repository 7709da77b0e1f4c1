"""`docs/engine-cache.md` says what the code does: settings, parts of the key, names of files, keys of the document."""

from __future__ import annotations

import dataclasses
import re

import repository

from edgekit.profiler.engine_choice import Tried
from edgekit.runtime.engines import cache_keys, choice_file, engine_cache, tensorrt_build
from edgekit.runtime.engines.cache_keys import DeviceKey, EntryKey, HostKey

PAGE = (repository.ROOT / "docs/engine-cache.md").read_text("utf-8")


def rows(after):
    """First cells of the table under a heading or sentence."""
    table = PAGE[PAGE.index(after) :].split("\n\n")
    body = next(part for part in table if part.startswith("|"))
    return [re.findall(r"`([^`]+)`", line.split("|")[1])[0] for line in body.splitlines()[2:]]


def test_the_settings():
    """The page lists every setting that a bundle may choose."""
    assert sorted(rows("## Settings")) == sorted(tensorrt_build.SETTINGS)


def test_the_key():
    """The page lists every part of the key."""
    parts = {field.name for kind in (DeviceKey, EntryKey, HostKey) for field in dataclasses.fields(kind)} - {"device"}
    assert set(rows("DIGEST is of the key")) == parts
    assert f"of this page; {cache_keys.SCHEMA} " in PAGE


def test_the_environment_and_the_files():
    """The page names the variable and the kinds of files."""
    assert f"${engine_cache.ENVIRONMENT}" in PAGE
    assert f"`{tensorrt_build.TIMINGS}-DIGEST.plan`" in PAGE
    assert "`choice-BUNDLE-DEVICE.json`" in PAGE
    assert choice_file.pattern("a" * 64) == f"choice-{'a' * 64}-*.json"


def test_the_document():
    """The page lists every key of an engine in the document of `edgekit build --json`."""
    listed = re.search(r"`engines` \(each with ([^)]+)\)", PAGE)
    assert listed
    assert re.findall(r"`(\w+)`", listed[1]) == [field.name for field in dataclasses.fields(Tried)]
