"""Takes folders and the user's name out of texts that leave the device: reasons of libraries quote paths, and a path tells whose device it is.

Rules this file keeps:

1. A folder that is known (the engine cache, that of the Python environment, the one a command works in, that for temporary files) is replaced by what it is.
2. Of any other path of this machine only the last part stays. What begins like a path and is none stays as it is: nodes of a graph have names such as
   `/features/conv`. `/proc`, `/sys`, `/dev` and `/etc` are the same on every device, and stay.
3. The names of user and host are replaced in sentences, as whole words; not where they are a word of every device ("root", "nvidia").

Does not prove that a text is anonymous: a library may quote what nobody expects.
"""

from __future__ import annotations

import os
import platform
import pwd
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.errors import EdgekitError
from edgekit.runtime.engines.engine_cache import default_folder

COMMON = frozenset({"root", "nvidia", "jetson", "orin", "ubuntu", "localhost", "user", "edgekit"})
"""Names of users and hosts that many devices have: they tell nothing, and are words of other things too."""

_EVERYWHERE = frozenset({"proc", "sys", "dev", "etc"})
# As the Filesystem Hierarchy Standard 3.0 has them, and what this machine has beside them.
_STANDARD = frozenset({"bin", "boot", "home", "lib", "lib64", "media", "mnt", "opt", "root", "run", "sbin", "srv", "tmp", "usr", "var"})
_PATH = re.compile(r"(?<![\w./~-])/(?P<top>[\w.+-]+)/(?:[^\s/:;,'\"()\[\]]+/)*")


def text(found: str, more: Mapping[str, str] | None = None) -> str:
    """A text without folders and names of this machine.

    Args:
        found: The text.
        more: Further paths, to what takes their place.
    """
    known = {**_known_folders(), **(more or {})}
    for path in sorted(known, key=len, reverse=True):
        words = known[path]
        found = re.sub(rf"{re.escape(path)}(?![\w-]|\.\w)", words.replace("\\", r"\\"), found)
    found = re.sub(rf"{re.escape(os.path.expanduser('~'))}(?![\w/-]|\.\w)", "~", found)  # noqa: PTH111 - never raises
    found = _PATH.sub(lambda match: match[0] if _stays(match["top"]) else "", found)
    if " " in found:
        for name, word in _names().items():
            found = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", word, found)
    return found


def document(found: Any, more: Mapping[str, str] | None = None) -> Any:
    """A JSON document whose texts are as `text` gives them; keys are the format's and stay."""
    if isinstance(found, str):
        return text(found, more)
    if isinstance(found, Mapping):
        return {key: document(value, more) for key, value in found.items()}
    if isinstance(found, (list, tuple)):
        return [document(value, more) for value in found]
    return found


def _stays(top: str) -> bool:
    return top in _EVERYWHERE or (top not in _STANDARD and not os.path.isdir(f"/{top}"))  # noqa: PTH112 - never raises


def _known_folders() -> dict[str, str]:
    """Folder to what it is."""
    found = {tempfile.gettempdir(): "the folder for temporary files", sys.base_prefix: "Python", sys.prefix: "the Python environment"}
    for words, look in (("the working folder", Path.cwd), ("the engine cache", default_folder)):
        try:
            found[str(look())] = words
        except (OSError, RuntimeError, EdgekitError):
            continue  # what is not there cannot be in a text
    # What is at the top, such as /usr, holds more than that.
    return {path: words for path, words in found.items() if path.count("/") > 1}


def _names() -> dict[str, str]:
    users = {os.environ.get(key, "") for key in ("USER", "LOGNAME", "SUDO_USER")}
    try:
        account = pwd.getpwuid(os.getuid())
        users |= {account.pw_name, account.pw_gecos.split(",")[0]}
    except KeyError:
        users.add("")
    names = {**dict.fromkeys(users, "the user"), platform.node(): "the host"}
    return {name: word for name, word in names.items() if len(name) > 1 and name.lower() not in COMMON}
