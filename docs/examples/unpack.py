"""Checks a bundle's digests and unpacks it; needs nothing but Python's standard library.

    python unpack.py BUNDLE.edgekit FOLDER

Every member is compared with the sha256 in `manifest.json` before anything is written, and the bytes that were checked are the bytes that are written.
The sha256 of `manifest.json` itself, the bundle's digest, is printed: compare it with one that came another way. The members' checksums alone
find accidents, not forgeries. Python's `zipfile` forgives more than edgekit's own reader does; `edgekit verify BUNDLE` is the strict check.
"""

# ruff: noqa: T201 - a script for the terminal
from __future__ import annotations

import hashlib
import json
import re
import sys
import zipfile
from pathlib import Path

FORMAT_VERSION = 1
NAME = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?(/[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?)*")


def read_bundle(path: Path) -> dict[str, bytes]:
    """Member name to content, `manifest.json` included; exits with a message where the bundle is not what its manifest says."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [member.filename for member in archive.infolist()]
            content = {name: archive.read(name) for name in names}
        manifest = json.loads(content["manifest.json"])
        version, digests = manifest["format_version"], {name: entry["sha256"] for name, entry in manifest["members"].items()}
    # RuntimeError: also what JSON that is nested without end, and an encrypted member, come out as.
    except (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        sys.exit(f"{path} is not a whole bundle: {error}")
    if version != FORMAT_VERSION:
        sys.exit(f"{path} is of format version {version}, this reads {FORMAT_VERSION}")
    if len(set(names)) != len(names) or not all(NAME.fullmatch(name) for name in names):
        sys.exit(f"{path} has a member twice, or one with a name that is not allowed")
    if set(names) != {"manifest.json", *digests}:
        sys.exit(f"{path}: the members are not those that the manifest lists")
    for name, digest in digests.items():
        if hashlib.sha256(content[name]).hexdigest() != digest:
            sys.exit(f"{path}: {name} is damaged: it does not have the sha256 that the manifest lists")
    return content


def main() -> None:
    path, folder = Path(sys.argv[1]), Path(sys.argv[2])
    content = read_bundle(path)
    for name, data in content.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    print("digest", hashlib.sha256(content["manifest.json"]).hexdigest())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python unpack.py BUNDLE.edgekit FOLDER")
    main()
