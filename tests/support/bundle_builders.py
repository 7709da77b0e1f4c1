"""A tiny bundle, and the same bundle with one named fault.

Any test may `from bundle_builders import tiny_bundle, write_tiny_bundle, FAULTS` (`tests/conftest.py` puts this folder on the path).

The bundle is consistent in everything a reader checks, but its model is four bytes of nothing: no engine can load it.
`raw_zip` is a second implementation of the container, written from `docs/bundle-format.md`; it can write what `edgekit.bundle.archive` refuses to.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.bundle.arrays import dump_array
from edgekit.bundle.manifest import CamSpec, Decision, EngineSpec, Gate, GoldenSpec, Manifest, TargetSummary
from edgekit.schema.model_io import InputSpec, OutputSpec

Content = list[tuple[str, bytes]]


def tiny_manifest(**changes: Any) -> Manifest:
    """A draft for `tiny_members`: one engine, a 1 × 1 map, two labels."""
    engine = EngineSpec(
        name="openvino",
        files={"xml": "model/openvino.xml", "bin": "model/openvino.bin"},
        minimum_version="2026.1",
        precision="int8",
        settings={"INFERENCE_PRECISION_HINT": "f32"},
        outputs=2,
    )
    draft = Manifest(
        format_version=1,
        name="tiny",
        version="1.0.0",
        security_version=0,
        accepted=True,
        compatible=("x86-64",),
        target=TargetSummary(name="x86-64", title="Any 64-bit PC", architectures=("x86_64",)),
        engines=(engine,),
        input=InputSpec(color="grey", channels=1, resize=(2, 2), mean=(127.5,), std=(127.5,)),
        output=OutputSpec(labels=("benign", "malignant"), task="binary", positive="malignant"),
        decision=Decision(temperature=1.25, thresholds={"malignant": 0.4}),
        cam=CamSpec(
            rows=1,
            columns=1,
            maps=2,
            kind="pooled-linear",
            bias=(0.25, -0.25),
            tolerance=0.001,
            scale=6.0,
            golden={"openvino": "golden/maps.npy"},
            golden_tolerance={"openvino": 0.01},
        ),
        cam_reason="",
        golden=GoldenSpec(frames="golden/frames.npy", logits={"openvino": "golden/openvino.npy"}, tolerance={"openvino": 0.01}),
        acceptance=(Gate(name="auc", value=-0.001, bound=-0.01, passed=True),),
        sources={"weights": "0" * 64},
        made_with={"openvino": "2026.1.0"},
        members={},
    )
    return dataclasses.replace(draft, **changes)


def tiny_members() -> dict[str, bytes]:
    """Everything in the bundle but the manifest."""
    frames = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
    return {
        "model/openvino.xml": b"<net/>",
        "model/openvino.bin": bytes(4),
        "golden/frames.npy": dump_array(frames),
        "golden/openvino.npy": dump_array(np.array([[0.5, -0.5], [1.5, -1.5]], dtype=np.float32)),
        "golden/maps.npy": dump_array(np.array([[[[0.25]], [[-0.25]]], [[[1.25]], [[-1.25]]]], dtype=np.float32)),
        "report/summary.json": b"{}\n",
    }


def tiny_table(members: dict[str, bytes] | None = None) -> dict[str, Any]:
    """The manifest as JSON has it, members included, to be edited by a test."""
    table: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(tiny_manifest())))
    listed = tiny_members() if members is None else members
    table["members"] = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)} for name, data in listed.items()}
    return table


def manifest_bytes(table: object) -> bytes:
    """The one spelling of a manifest that edgekit writes."""
    return (json.dumps(table, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()


def content_of(members: dict[str, bytes], manifest: bytes | None = None) -> Content:
    """Name and content in the order of the archive."""
    whole = {**members, "manifest.json": manifest_bytes(tiny_table(members)) if manifest is None else manifest}
    return sorted(whole.items())


def raw_zip(
    content: Sequence[tuple[str, bytes]], *, claimed_size_bytes: int | None = None, directory_order: Sequence[int] | None = None
) -> bytes:
    """A ZIP as `docs/bundle-format.md` says, of any names in any order.

    Args:
        content: Name and content, written in this order.
        claimed_size_bytes: What the headers say about the size of the first member, instead of the truth.
        directory_order: Order of the records in the directory, as positions in `content`.
    """
    body, records = b"", []
    for position, (name, data) in enumerate(content):
        encoded = name.encode()
        size = claimed_size_bytes if claimed_size_bytes is not None and position == 0 else len(data)
        facts = struct.pack("<HHHHHIIIHH", 10, 0, 0, 0, 33, zlib.crc32(data), size, size, len(encoded), 0)
        tail = struct.pack("<HHHII", 0, 0, 0, 0o100644 << 16, len(body))
        records.append(b"PK\x01\x02" + struct.pack("<H", 788) + facts + tail + encoded)
        body += b"PK\x03\x04" + facts + encoded + data
    directory = b"".join(records[position] for position in directory_order or range(len(records)))
    return body + directory + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, len(records), len(records), len(directory), len(body), 0)


class _Pipe:
    """A stream without a position, for which zipfile writes data descriptors."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


def _foreign(method: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression=method) as file:
        for name, data in content_of(tiny_members()):
            file.writestr(name, data)
        file.comment = comment
    return stream.getvalue()


def _piped() -> bytes:
    stream = _Pipe()
    with zipfile.ZipFile(stream, "w") as file:  # type: ignore[call-overload]
        for name, data in content_of(tiny_members()):
            file.writestr(name, data)
    return stream.data


def _flipped(index: Callable[[bytes], int]) -> bytes:
    data = bytearray(tiny_bundle())
    data[index(bytes(data))] ^= 1
    return bytes(data)


def _renamed(name: str) -> bytes:
    members = tiny_members()
    members[name] = members.pop("report/summary.json")
    return raw_zip(content_of(members))


def _with_table(**changes: Any) -> bytes:
    return raw_zip(content_of(tiny_members(), manifest_bytes({**tiny_table(), **changes})))


def _with_text(old: str, new: str) -> bytes:
    text = manifest_bytes(tiny_table()).decode()
    if text.count(old) != 1:
        raise ValueError(f"{old!r} is there {text.count(old)} times")
    return raw_zip(content_of(tiny_members(), text.replace(old, new).encode()))


def _without(name: str) -> bytes:
    return raw_zip([(other, data) for other, data in content_of(tiny_members()) if other != name])


def _swapped() -> bytes:
    members = tiny_members()
    manifest = manifest_bytes(tiny_table(members))
    members["golden/frames.npy"], members["golden/openvino.npy"] = members["golden/openvino.npy"], members["golden/frames.npy"]
    return raw_zip(content_of(members, manifest))


def _replaced(name: str, data: bytes) -> bytes:
    """A member with other content under the old manifest; container and CRC-32 are right."""
    return raw_zip(content_of({**tiny_members(), name: data}, manifest_bytes(tiny_table())))


def _repacked(name: str, data: bytes) -> bytes:
    """A member with other content and the manifest to fit: a consistent bundle."""
    return raw_zip(content_of({**tiny_members(), name: data}))


def _npy(header: bytes, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


FAULTS: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "not-a-zip": lambda: b"\x89PNG\r\n\x1a\n" + bytes(64),
    "flipped-byte": lambda: _flipped(lambda data: data.index(b"<net/>")),
    "flipped-manifest-byte": lambda: _flipped(lambda data: data.index(b"1.25") + 3),
    "flipped-date": lambda: _flipped(lambda _: 12),
    "truncated": lambda: tiny_bundle()[:-40],
    "appended": lambda: tiny_bundle() + b"\n",
    "prefixed": lambda: b"#!/bin/sh\n" + tiny_bundle(),
    "prefixed-by-zip": lambda: raw_zip([("a", b"")]) + tiny_bundle(),
    "deflated": lambda: _foreign(zipfile.ZIP_DEFLATED),
    "rezipped": _foreign,
    "data-descriptors": _piped,
    "commented": lambda: _foreign(comment=b"hello"),
    "missing-manifest": lambda: _without("manifest.json"),
    "missing-member": lambda: _without("model/openvino.bin"),
    "unlisted-member": lambda: raw_zip(content_of({**tiny_members(), "report/a": b""}, manifest_bytes(tiny_table()))),
    "duplicate-member": lambda: raw_zip(sorted([*content_of(tiny_members()), ("model/openvino.bin", b"evil")])),
    "swapped-members": _swapped,
    "replaced-member": lambda: _replaced("model/openvino.bin", b"evil"),
    "resized-member": lambda: _replaced("model/openvino.bin", b"longer"),
    "unsorted-members": lambda: raw_zip(content_of(tiny_members())[::-1]),
    "unsorted-directory": lambda: raw_zip(content_of(tiny_members()), directory_order=[2, 0, 1, 3, 4, 5, 6]),
    "huge-claim": lambda: raw_zip(content_of(tiny_members()), claimed_size_bytes=0xFFFF_FFFE),
    "zip64-claim": lambda: raw_zip(content_of(tiny_members()), claimed_size_bytes=0xFFFF_FFFF),
    "folder-and-file": lambda: _renamed("model/openvino.bin/a"),
    "name-parent": lambda: _renamed("../report"),
    "name-dot": lambda: _renamed("report/./a"),
    "name-absolute": lambda: _renamed("/report/a"),
    "name-folder": lambda: _renamed("report/"),
    "name-empty": lambda: _renamed(""),
    "name-backslash": lambda: _renamed("report\\a"),
    "name-drive": lambda: _renamed("c:report"),
    "name-upper-case": lambda: _renamed("report/A"),
    "name-not-ascii": lambda: _renamed("report/ä"),
    "name-nul": lambda: _renamed("report/a\0"),
    "name-trailing-dot": lambda: _renamed("report/a."),
    "name-hidden": lambda: _renamed("report/.a"),
    "name-option": lambda: _renamed("-report"),
    "name-too-long": lambda: _renamed("report/" + "a" * 90),
    "too-many-members": lambda: raw_zip([(f"report/{number:03}", b"") for number in range(65)]),
    "manifest-unknown-key": lambda: _with_table(tempature=1.0),
    "manifest-wrong-type": lambda: _with_table(accepted="yes"),
    "manifest-missing-key": lambda: _with_text('  "accepted": true,\n', ""),
    "manifest-repeated-key": lambda: _with_text('  "accepted": true,', '  "accepted": false,\n  "accepted": true,'),
    "manifest-nan": lambda: _with_text('"temperature": 1.25', '"temperature": NaN'),
    "manifest-infinite": lambda: _with_text('"temperature": 1.25', '"temperature": 1e999'),
    "manifest-huge-integer": lambda: _with_text('"temperature": 1.25', '"temperature": 1' + 400 * "0"),
    "manifest-endless-integer": lambda: _with_text('"security_version": 0', '"security_version": ' + 9000 * "9"),
    "manifest-over-64-bit": lambda: _with_text('"security_version": 0', f'"security_version": {2**63}'),
    "manifest-deep": lambda: _with_text('"accepted": true', '"accepted": ' + 40 * "[" + 40 * "]"),
    "manifest-bottomless": lambda: _with_text('"accepted": true', '"accepted": ' + 100_000 * "["),
    "manifest-long-text": lambda: _with_text('"accepted": true', f'"accepted": "{2001 * "a"}"'),
    "manifest-escape-sequence": lambda: _with_table(cam_reason="\x1b[2J"),
    "manifest-lone-surrogate": lambda: _with_text('"cam_reason": ""', '"cam_reason": "\\ud800"'),
    "manifest-not-json": lambda: raw_zip(content_of(tiny_members(), b"hello")),
    "manifest-not-utf8": lambda: raw_zip(content_of(tiny_members(), b'{"name": "\xff"}')),
    "manifest-byte-order-mark": lambda: raw_zip(content_of(tiny_members(), b"\xef\xbb\xbf" + manifest_bytes(tiny_table()))),
    "manifest-list": lambda: raw_zip(content_of(tiny_members(), b"[]")),
    "manifest-draft": lambda: _with_table(members={}),
    "manifest-version-2": lambda: _with_table(format_version=2),
    "manifest-version-true": lambda: _with_table(format_version=True),
    "manifest-version-missing": lambda: _with_text('  "format_version": 1,\n', ""),
    "manifest-too-large": lambda: raw_zip(content_of(tiny_members(), manifest_bytes(tiny_table()) + bytes(2**20))),
}
"""Name of the fault to the bundle that has it; each is refused with a `BundleError` when it is opened."""

ARRAY_FAULTS: dict[str, bytes] = {
    "array-short": b"\x93NUMPY",
    "array-not-npy": bytes(64),
    "array-version-2": b"\x93NUMPY\x02\x00" + bytes(64),
    "array-header-cut-short": _npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }\n")[:-1],
    "array-10e12-elements": _npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }\n", bytes(8)),
    "array-64-bit-overflow": _npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (4294967296, 4294967296), }\n"),
    "array-huge-side": _npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (" + 5000 * b"9" + b",), }\n"),
    "array-empty": _npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (0, 1000000000000), }\n"),
    "array-scalar": _npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (), }\n", b"a"),
    "array-negative": _npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -1), }\n", b"a"),
    "array-too-short": _npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", bytes(7)),
    "array-too-long": _npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", bytes(9)),
    "array-objects": _npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", b"cos\nsystem\n"),
    "array-big-endian": _npy(b"{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }\n", bytes(4)),
    "array-half": _npy(b"{'descr': '<f2', 'fortran_order': False, 'shape': (1,), }\n", bytes(2)),
    "array-record": _npy(b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }\n", bytes(4)),
    "array-fortran": _npy(b"{'descr': '<f4', 'fortran_order': True, 'shape': (1,), }\n", bytes(4)),
    "array-code": _npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (print(1),), }\n", b"a"),
    "array-nine-dimensions": _npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 1, 1, 1, 1, 1, 1, 1), }\n", b"a"),
}
"""Name of the fault to `golden/frames.npy` that has it: the bundle opens, the array is refused."""


def tiny_bundle(fault: str | None = None) -> bytes:
    """The bytes of a tiny bundle.

    Args:
        fault: A key of `FAULTS` or `ARRAY_FAULTS`; None for the whole one.
    """
    if fault is None:
        return raw_zip(content_of(tiny_members()))
    if fault in ARRAY_FAULTS:
        return _repacked("golden/frames.npy", ARRAY_FAULTS[fault])
    return FAULTS[fault]()


def write_tiny_bundle(path: Path, fault: str | None = None) -> Path:
    """Writes `tiny_bundle(fault)` to a file and returns its path."""
    path.write_bytes(tiny_bundle(fault))
    return path
