"""One compile for all integration tests: through the command line, as a user does it."""

from __future__ import annotations

import pytest
from compile_builders import REFUSING, Project, write_project

from edgekit.cli.main import main


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Project:
    """A compiled project: `bundle` is accepted, `unaccepted` is written although its gates refuse it. Read-only by agreement."""
    made = write_project(tmp_path_factory.mktemp("project"))
    common = ["compile", str(made.recipe), "--workdir", str(made.workdir)]
    assert main([*common, "--out", str(made.bundle)]) == 0
    gates = [part for setting in (*REFUSING, "accept.enforce=false") for part in ("--set", setting)]
    assert main([*common, "--out", str(made.unaccepted), *gates]) == 0
    return made
