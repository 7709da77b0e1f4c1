"""Texts that leave the device: what is taken out of them, and what must stay."""

from __future__ import annotations

import os
import platform
import pwd
import sys

import pytest

from edgekit.profiler import anonymous

HOMES = "/home"


@pytest.fixture(autouse=True)
def _somebody(monkeypatch, tmp_path):
    """The user alice on the host scanner-7, who works in her home folder."""
    monkeypatch.setenv("HOME", f"{HOMES}/alice")
    monkeypatch.setenv("USER", "alice")
    monkeypatch.setenv("EDGEKIT_ENGINE_CACHE", "/var/lib/edgekit")
    monkeypatch.setattr(sys, "prefix", f"{HOMES}/alice/venv")
    monkeypatch.setattr(platform, "node", lambda: "scanner-7")
    monkeypatch.setattr(pwd, "getpwuid", lambda _: pwd.struct_passwd(("alice", "x", 1, 1, "Alice Smith,,,", f"{HOMES}/alice", "/bin/sh")))
    monkeypatch.chdir(tmp_path)


SCRUBBED = {
    f"pycuda: {HOMES}/alice/venv/lib/python3.10/site-packages/pycuda/_driver.so: undefined symbol: cuX": (
        "pycuda: the Python environment/lib/python3.10/site-packages/pycuda/_driver.so: undefined symbol: cuX"
    ),
    f"{HOMES}/alice/data/bundles/lung.edgekit is damaged": "lung.edgekit is damaged",
    f"'{HOMES}/bob/x/libcuda.so.1' (/opt/hospital/lib/libnvinfer.so.10)": "'libcuda.so.1' (libnvinfer.so.10)",
    "engines are not taken from /var/lib/edgekit: it belongs to another user": "engines are not taken from the engine cache: it belongs to another user",
    f"{HOMES}/alice is full": "~ is full",
    f"{HOMES}/alice2/x is not hers": "x is not hers",
    "alice may not write, and alice-x may": "the user may not write, and alice-x may",
    "made by Alice Smith on scanner-7": "made by the user on the host",
    "libcudart is in /usr/local/cuda-12.6/lib64/libcudart.so": "libcudart is in libcudart.so",
}
KEPT = (
    "TensorRT 10.3.0 refuses the model: node /features/0/conv/Conv (Conv): Unsupported",
    "/proc/driver/nvidia/version names no version",
    "/sys/class/thermal/x and /etc/nvpmodel.conf cannot be read",
    "8 of 16 layers, 1/2 of them at 25.0 W/h",
    "sha256 3f/2a",
    "the folder ../x or ~/y",
)


@pytest.mark.parametrize("found", SCRUBBED)
def test_folders_and_names_are_taken_out(found):
    """Whatever a library quotes, no folder and no name of user or host stays; what the sentence says does."""
    assert anonymous.text(found) == SCRUBBED[found]


@pytest.mark.parametrize("found", KEPT)
def test_what_tells_nobody_stays(found):
    """Names of nodes, files that every device has, and fractions are no folders."""
    assert anonymous.text(found) == found


def test_a_name_that_many_devices_have_is_a_word(monkeypatch):
    """Where the user is called as the maker of the GPU, a text about that stays what it is."""
    monkeypatch.setenv("USER", "nvidia")
    monkeypatch.setattr(pwd, "getpwuid", lambda _: pwd.struct_passwd(("nvidia", "x", 1, 1, "", f"{HOMES}/nvidia", "/bin/sh")))
    assert anonymous.text("the driver of nvidia is missing") == "the driver of nvidia is missing"


def test_a_word_alone_is_no_sentence():
    """A value such as the name of a profile is not mistaken for the user's name."""
    assert anonymous.document({"profile": "alice", "reason": "alice was here"}) == {"profile": "alice", "reason": "the user was here"}


def test_documents_at_any_depth():
    """Every text of a document is looked through; numbers, truth values and keys stay."""
    found = {"a": [{"reason": f"{HOMES}/alice/x.so"}], "b": ("/opt/secret/y",), f"{HOMES}/alice": 1, "c": None, "d": True, "e": 1.5}
    assert anonymous.document(found) == {"a": [{"reason": "x.so"}], "b": ["y"], f"{HOMES}/alice": 1, "c": None, "d": True, "e": 1.5}


def test_a_user_without_a_name_or_home(monkeypatch):
    """In a container without an entry for the user, texts are looked through all the same."""

    def unknown(_):
        raise KeyError("no such user")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "USER", "LOGNAME", "EDGEKIT_ENGINE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert anonymous.text(f"{HOMES}/alice/x.so is missing") == "x.so is missing"
