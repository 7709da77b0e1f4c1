"""The ZIP of a `.pt2` archive: members, folders, sizes, compression, and files that are no archive."""
# ruff: noqa: TID253 - the tests of what loads torch load torch, and a table of cases is called alike

from __future__ import annotations

import zipfile

import pytest
import torch
from network_builders import tiny_network
from pt2_builders import MODEL, WEIGHTS, Network, members, opened, pack, save

from edgekit.errors import ModelError


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A real archive of torch.export.save."""
    return save(Network(), tmp_path_factory.mktemp("pt2") / "net.pt2")


def compressed(content, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in content.items():
            target.writestr(f"net/{name}", data)


def bomb(content, path):
    """A small file that unpacks to a hundred megabytes."""
    compressed({**content, "data/weights/weight_0": bytes(100_000_000)}, path)


def lying_bomb(content, path):
    """The same, declared as a few bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("net/data/weights/weight_0", bytes(100_000_000))
        for name, data in content.items():
            if name != "data/weights/weight_0":
                target.writestr(f"net/{name}", data)
        target.infolist()[0].file_size = 8


def declared(content, path):
    """A stored member that says it is larger than the file."""
    with zipfile.ZipFile(path, "w") as target:
        for name, data in content.items():
            target.writestr(f"net/{name}", data)
        target.infolist()[0].file_size = 2**33


def overlapping(content, path):
    """Many members that are the same bytes."""
    with zipfile.ZipFile(path, "w") as target:
        for name, data in content.items():
            target.writestr(f"net/{name}", data)
        largest = max(target.infolist(), key=lambda member: member.file_size)
        for index in range(100, 200):
            member = zipfile.ZipInfo(f"net/data/weights/weight_{index}")
            member.header_offset, member.CRC, member.compress_size = largest.header_offset, largest.CRC, largest.file_size
            member.file_size = largest.file_size
            target.filelist.append(member)


def twice(content, path):
    with zipfile.ZipFile(path, "w") as target:
        for name, data in [*content.items(), (MODEL, content[MODEL])]:
            target.writestr(f"net/{name}", data)


def two_folders(content, path):
    with zipfile.ZipFile(path, "w") as target:
        for index, (name, data) in enumerate(content.items()):
            target.writestr(f"net{index % 2}/{name}", data)


def with_member(name):
    def build(content, path):
        with zipfile.ZipFile(path, "w") as target:
            for inner, data in content.items():
                target.writestr(f"net/{inner}", data)
            target.writestr(name, b"{}")

    return build


def without(name):
    return lambda content, path: pack(path, {inner: data for inner, data in content.items() if inner != name})


def replaced(name, data):
    return lambda content, path: pack(path, {**content, name: data})


CONTAINERS = {
    "compressed": (compressed, "compressed or encrypted"),
    "bomb": (bomb, "compressed or encrypted"),
    "lying-bomb": (lying_bomb, "compressed or encrypted"),
    "declared-larger-than-the-file": (declared, "unpacks to more than it holds"),
    "overlapping": (overlapping, "unpacks to more than it holds"),
    "member-twice": (twice, "twice or in several folders"),
    "two-folders": (two_folders, "twice or in several folders"),
    "climbing-folder": (with_member("../net/archive_version_x"), "could execute code"),
    "climbing-member": (with_member("net/../../evil"), "could execute code"),
    "absolute-member": (with_member("/net/models/model.json"), "could execute code"),
    "member-without-folder": (with_member("version"), "could execute code"),
    "old-format": (with_member("serialized_exported_program.json"), "could execute code"),
    "name-with-newline": (with_member("net/byteorder\n"), "could execute code"),
    "no-program": (without(MODEL), "has no models/model.json"),
    "no-weights": (without(WEIGHTS), "has no data/weights"),
    "large-mark": (replaced("byteorder", b"x" * 5000), "byteorder is larger than"),
    "program-is-no-json": (replaced(MODEL, b"{"), "is not JSON"),
    "program-in-another-encoding": (replaced(MODEL, "{}".encode("utf-16")), "is not JSON"),
    "program-too-deep": (replaced(MODEL, b"[" * 100_000), "is not JSON"),
    "program-is-a-list": (replaced(MODEL, b"[]"), "graph_module is missing"),
    "program-is-empty": (replaced(MODEL, b"{}"), "graph_module is missing"),
    "weights-are-a-list": (replaced(WEIGHTS, b"[]"), "config is missing"),
    "weight-is-a-text": (replaced(WEIGHTS, b'{"config": {"w": "x"}}'), "w is missing or of another type"),
    "no-such-tensor": (without("data/weights/weight_0"), "cannot be loaded"),
    "other-version": (replaced("archive_version", b"99"), "cannot be loaded"),
    "short-tensor": (replaced("data/weights/weight_0", b"\0\0\0\0"), "cannot be loaded"),
}


@pytest.mark.parametrize(("build", "message"), CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_that_is_not_as_pytorch_writes_it_is_refused(archive, tmp_path, build, message):
    """Members, folders, sizes and compression."""
    path = tmp_path / "evil.pt2"
    build(members(archive), path)
    with pytest.raises(ModelError, match=message):
        opened(path)


@pytest.mark.parametrize("data", [b"", b"PK", b"no archive", b"PK\x05\x06" + bytes(18)])
def test_a_file_that_is_no_archive_is_refused(tmp_path, data):
    """Empty, truncated, foreign, and an archive of nothing."""
    (tmp_path / "net.pt2").write_bytes(data)
    with pytest.raises(ModelError, match=r"is not a \.pt2 archive"):
        opened(tmp_path / "net.pt2")


@pytest.mark.parametrize("length", [40, 4000, -100])
def test_a_truncated_archive_is_refused(archive, tmp_path, length):
    """The directory at its end is gone; that of the sample inputs inside may be found in its place."""
    path = tmp_path / "net.pt2"
    path.write_bytes(archive.read_bytes()[:length])
    with pytest.raises(ModelError, match=r"is not a \.pt2 archive|holds 'archive/data\.pkl'"):
        opened(path)


def test_a_flipped_weight_is_refused(archive, tmp_path):
    """By its check sum."""
    data = bytearray(archive.read_bytes())
    weight = members(archive)["data/weights/weight_0"]
    data[data.index(weight) + 5] ^= 1
    (tmp_path / "net.pt2").write_bytes(data)
    with pytest.raises(ModelError, match="CRC"):
        opened(tmp_path / "net.pt2")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_archive_is_refused(tmp_path):
    """It holds pickles and code."""
    torch.jit.save(torch.jit.trace(tiny_network(), torch.rand(1, 3, 32, 32)), tmp_path / "net.pt2")
    with pytest.raises(ModelError, match="could execute code"):
        opened(tmp_path / "net.pt2")
