"""What keeps stdout a document: the user's own code and C libraries may print, and it goes to stderr."""

from __future__ import annotations

import os
import subprocess
import sys

CODE = """
import os, sys
from edgekit.cli.console import only_a_document, print_json
with only_a_document():
    print("from python")
    sys.stdout.flush()
    os.write(1, b"from a C library\\n")
print_json({"a": 1}, line=True)
"""


def test_what_is_printed_meanwhile_goes_to_stderr():
    """Python's print and a write to the descriptor alike; afterwards stdout is itself again."""
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=True, env=os.environ)
    assert ran.stdout == '{"a": 1}\n'
    assert "from python" in ran.stderr
    assert "from a C library" in ran.stderr
