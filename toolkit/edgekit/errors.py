"""What can go wrong, named by who must act.

Rules this file keeps:

1. Every error a user can meet is an `EdgekitError`: one sentence that says what happened, and a hint that says what to do next.
2. The kind names the person who can mend it, so that a caller can route it without reading the text.
3. An exit code belongs to the kind, not to the command line: scripts see the same code whichever command met the error.
4. A lower-level error is always chained (`raise … from error`); its text goes into the message only where it helps a person.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class EdgekitError(Exception):
    """Base of every error edgekit raises on purpose.

    Args:
        message: One sentence, no full stop needed, naming the file, key or value at fault.
        hint: What to do next. Empty when there is nothing better than the message.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CatalogError(EdgekitError):
    """A recipe, target or calibration TOML is wrong; its author must act."""


class DataError(EdgekitError):
    """A frame, a data manifest or a label is wrong; the owner of the data must act."""


class ModelError(EdgekitError):
    """A model, its weights or its architecture does not fit; the owner of the model must act."""


class BundleError(EdgekitError):
    """A bundle is damaged, foreign or too new; whoever made or copied it must act."""


class TargetError(EdgekitError):
    """This device cannot do what was asked; choose another device, engine or bundle."""


class NotFiniteError(TargetError):
    """A model answered with NaN or infinite logits, which are no answer."""


class MissingEngineError(EdgekitError):
    """A library that is needed here is not installed; the installer must act."""


class OutputError(EdgekitError):
    """A result cannot be written where it was asked for."""


class AcceptanceError(EdgekitError):
    """The compressed model was measured and refused by the acceptance gate."""

    exit_code: ClassVar[int] = 3


class RegressionError(EdgekitError):
    """A measurement broke a limit that the caller set (`--fail-if`, `--baseline`, `--compare`)."""

    exit_code: ClassVar[int] = 4


def nearest(name: str, known: Iterable[str]) -> str:
    """Says which known names are nearest to an unknown one, for the hint of an error.

    Args:
        name: What was asked for.
        known: Every name that would have been accepted.

    Returns:
        ``"did you mean 'x'? Available: x, y"``, or only the list when nothing is near.
    """
    names = sorted(known)
    listed = f"available: {', '.join(names)}" if names else "nothing is available here"
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}? {listed}" if close else listed
